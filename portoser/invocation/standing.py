"""What holds for a call while it runs."""

from portoser.catalog.caller import Caller
from portoser.invocation.needs import Registered
from portoser.powers.base import Standing
from portoser.registry.access import Access


class CallStanding:
    """What holds for a running call, by the registry as it is whenever this is asked."""

    __slots__ = ("_access", "_caller", "_registered", "_seen", "_standing", "_tool")

    def __init__(self, registered: Registered, access: Access, tool: str, caller: Caller) -> None:
        self._registered = registered
        self._access = access
        self._tool = tool
        self._caller = caller
        self._seen: object = None
        self._standing = Standing()

    def __call__(self) -> Standing:
        """The policy in force, and why the caller may not call the tool any more."""
        snapshot = self._registered.snapshot
        if snapshot is not self._seen:
            decision = self._access.decide(snapshot, self._tool, self._caller)
            self._standing = Standing(snapshot.policy, None if decision.allowed else decision.message)
            self._seen = snapshot
        return self._standing
