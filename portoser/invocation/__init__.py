"""The way of a call: authorize, validate, limit, confirm, record, execute, record, answer.

There is no other way to run a tool for a caller, from MCP, REST or the command line. Every attempt ends in
exactly one entry of the audit log, and its outcome is durable before the caller sees it.
"""

from portoser.invocation.invoke import Invocation
from portoser.invocation.result import CallResult

__all__ = ["CallResult", "Invocation"]
