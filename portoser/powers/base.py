"""What a power is, on the host's side."""

from typing import Any, Protocol

import msgspec

from portoser.catalog.caller import Caller


class PowerContext(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a power is asked: the tool, its owner, what its manifest says it uses, and the caller of the call."""

    tool: str
    owner: str
    uses: dict[str, list[str]] = msgspec.field(default_factory=dict)
    caller: Caller


class Power(Protocol):
    """One thing outside the sandbox that tools may ask. A new power is a class with these two, in a file of its own."""

    name: str
    """What the tool's global is called, and the key in the manifest's ``uses``."""

    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], context: PowerContext) -> Any:
        """Answer, with data that msgpack can carry.

        Raises:
            PowerError: where it refuses or fails; the message reaches the tool's code.
        """
