"""What runs, and what clients see of it: the declaration that an author wrote, and the revision it becomes."""

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from portoser.catalog.units import Rate

GIB = 1024**3
MIB = 1024 * 1024
KIB = 1024

JsonSchema: TypeAlias = dict[str, Any]

DIGEST_FORM = 1
"""Grows when the canonical form changes, so that digests of two forms never meet."""


class Isolation(StrEnum):
    """Whether calls of a tool share a worker process."""

    REUSE = "reuse"
    FRESH = "fresh"


class SourceFile(msgspec.Struct, frozen=True):
    """One Python module of a tool. ``path`` is relative to the manifest's folder, with '/'."""

    path: str
    content: str


class Annotations(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a tool does to the world, in MCP's words; the defaults are MCP's, the cautious ones."""

    title: str | None = None
    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may use. Times in seconds, sizes in bytes.

    None in ``concurrency`` and ``rate`` means no limit of that kind, in the others what is usual on the server; an
    operator's ceilings hold for all.
    """

    timeout: float = 30.0
    memory: int = 256 * MIB
    result: int = 8 * MIB
    logs: int = 64 * KIB
    concurrency: int | None = None
    rate: Rate | None = None
    share: int = 1
    cpu: float | None = None
    scratch: int | None = None
    output: int | None = None
    files: int | None = None
    powers: int | None = None


_LATER = frozenset(("cpu", "scratch", "output", "files", "powers"))


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A call with what it must answer, run before a new revision is served.

    ``given`` holds fakes for powers, by power. ``expect`` is compared with the structured result, or
    with the text where there is none; ``msgspec.UNSET`` only asks that the call succeeds.
    """

    call: dict[str, Any] = msgspec.field(default_factory=dict)
    given: dict[str, Any] = msgspec.field(default_factory=dict)
    expect: Any = msgspec.UNSET
    line: int = 0
    """Where the example stands in its manifest; not part of the digest."""


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an author declared of a revision, before its code has been imported to learn the rest.

    ``entrypoint`` is ``<file>:<function>``; the file is one of ``files``. None in ``description``,
    ``input_schema`` and ``output_schema`` means: take it from the code.
    """

    files: tuple[SourceFile, ...]
    entrypoint: str
    description: str | None = None
    input_schema: JsonSchema | None = None
    output_schema: JsonSchema | None = None
    annotations: Annotations = Annotations()
    limits: Limits = Limits()
    isolation: Isolation = Isolation.REUSE
    confirm: str | None = None
    uses: dict[str, list[str]] = msgspec.field(default_factory=dict)
    requires: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    def key(self) -> str:
        """The sha256, in hex, that admission's result is cached by, together with the runtime's own key."""
        body = msgspec.to_builtins(self)
        body["limits"] = _named(body["limits"])
        for example in body["examples"]:
            example.pop("line", None)
        return _sha256(["declaration", DIGEST_FORM, body])


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted declaration: schemas and description are known. Immutable, named by its digest.

    ``files`` is empty in a snapshot, where only the metadata is held; the code is fetched by digest.
    """

    digest: str
    files: tuple[SourceFile, ...]
    entrypoint: str
    description: str
    input_schema: JsonSchema
    output_schema: JsonSchema | None = None
    annotations: Annotations = Annotations()
    limits: Limits = Limits()
    isolation: Isolation = Isolation.REUSE
    confirm: str | None = None
    uses: dict[str, list[str]] = msgspec.field(default_factory=dict)
    requires: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    lock: str | None = None
    """The digest of what ``requires`` was resolved to, which names the environment that the code runs in."""

    def listing_digest(self) -> str:
        """A digest of what ``tools/list`` shows of this revision: equal digests need no notification."""
        return _sha256([self.description, self.input_schema, self.output_schema, msgspec.to_builtins(self.annotations)])


def revision_of(
    declaration: Declaration,
    *,
    description: str,
    input_schema: JsonSchema,
    output_schema: JsonSchema | None,
    lock: str | None = None,
) -> Revision:
    """The revision that a declaration becomes with what its code says. Declared fields win over the code's.

    ``lock`` is the digest of what its ``requires`` was resolved to.
    """
    fields: dict[str, Any] = {name: getattr(declaration, name) for name in declaration.__struct_fields__}
    fields["lock"] = lock
    fields["description"] = declaration.description if declaration.description is not None else description
    fields["input_schema"] = declaration.input_schema if declaration.input_schema is not None else input_schema
    fields["output_schema"] = declaration.output_schema if declaration.output_schema is not None else output_schema
    return Revision(digest=digest_of(fields), **fields)


def digest_of(fields: Mapping[str, Any]) -> str:
    """The sha256, in hex, of the canonical form of a revision's fields (all but ``digest``).

    The canonical form is JSON with sorted keys and no white space; the order of files counts, because
    it is the order in which they are imported; the order of keys in schemas does not. A lock is part of it where
    there is one.
    """
    body = {name: msgspec.to_builtins(value) for name, value in fields.items() if name != "digest"}
    if body.get("lock") is None:
        body.pop("lock", None)
    if "limits" in body:
        body["limits"] = _named(body["limits"])
    examples: Sequence[dict[str, Any]] = body.get("examples") or ()
    body["examples"] = [{key: value for key, value in example.items() if key != "line"} for example in examples]
    return _sha256(["revision", DIGEST_FORM, body])


def _named(limits: dict[str, Any]) -> dict[str, Any]:
    """Limits without those that nobody has named, which there were not always."""
    return {name: value for name, value in limits.items() if value is not None or name not in _LATER}


def _sha256(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
