"""Serving MCP: what clients list and call, and how they are told that it changed.

FastMCP and the MCP SDK own the protocol; this room owns the catalog and the call. `server.build_mcp`
puts it together: `listing` turns the snapshot into pages of `tools/list`, `calls` turns `tools/call`
into an invocation, `subscribers` tells connected clients that what they may see changed, `sse` and
`http` are the transports, `sessions` keeps a session as narrow as it was opened, `credentials` ends the
streams of tokens that were taken back, `guard` keeps strangers' web pages out of the whole application, and `bridge`
serves clients that speak only stdio.

Nothing here decides who may do what (`registry.access` does), and nothing here runs a tool
(`invocation` does).
"""
