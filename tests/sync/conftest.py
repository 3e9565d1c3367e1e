"""What the tests of this room may ask for; see sync_world."""

from sync_world import repo, runtime, world

__all__ = ["repo", "runtime", "world"]
