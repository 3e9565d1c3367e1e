"""What the audit log is told of a call."""

import base64
import binascii
import hashlib
import os
import time
from typing import Any

import msgspec

from portoser.audit.fitting import RESULT_LIMIT, fit
from portoser.audit.redaction import Redactor, Taint
from portoser.runtime.types import Execution

_VERSION_AND_VARIANT = 0x7000_8000_0000_0000_0000


def new_id() -> str:
    """A UUID of version 7: by time, so that new rows stand together in the log's index."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10)) & 0x0FFF_3FFF_FFFF_FFFF_FFFF | _VERSION_AND_VARIANT
    digits = f"{milliseconds << 80 | random:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def told_of(execution: Execution, redactor: Redactor, taint: Taint) -> tuple[Any, str]:
    """A result as the log may hold it, and the sha256, in hex, of the whole of it.

    The structured result stands for the texts that only repeat it; of images and other binary content, type,
    size and sha256 are told.
    """
    content, structured = execution.content, execution.structured
    whole = msgspec.json.encode({"content": content, "structured": structured}, order="sorted")
    told: dict[str, Any] = {}
    if structured is not None:
        told["structured"] = structured
        content = [block for block in content if block.get("type") != "text"]
    if content:
        told["content"] = [_without_bytes(block) for block in content]
    return fit(redactor.redact(told, taint), RESULT_LIMIT), hashlib.sha256(whole).hexdigest()


def _without_bytes(block: dict[str, Any]) -> dict[str, Any]:
    if isinstance(block.get("data"), str):
        return _summary(block, block["data"])
    resource = block.get("resource")
    if isinstance(resource, dict) and isinstance(resource.get("blob"), str):
        return {
            "type": block.get("type"),
            "resource": {"uri": resource.get("uri"), **_summary(resource, resource["blob"])},
        }
    return block


def _summary(holder: dict[str, Any], encoded: str) -> dict[str, Any]:
    try:
        content = base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        content = encoded.encode("utf-8", "replace")
    return {
        "type": holder.get("type", "blob"),
        "mimeType": holder.get("mimeType"),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
