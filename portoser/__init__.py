"""Portoser: a GitOps registry of MCP tools."""

__version__ = "0.1.0"
