"""`tools/list`: the snapshot as clients see it, in pages.

A page holds what one caller may call, up to `PAGE_SIZE` tools in order of their names. The cursor is the
name that the page before ended with, so a change between two pages neither repeats a tool nor skips one.
Pages are kept in wire form for as long as their snapshot is served: shaping them costs several
milliseconds, sending them again costs the encoding alone.
"""

import base64
import binascii
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

import msgspec
import structlog
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    JSONRPCResponse,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
    methods,
)

from portoser.catalog.caller import Caller
from portoser.catalog.revision import JsonSchema
from portoser.mcp.callers import current_caller
from portoser.registry.access import Access
from portoser.registry.follower import Follower
from portoser.registry.snapshot import ServedTool, Snapshot

log = structlog.get_logger(__name__)

PAGE_SIZE: Final = 250
CACHED_TOOLS: Final = 20_000
"""How many tools the kept pages may hold together; at some 2 KB each, this bounds their memory."""


class Listing:
    """Answers `tools/list` and says which schema a called tool has."""

    def __init__(self, follower: Follower, access: Access, *, page_size: int = PAGE_SIZE) -> None:
        self._follower = follower
        self._access = access
        self._page_size = page_size

    async def list_tools(self, ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams) -> ListToolsResult:
        """One page of what the caller may call.

        Raises:
            MCPError: the cursor is not one of ours.
        """
        tools = self._access.visible(self._follower.snapshot, current_caller())
        start = 0 if params.cursor is None else bisect_right(tools, _decode_cursor(params.cursor), key=_name_of)
        page = tools[start : start + self._page_size]
        more = start + len(page) < len(tools)
        return ListToolsResult(
            tools=_sayable([_tool(served) for served in page], ctx.protocol_version),
            next_cursor=_encode_cursor(page[-1].name) if more else None,
        )

    def input_schema(self, name: str) -> JsonSchema | None:
        """The input schema to check a call's ``Mcp-Param-*`` headers against, or None where none can matter.

        The SDK asks before each call on 2026-07-28 and walks all of what it gets. Only ``x-mcp-header``
        annotations count there, so every other schema is answered with None; so is one of a tool that
        the caller may not know of.
        """
        snapshot = self._follower.snapshot
        served = snapshot.tools.get(name)
        if served is None:
            return None
        schema = served.registered.revision.input_schema
        if not _mentions_headers(schema) or not self._access.decide(snapshot, name, current_caller()).allowed:
            return None
        return schema

    def view(self, caller: Caller) -> tuple[Snapshot, Hashable]:
        """The snapshot that is served, and the key of what ``caller`` sees of it."""
        snapshot = self._follower.snapshot
        return snapshot, self._access.visibility_key(snapshot, caller)


class PageCache:
    """SDK middleware that answers `tools/list` with a page it saw before.

    The SDK shapes, checks and stamps a result once, on the way out; a middleware that answers by itself
    is trusted with the whole of it. So the first request of a kind goes all the way, and the rest get
    its result again. Results are copied by the SDK before it touches them.
    """

    def __init__(self, listing: Listing, *, max_tools: int = CACHED_TOOLS) -> None:
        self._listing = listing
        self._max_tools = max_tools
        self._snapshot: weakref.ref[Snapshot] | None = None
        self._held = 0
        self._pages: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Answer from the cache, or let the SDK answer and keep its answer."""
        if ctx.method != "tools/list" or ctx.request_id is None:
            return await call_next(ctx)
        snapshot, view = self._listing.view(current_caller())
        if self._snapshot is None or self._snapshot() is not snapshot:
            self._snapshot, self._held = weakref.ref(snapshot), 0
            self._pages.clear()
        key = (ctx.protocol_version, view, (ctx.params or {}).get("cursor"))
        page = self._pages.get(key)
        if page is not None:
            self._pages.move_to_end(key)
            return page
        result = await call_next(ctx)
        if isinstance(result, dict) and self._snapshot() is snapshot:
            _share_schemas(result, snapshot)
            self._keep(key, result)
        return result

    def _keep(self, key: Hashable, page: dict[str, Any]) -> None:
        replaced = self._pages.pop(key, None)
        self._held -= _weight(replaced) if replaced is not None else 0
        self._pages[key] = page
        self._held += _weight(page)
        while self._held > self._max_tools and len(self._pages) > 1:
            _, dropped = self._pages.popitem(last=False)
            self._held -= _weight(dropped)


def title_of(served: ServedTool) -> str:
    """What a person reads. Derived from the name where none is declared: some clients drop tools without one."""
    declared = served.registered.revision.annotations.title
    return declared or served.name.replace("_", " ").replace("-", " ").replace(".", " ").strip().title()


def annotations_of(served: ServedTool) -> ToolAnnotations:
    """The tool's annotations in MCP's words."""
    declared = served.registered.revision.annotations
    return ToolAnnotations(
        title=declared.title,
        read_only_hint=declared.read_only,
        destructive_hint=declared.destructive,
        idempotent_hint=declared.idempotent,
        open_world_hint=declared.open_world,
    )


def _tool(served: ServedTool) -> Tool:
    revision = served.registered.revision
    return Tool(
        name=served.name,
        title=title_of(served),
        description=revision.description,
        input_schema=revision.input_schema,
        output_schema=revision.output_schema,
        annotations=annotations_of(served),
    )


def _sayable(tools: list[Tool], version: str) -> list[Tool]:
    """The tools as a protocol version can say them.

    Versions before 2026-07-28 know fewer schemas; an output, for example, must be an object there. The
    SDK refuses a whole page for one tool that does not fit, so that tool is listed without its output
    schema, or, where that does not help, left out. So is a tool whose schema is too deep to be written.
    """
    if _fits(tools, version):
        return tools
    said = []
    for tool in tools:
        without_output = tool.model_copy(update={"output_schema": None})
        fitting = next((form for form in (tool, without_output) if _fits([form], version)), None)
        if fitting is None:
            log.warning("mcp.tool_not_listable", tool=tool.name, protocol_version=version)
        else:
            said.append(fitting)
    return said


def _fits(tools: list[Tool], version: str) -> bool:
    """Whether a page of these tools can be written at all, and read by clients of this version."""
    try:
        page = ListToolsResult(tools=tools).model_dump(by_alias=True, mode="json", exclude_none=True)
        methods.validate_server_result("tools/list", version, page)
        # The page travels inside a message. A schema may be just shallow enough for the one and not for the other.
        JSONRPCResponse(jsonrpc="2.0", id=0, result=page).model_dump_json(by_alias=True, exclude_unset=True)
    except (ValueError, RecursionError):  # pydantic's refusals are ValueErrors
        return False
    return True


def _mentions_headers(schema: JsonSchema) -> bool:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return False
    return any(
        isinstance(sub, dict) and ("x-mcp-header" in sub or _mentions_headers(sub)) for sub in properties.values()
    )


def _name_of(served: ServedTool) -> str:
    return served.name


def _encode_cursor(name: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Cursor(name))).decode()


def _decode_cursor(cursor: str) -> str:
    try:
        return msgspec.json.decode(base64.b64decode(cursor, altchars=b"-_", validate=True), type=_Cursor).after
    except (binascii.Error, ValueError):
        advice = "The cursor is not one that tools/list gave out; list again from the start."
        raise MCPError(INVALID_PARAMS, advice) from None


class _Cursor(msgspec.Struct, frozen=True):
    after: str


def _share_schemas(page: dict[str, Any], snapshot: Snapshot) -> None:
    """Have a page that is kept hold the snapshot's schemas, not copies of them: they are most of what it weighs."""
    for tool in page.get("tools", ()):
        served = snapshot.tools.get(tool["name"])
        if served is None:  # it was swapped while the page was made
            continue
        revision = served.registered.revision
        for key, schema in (("inputSchema", revision.input_schema), ("outputSchema", revision.output_schema)):
            if key in tool and tool[key] == schema:
                tool[key] = schema


def _weight(page: dict[str, Any]) -> int:
    return max(1, len(page.get("tools", ())))
