"""The way of a call: authorize, validate, limit, confirm, record, execute, record, answer.

There is no other way to run a tool for a caller, from MCP, REST or the command line. Every attempt that this server
lives to see the end of is exactly one entry of the audit log, durable before the caller sees the outcome. Where the
server dies under a call, the intent that was recorded before it ran becomes an entry, ``interrupted``; a tool that is
declared read-only has no intent, and leaves none.
"""

from portoser.invocation.invoke import Invocation
from portoser.invocation.result import CallResult

__all__ = ["CallResult", "Invocation"]
