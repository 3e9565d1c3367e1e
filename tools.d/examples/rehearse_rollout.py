import asyncio
from dataclasses import dataclass
from typing import Annotated

from portoser.tool import ctx
from pydantic import Field


@dataclass
class Rollout:
    """What a rollout replaced, in order."""

    service: str
    replaced: list[str]


async def rehearse_rollout(
    service: str,
    replicas: Annotated[int, Field(ge=1, le=50)] = 5,
    seconds: Annotated[float, Field(ge=0, le=60)] = 5.0,
) -> Rollout:
    """Walk through the rollout of a service, replica by replica, without touching anything.

    Args:
        service: The service to roll out.
        replicas: How many replicas it has.
        seconds: How long the whole walk takes.
    """
    replaced: list[str] = []
    await ctx.info(f"Rolling out {service}: {replicas} replicas, one after the other.")
    for number in range(1, replicas + 1):
        await asyncio.sleep(seconds / replicas)
        replaced.append(f"{service}-{number}")
        await ctx.report_progress(number, replicas, f"Replaced {replaced[-1]}")
    await ctx.info(f"All {replicas} replicas of {service} are new.")
    return Rollout(service, replaced)
