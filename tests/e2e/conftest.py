"""Fixtures of the end-to-end tests."""

from e2e_server import own_server, server

__all__ = ["own_server", "server"]
