"""What has to be done now and then, by whichever replica comes first."""

import asyncio

import asyncpg
import structlog

from portoser.catalog.errors import PortoserError
from portoser.registry.changes import RegistryWriter

log = structlog.get_logger(__name__)

EVERY = 30.0
"""Seconds between two rounds."""


async def keep_house(writer: RegistryWriter, *, every: float = EVERY) -> None:
    """Take back expired overrides of groups, for ever; replicas may do so at once, and only one of them will."""
    while True:
        try:
            await writer.end_expired_overrides()
        except (
            PortoserError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        ) as error:  # nothing that the server should end for
            log.info("housekeeping.postponed", reason=str(error))
        await asyncio.sleep(every)
