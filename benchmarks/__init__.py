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

``python -m benchmarks.runtime`` measures the runtime alone, against a bare echo over a Unix socket.

``python -m benchmarks.soak`` (or ``make soak``) drives Portoser alone, for half an hour at half of what it can answer,
and says whether memory, descriptors, processes or latency grow.

    soak.py       the run and its verdict
    mix.py        the callers, the tools, the mixture of requests with the answers that are expected
    crowd.py      sessions on every transport; an open loop of requests at a constant rate
    actors.py     who edits, adds and deletes tools meanwhile; clients that come and go
    census.py     what each kind of process holds
    record.py     the samples, what of them is judged
    trend.py      a robust slope, its confidence interval, a verdict
    plot.py       the picture
"""
