"""The snapshot as FastMCP sees it, for whoever uses the server through FastMCP's own interface.

Messages from clients take the shorter way, through `listing` and `calls`, which costs a third; both end
at the same functions.
"""

from collections.abc import Sequence
from typing import Any

from fastmcp.exceptions import ToolError
from fastmcp.server.providers import Provider
from fastmcp.tools import Tool
from fastmcp.tools.base import ToolResult
from fastmcp.utilities.components import FastMCPComponent
from fastmcp.utilities.versions import VersionSpec
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from pydantic import PrivateAttr

from portoser.invocation import Invocation
from portoser.invocation.asks import Nobody
from portoser.mcp.callers import current_caller
from portoser.mcp.calls import wire_result
from portoser.mcp.listing import annotations_of, title_of
from portoser.registry.access import Access
from portoser.registry.follower import Follower
from portoser.registry.snapshot import ServedTool

_NOBODY = Nobody("FastMCP's own interface cannot ask the user; an MCP client can.")


class SnapshotTool(Tool):
    """A tool of the snapshot; running it is an invocation."""

    _invocation: Invocation = PrivateAttr()

    @classmethod
    def of(cls, served: ServedTool, invocation: Invocation) -> "SnapshotTool":
        """The tool that FastMCP lists and runs for a served one."""
        revision = served.registered.revision
        tool = cls(
            name=served.name,
            title=title_of(served),
            description=revision.description,
            parameters=revision.input_schema,
            output_schema=revision.output_schema,
            annotations=annotations_of(served),
        )
        tool._invocation = invocation
        return tool

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """Invoke it for the current caller.

        Raises:
            ToolError: the caller may not call it.
        """
        result = await self._invocation.invoke(self.name, arguments, current_caller(), asks=_NOBODY)
        try:
            return ToolResult.from_mcp_result(CallToolResult.model_validate(wire_result(result), by_name=False))
        except MCPError as refused:
            raise ToolError(refused.message) from None


class SnapshotProvider(Provider):
    """Offers what the current caller may call."""

    def __init__(self, follower: Follower, access: Access, invocation: Invocation) -> None:
        super().__init__()
        self._follower = follower
        self._access = access
        self._invocation = invocation

    async def _list_tools(self) -> Sequence[Tool]:
        visible = self._access.visible(self._follower.snapshot, current_caller())
        return [SnapshotTool.of(served, self._invocation) for served in visible]

    async def _get_tool(self, name: str, version: VersionSpec | None = None) -> Tool | None:
        # One lookup. FastMCP's default would list every tool to find one.
        snapshot = self._follower.snapshot
        served = snapshot.tools.get(name)
        if served is None or not self._access.decide(snapshot, name, current_caller()).allowed:
            return None
        return SnapshotTool.of(served, self._invocation)

    async def get_tasks(self) -> Sequence[FastMCPComponent]:
        """None of our tools is a background task; FastMCP asks at start, when there is no caller to list for."""
        return []
