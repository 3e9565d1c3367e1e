"""What a power is, on the host's side, and how it asks whether what a tool wants of it is granted."""

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec

from portoser.catalog.caller import Caller
from portoser.catalog.errors import PowerError
from portoser.catalog.policy import Policy, PowerRule


class PowerRefused(PowerError):
    """What was asked is not granted, or is nothing that may be asked at all."""


class Standing(NamedTuple):
    """What holds at this moment: the policy, and why the caller may not call the tool any more, where that is so."""

    policy: Policy = Policy()
    refusal: str | None = None


def _nothing() -> None:
    return None


class PowerContext(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a power is asked: the tool, its owner, what its manifest says it uses, and the caller of the call.

    ``standing`` is asked at each use, so that what is taken back counts from the next use on.
    """

    tool: str
    owner: str
    uses: Mapping[str, Sequence[str]] = msgspec.field(default_factory=dict)
    caller: Caller
    standing: Callable[[], Standing] = Standing
    held_back: Callable[[], str | None] = _nothing
    """Asked before something is changed: why that may not be now, where a person is to be asked first."""


class Use:
    """One use of a power. ``targets`` is what of it was asked for, as the audit log tells it: never a secret."""

    __slots__ = ("context", "power", "targets")

    def __init__(self, power: "Power", context: PowerContext) -> None:
        self.power = power
        self.context = context
        self.targets: list[str] = []

    def granted(self, resource: str, action: str) -> tuple[PowerRule, ...]:
        """The rules that grant the tool an action with something of this power; at least one.

        Raises:
            PowerRefused: its manifest does not ask for it, or the policy does not grant it.
        """
        self.targets.append(resource)
        power, context = self.power, self.context
        asked_for(power, context.tool, context.uses, resource)
        standing = context.standing()
        if standing.refusal is not None:
            raise PowerRefused(standing.refusal)
        rules = tuple(
            rule
            for rule in standing.policy.rules_for(power.word, owner=context.owner, tool=context.tool)
            if any(power.matches(pattern, resource) for pattern in rule.grants[power.word])
        )
        granting = tuple(rule for rule in rules if not rule.actions or action in rule.actions)
        if granting:
            return granting
        if rules:
            actions = ", ".join(sorted({action for rule in rules for action in rule.actions}))
            raise PowerRefused(
                f"The policy lets {context.tool} use {power.word} {resource} for {actions} alone, not for {action}. "
                f"Where that is meant, add {action} to the rule's actions in policy.yaml."
            )
        raise PowerRefused(
            f"The policy grants {context.tool} of {context.owner} no {power.word} {resource}. Where that is meant, add "
            f"to policy.yaml: {rule_to_add(power.word, resource, owner=context.owner, tool=context.tool)}"
        )


class Power(ABC):
    """One thing outside the sandbox that tools may ask. A new power is a class of this kind, in a file of its own."""

    name: str
    """What the tool's global is called."""
    word: str
    """The key in the manifest's ``uses`` and in the policy's rules."""
    is_open: bool = False
    """Whether every tool may use it, without a word in its manifest or in the policy."""

    @abstractmethod
    async def call(self, method: str, args: list[Any], kwargs: dict[str, Any], use: Use) -> Any:
        """Answer, with data that msgpack can carry. What is not open to all asks ``use.granted`` first.

        Raises:
            PowerError: where it refuses or fails; the message reaches the tool's code.
        """

    def matches(self, pattern: str, resource: str) -> bool:
        """Whether a pattern of a manifest or of the policy means what is asked for."""
        return fnmatchcase(resource, pattern)

    def writes(self, method: str) -> bool:
        """Whether a function may change something."""
        return not self.is_open

    async def aclose(self) -> None:
        """Give back what it holds."""
        return


def asked_for(power: Power, tool: str, uses: Mapping[str, Sequence[str]], resource: str) -> None:
    """Check that a manifest asks for something of a power.

    Raises:
        PowerRefused: it does not.
    """
    if not any(power.matches(pattern, resource) for pattern in uses.get(power.word, ())):
        wanted = ", ".join(f'"{each}"' for each in (*uses.get(power.word, ()), resource))
        raise PowerRefused(
            f"{tool} does not say in its manifest that it uses {power.word} {resource}. "
            f"Where that is meant, write there: uses: {{{power.word}: [{wanted}]}}"
        )


def rule_to_add(word: str, resource: str, *, owner: str, tool: str) -> str:
    """The rule that grants a tool what it lacks, as it is written in the policy."""
    return f'powers: [{{{word}: ["{resource}"], owner: "{owner}", tools: ["{tool}"]}}]'


def bound(power: str, method: str, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What a function gives for a tool's arguments; itself takes them, so it is what says which there are.

    Raises:
        PowerRefused: they are not those of the function.
    """
    try:
        return function(*args, **kwargs)
    except TypeError:  # looked at only now: a signature takes longer than most answers
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            raise PowerRefused(f"{power}.{method}() was called with the wrong arguments: {error}.") from None
        raise


def unknown_method(power: str, method: str, methods: Sequence[str]) -> PowerRefused:
    """The error for a method that a power does not have."""
    close = difflib.get_close_matches(method[:64], methods, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return PowerRefused(f"{power} has no function {method[:64]!r}.{hint} It has: {', '.join(methods)}.")
