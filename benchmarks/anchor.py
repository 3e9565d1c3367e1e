"""The bare FastMCP server that Portoser is measured against: one uvicorn process, its tools in process.

``python -m benchmarks.anchor --tools N --port P``. Both transports at the paths that Portoser serves them at.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastmcp import FastMCP
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from benchmarks.toolset import functions


def build(tools: int) -> Starlette:
    """An ASGI app that serves ``tools`` tools over ``/mcp`` and ``/sse``, as FastMCP does by itself."""
    mcp = FastMCP("anchor")
    for function in functions(tools):
        mcp.tool(function)
    streamable, sse = mcp.http_app(path="/mcp"), mcp.http_app(transport="sse", path="/sse")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with streamable.lifespan(streamable):
            yield

    async def ready(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ready")

    routes = [Route("/ready", ready), *sse.routes, Mount("/", streamable)]
    return Starlette(routes=routes, lifespan=lifespan)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(
        build(options.tools), host="127.0.0.1", port=options.port, loop="uvloop", log_level="warning", access_log=False
    )


if __name__ == "__main__":
    main()
