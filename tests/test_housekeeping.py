import asyncio

import asyncpg

from portoser.catalog.errors import Unavailable
from portoser.housekeeping import keep_house


class Writer:
    """Counts the rounds; the first two find Postgres away. What a round does is tested with the registry."""

    def __init__(self) -> None:
        self.rounds = 0
        self.fourth = asyncio.Event()

    async def end_expired_overrides(self) -> None:
        self.rounds += 1
        if self.rounds == 1:
            raise Unavailable("Postgres is away.")
        if self.rounds == 2:
            raise asyncpg.InterfaceError("The connection is closed.")
        if self.rounds == 4:
            self.fourth.set()


async def test_housekeeping_goes_on_when_postgres_was_away() -> None:
    writer = Writer()
    keeping = asyncio.create_task(keep_house(writer, every=0.001))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await writer.fourth.wait()
    keeping.cancel()
    await asyncio.wait([keeping])
    assert keeping.cancelled()
