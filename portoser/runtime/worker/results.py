"""What a function returned, as MCP content and structured content, by FastMCP's ``convert_result`` rules."""

import base64
from typing import Any

import pydantic_core
from pydantic import TypeAdapter

from portoser.catalog.revision import JsonSchema
from portoser.tool import Audio, EmbeddedResource, Image

_MEDIA = (Image, Audio, EmbeddedResource)
_NO_MEDIA = frozenset((dict, str, int, float, bool, type(None)))
_anything: TypeAdapter[Any] = TypeAdapter(Any)


class NotSerializable(Exception):
    """The result cannot be sent as JSON, or does not have the shape that the output schema promises."""


def convert(
    value: Any, *, adapter: TypeAdapter[Any] | None, output_schema: JsonSchema | None
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Content blocks in wire shape, and structured content where there is some.

    A dict is structured content as it is; another value is wrapped as ``{"result": …}`` where the output schema says
    ``x-fastmcp-wrap-result``. Media are content alone; bytes are text, or base64 where they are not UTF-8.

    Raises:
        NotSerializable: with a message for the tool's author.
        RecursionError, ValueError, …: whatever serializing a hostile object raises.
    """
    if isinstance(value, bytes):
        return _content(value), None
    is_media = type(value) not in _NO_MEDIA and (
        isinstance(value, _MEDIA)
        or (isinstance(value, (list, tuple)) and any(isinstance(item, _MEDIA) for item in value))
    )
    if output_schema is None and is_media:
        return _content(value), None
    try:
        structured = (adapter or _anything).dump_python(value, mode="json")
    except (pydantic_core.PydanticSerializationError, UnicodeDecodeError) as error:
        if output_schema is not None:
            raise NotSerializable(
                f"The tool returned {_name(value)}, which cannot be sent as its output schema says: {error}"
            ) from None
        return _content(value), None
    content = _content(value if is_media else structured)
    if output_schema is None:
        return content, structured if isinstance(structured, dict) else None
    if output_schema.get("x-fastmcp-wrap-result"):
        return content, {"result": structured}
    if not isinstance(structured, dict):
        raise NotSerializable(
            f"The tool returned {_name(value)}, but its output schema describes an object. "
            "Return a dict, a dataclass or a model, or change outputSchema."
        )
    return content, structured


def _name(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _content(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)) and (not value or any(isinstance(item, _MEDIA) for item in value)):
        return [_block(item) for item in value]
    return [_block(value)]


def _block(item: Any) -> dict[str, Any]:
    if isinstance(item, _MEDIA):
        return item.to_block()
    if isinstance(item, str):
        return {"type": "text", "text": item}
    if isinstance(item, bytes):
        try:
            return {"type": "text", "text": item.decode("utf-8")}
        except UnicodeDecodeError:
            return {"type": "text", "text": base64.b64encode(item).decode("ascii")}
    return {"type": "text", "text": _anything.dump_json(item, fallback=str).decode()}
