"""The MCP server over the snapshot, the event stream of changes, and the stdio bridge."""
