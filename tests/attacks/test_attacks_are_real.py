"""Without a sandbox the attacks succeed: what the other tests see contained is there to be contained."""

import pytest
from attacks import ATTACKS, Attack
from attacks_siege import Siege, besiege
from attacks_world import OPEN

REAL = [attack for attack in ATTACKS if attack.harmless and attack.real != "no" and not attack.looks]


@pytest.fixture(scope="module")
def siege() -> Siege:
    return besiege(OPEN, REAL)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("attack", REAL, ids=[attack.name for attack in REAL])
def test_an_attack_succeeds_where_there_is_no_sandbox(siege: Siege, attack: Attack) -> None:
    tried = siege.tried[attack.name]
    told = [tried.told[label] for label in ("reused: attack", "fresh: attack")]
    if attack.real:
        assert {each.reason for each in told} == {attack.real}
    elif attack.ends == ("ok",):
        assert all(each.got for each in told), told
    else:  # what limits a call is no layer: it holds all the same
        assert tried.contained, "\n".join(tried.problems)
