"""What a call is allowed, of what its tool asks for."""

import pytest

from portoser.catalog.allowance import CEILINGS, Allowance, allowance_of, beyond, ceilings_of
from portoser.catalog.revision import GIB, MIB, Limits


def test_a_tool_that_asks_for_nothing_has_the_usual() -> None:
    assert allowance_of(Limits(), CEILINGS) == Allowance()


def test_a_ceiling_holds_whatever_a_tool_asks_for_and_is_told_of() -> None:
    ceilings = ceilings_of("memory=128MiB, timeout=5m cpu=2s")
    asked = Limits(memory=GIB, timeout=20.0, cpu=60.0, files=8)
    allowed = allowance_of(asked, ceilings)
    assert (allowed.memory, allowed.timeout, allowed.cpu, allowed.files) == (128 * MIB, 20.0, 2.0, 8)
    assert beyond(asked, ceilings) == [
        "'limits.cpu' is 60 s; this server allows 2 s.",
        "'limits.memory' is 1 GiB; this server allows 128 MiB.",
    ]


def test_who_asks_for_nothing_is_not_told_of_a_ceiling_below_the_usual() -> None:
    assert beyond(Limits(), ceilings_of({"memory": "64MiB", "files": 4})) == []


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("memory", "write for example memory=1GiB"),
        ("memry=1GiB", "'memry' is not a limit"),
        ("memory=much", "'much' is not a size"),
        ("timeout=0s", "more than 0"),
        ("files=none", "'none' is not a number for files"),
        ({"share": 0}, "not a number for share"),
    ],
)
def test_ceilings_that_cannot_be_read_say_why(told: str | dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ceilings_of(told)
