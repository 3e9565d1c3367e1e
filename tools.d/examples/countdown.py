import asyncio
from typing import Annotated

from portoser.tool import ctx
from pydantic import Field


async def countdown(
    start: Annotated[int, Field(ge=1, le=100)] = 10,
    pause: Annotated[float, Field(ge=0, le=1)] = 0.2,
) -> list[int]:
    """Count down to zero, reporting progress on the way.

    Args:
        start: The number to start from.
        pause: How many seconds to wait after each number.
    """
    counted: list[int] = []
    await ctx.info(f"Counting down from {start}.")
    for number in range(start, 0, -1):
        counted.append(number)
        await ctx.report_progress(len(counted), start, f"{number} …")
        await asyncio.sleep(pause)
    await ctx.info("Lift-off!", numbers=len(counted))
    return counted
