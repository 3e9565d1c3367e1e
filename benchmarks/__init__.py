"""Measures Portoser against bare FastMCP, in the same run, with the same client.

``python -m benchmarks`` (or ``make bench``) starts a bare FastMCP server that holds its tools in process, and
Portoser as a user starts it, with the same tools generated into a ``tools.d``; drives both by turns with a lean
client, checks every answer, and prints one table of ratios. A number without its ratio says more about the
machine than about us.

    http.py       HTTP/1.1 over asyncio protocols: keep-alive requests, event streams
    protocol.py   MCP as bytes: the 2026-07-28 envelope, the SSE handshake, answers that are checked
    load.py       many connections, one call in flight on each; rounds that alternate between servers
    servers.py    starting, watching, weighing and stopping a server and all of its processes
    toolset.py    the tools.d, and the bare server's tools, with as many tools as asked for
    anchor.py     the bare FastMCP server, a program of its own
    measures.py   what is measured: calls, listing, save to list_changed, starts, memory
    report.py     the table, the JSON, the machine
"""
