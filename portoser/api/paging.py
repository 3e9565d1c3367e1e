"""How lists are cut into pages, and names that nobody has are guessed."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Annotated, TypeVar

from fastapi import Path, Query

_Item = TypeVar("_Item")

Skip = Annotated[int, Query(ge=0, le=1_000_000_000, description="How many to leave out at the beginning.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many to return at most.")]
Name = Annotated[str, Path(min_length=1, max_length=64, description="The name.")]


def page(items: Sequence[_Item], skip: int, limit: int) -> Sequence[_Item]:
    """The items of one page."""
    return items[skip : skip + limit]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, or nothing where no name is near. Looks at 20,000 names at most."""
    near = get_close_matches(name, islice(names, 20_000), n=1, cutoff=0.7)
    return f" Did you mean {near[0]!r}?" if near else ""
