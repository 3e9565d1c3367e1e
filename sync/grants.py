"""What manifests ask for and the policy does not grant: a call that uses it is refused."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from portoser.catalog.errors import Problem, Severity
from portoser.catalog.network import place_pattern
from portoser.catalog.policy import Policy
from portoser.powers.base import rule_to_add
from sync.linking import Linked


def ungranted(tools: Mapping[str, Linked], policy: Policy, *, owner: str) -> Iterator[Problem]:
    """A warning at each thing that a manifest asks for and no rule grants to the tool of this owner."""
    for name, linked in tools.items():
        for word, asked, node in linked.document.fields.uses_places:
            rules = policy.rules_for(word, owner=owner, tool=name)
            if not any(_covers(word, granted, asked) for rule in rules for granted in rule.grants[word]):
                yield Problem(
                    path=node.path,
                    line=node.line,
                    column=node.column,
                    message=f"The policy grants the tool no {word} {asked}: a call that uses it is refused.",
                    advice=f"Have added to policy.yaml: {rule_to_add(word, asked, owner=owner, tool=name)}",
                    tool=name,
                    severity=Severity.WARNING,
                )


def _covers(word: str, granted: str, asked: str) -> bool:
    if word != "network":
        return fnmatchcase(asked, granted)
    try:
        return place_pattern(granted).covers(place_pattern(asked))
    except ValueError:
        return False
