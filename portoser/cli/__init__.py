"""The command line.

Commands that speak to a server do so over REST, like any other client; `serve`, `validate`, `doctor`, `bridge`
and `token` need none. What a command imports, it imports when it runs, so that `portoser --help` is quick.
"""

from portoser.cli.program import main

__all__ = ["main"]
