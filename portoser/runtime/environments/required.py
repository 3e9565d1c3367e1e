"""What declarations require, resolved and installed before their code is looked at."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Self

from portoser.catalog.errors import PortoserError, Problem, Unavailable
from portoser.catalog.policy import Policy
from portoser.catalog.requirement import POWER as REQUIRES
from portoser.catalog.requirement import Lock, canonical, rule_for, ungranted
from portoser.catalog.revision import Declaration
from portoser.runtime.environments.environments import Environments, RequiredSet


class Waiting(tuple[Problem, ...]):
    """What keeps a declaration from being looked at now: its packages are on their way, or cannot be reached.

    ``retry_after`` is in how many seconds to look again.
    """

    retry_after: float = 2.0

    @classmethod
    def of(cls, problems: Iterable[Problem], retry_after: float) -> Self:
        """What to tell, and when to look again."""
        made = cls(problems)
        made.retry_after = retry_after
        return made


class CannotInstall(PortoserError):
    """Here no packages can be installed."""

    advice = "Leave 'requires' out: tools can import the standard library, pydantic and msgspec."


class Packages:
    """The packages of some declarations: their locks, or why there are none. Equal sets are one."""

    def __init__(
        self,
        environments: Environments | None,
        found: dict[RequiredSet, Lock | PortoserError],
        until: float | None,
    ) -> None:
        self._environments = environments
        self._found = found
        self._until = until

    def lock_of(self, declaration: Declaration) -> str | None:
        """The digest of the lock of what a declaration requires; None where it requires nothing, or there is none."""
        found = self._of(declaration)
        return found.digest if isinstance(found, Lock) else None

    def error_of(self, declaration: Declaration) -> PortoserError | None:
        """Why a declaration cannot have its packages; None where it can."""
        found = self._of(declaration)
        return found if isinstance(found, PortoserError) else None

    async def install(self, declarations: Iterable[Declaration]) -> None:
        """Have the packages of these declarations here; what fails is told by `error_of`."""
        if self._environments is None:
            return
        sets = {canonical(declaration.requires) for declaration in declarations if declaration.requires}
        locks = {each: lock for each in sets if isinstance(lock := self._found[each], Lock)}
        if not locks:
            return
        failed = await self._environments.install(locks.values(), until=self._until)
        for each, lock in locks.items():
            error = failed[lock.digest]
            if error is not None:
                self._found[each] = error

    def _of(self, declaration: Declaration) -> Lock | PortoserError | None:
        return self._found[canonical(declaration.requires)] if declaration.requires else None


class RequiredPackages:
    """Resolves what declarations require; without ``environments`` nothing can be."""

    def __init__(self, environments: Environments | None) -> None:
        self._environments = environments

    async def resolve(self, declarations: Sequence[Declaration], *, patience: float | None = None) -> Packages:
        """The packages of declarations; their sets are resolved, where they were not before.

        ``patience`` is how many seconds anybody waits, here and in `Packages.install`.

        Raises:
            Unavailable: the registry of locks is away.
        """
        sets = {canonical(declaration.requires) for declaration in declarations if declaration.requires}
        if not sets:
            return Packages(self._environments, {}, None)
        if self._environments is None:
            nothing = CannotInstall("Packages cannot be installed here.")
            return Packages(None, dict.fromkeys(sets, nothing), None)
        until = None if patience is None else asyncio.get_running_loop().time() + patience
        return Packages(self._environments, await self._environments.resolve(sets, until=until), until)


def unmet(name: str, error: PortoserError) -> tuple[Problem, ...]:
    """What a tool is told whose packages cannot be had, or not now."""
    problem = Problem(path=REQUIRES, message=str(error), advice=getattr(error, "advice", ""), tool=name)
    if not isinstance(error, Unavailable):
        return (problem,)
    return Waiting.of((problem,), error.retry_after)


def ungranted_packages(policy: Policy, name: str, declaration: Declaration, *, owner: str) -> tuple[Problem, ...]:
    """What the policy has against what a declaration requires, with the rule that would let it."""
    missing = ungranted(policy, declaration.requires, owner=owner, tool=name)
    if not missing:
        return ()
    message = f"No rule of the policy lets {name} of {owner} require {', '.join(missing)}."
    advice = f"Whoever keeps the policy may add to policy.yaml: {rule_for(missing, owner=owner, tool=name)}"
    return (Problem(path=REQUIRES, message=message, advice=advice, tool=name),)
