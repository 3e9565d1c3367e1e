"""What the tests of this room may ask for; see sync_world."""

from sync_world import registry, repo, runtime, stand_in, start, world

__all__ = ["registry", "repo", "runtime", "stand_in", "start", "world"]
