"""Changing the registry, and answering only when this server serves the change."""

from collections.abc import Sequence

from portoser.api.services import Services
from portoser.catalog.caller import Caller
from portoser.catalog.change import Change
from portoser.registry.changes import Applied

SECONDS_TO_FOLLOW = 10.0


async def applied(services: Services, changes: Sequence[Change], caller: Caller) -> Applied:
    """Apply ``changes`` as one transaction, and wait until the snapshot has them.

    Raises:
        Conflict: a name is taken, or the registry moved on.
        Unavailable: Postgres is away, or the change is applied and this server could not read it back in time.
    """
    done = await services.writer.apply(changes, caller=caller)
    await services.follower.at_least(done.generation, SECONDS_TO_FOLLOW)
    return done
