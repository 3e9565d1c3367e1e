"""What a tool may require: packages of the index by name and version, the rules that grant them, and a set's lock."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from portoser.catalog.policy import Policy

POWER = "requires"
"""The word of the policy's rules that grant packages, and of the manifest's field."""

PATTERN = re.compile(r"[A-Za-z0-9_.*?-]{1,200}", re.ASCII)
"""What a rule names: a package, or with ``*`` and ``?`` many."""

MOST = 50
"""Requirements that one tool may name."""

LONGEST = 200
"""Characters of one requirement."""


class Refused(ValueError):
    """A requirement that is not taken. ``advice`` says what would be right."""

    def __init__(self, message: str, advice: str = "") -> None:
        self.advice = advice
        super().__init__(message)


class Lock(msgspec.Struct, frozen=True):
    """What a set of requirements was resolved to: every package with its version and the hashes of its wheels."""

    text: str
    """Lines of ``name==version --hash=sha256:…``, as uv and pip read them; without a package there is none."""

    @property
    def digest(self) -> str:
        """The sha256 of the text, in hex, by which revisions and environments name it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def packages(self) -> tuple[str, ...]:
        """Its packages, as ``name==version``."""
        lines = self.text.splitlines()
        return tuple(line.split()[0] for line in lines if line[:1].isalnum() and "==" in line)


def parsed(text: str) -> Requirement:
    """A requirement, by PEP 508, of a package of the index.

    Raises:
        Refused: it is none, or it names a URL or a path, is an option, or holds only on some machines.
    """
    form = 'Write a package\'s name and version, for example: requires: ["httpx==0.28.1"]'
    if len(text) > LONGEST:
        raise Refused(f"it has {len(text)} characters; at most {LONGEST} are taken", form)
    word = text.strip()
    if word.startswith("-"):
        raise Refused("it is an option, and only packages are taken", form)
    try:
        requirement = Requirement(word)
    except InvalidRequirement:
        what = "a URL or a path" if "/" in word or word.startswith(".") else "no name of a package with versions"
        raise Refused(f"it is {what}", form) from None
    if requirement.url is not None:
        raise Refused("it names a URL, and only packages of the index are taken", form)
    if requirement.marker is not None:
        raise Refused(
            f"it has a condition ({requirement.marker})", "Leave out what stands after the ';': it always holds."
        )
    try:
        Requirement(_canonical(requirement))
    except InvalidRequirement:
        raise Refused("it holds what no package's name has", form) from None
    if not word.isascii():
        raise Refused("it holds letters that no package's name has", form)
    return requirement


def package_of(text: str) -> str:
    """The normalised name of the package that a sound requirement is of: ``My.Package`` is ``my-package``."""
    return canonicalize_name(Requirement(text).name)


def canonical(requires: Iterable[str]) -> tuple[str, ...]:
    """A set of sound requirements in one form, whatever their order and spelling."""
    return tuple(sorted({_canonical(Requirement(text)) for text in requires}))


def _canonical(requirement: Requirement) -> str:
    extras = ",".join(sorted(map(canonicalize_name, requirement.extras)))
    specifiers = ",".join(sorted(map(str, requirement.specifier)))
    return f"{canonicalize_name(requirement.name)}{f'[{extras}]' if extras else ''}{specifiers}"


def ungranted(policy: Policy, requires: Sequence[str], *, owner: str, tool: str) -> tuple[str, ...]:
    """The packages that no rule of the policy lets this owner's tool require, by normalised name.

    Rules speak of what a tool names itself; what those packages need in turn comes with them.
    """
    if not requires:
        return ()
    granted = {
        canonicalize_name(pattern)
        for rule in policy.rules_for(POWER, owner=owner, tool=tool)
        for pattern in rule.grants[POWER]
    }
    names = dict.fromkeys(package_of(text) for text in requires)
    return tuple(name for name in names if not any(fnmatchcase(name, pattern) for pattern in granted))


def rule_for(packages: Sequence[str], *, owner: str, tool: str) -> str:
    """The rule to add to the policy, so that a tool may require packages."""
    listed = ", ".join(f'"{name}"' for name in packages)
    return f'powers: [{{requires: [{listed}], owner: "{owner}", tools: ["{tool}"]}}]'
