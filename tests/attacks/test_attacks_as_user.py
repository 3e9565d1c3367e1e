"""Every attack on a server that runs as a plain user, with all layers."""

import pytest
from attacks import ATTACKS, Attack
from attacks_siege import Siege, assert_contained, besiege
from attacks_world import PROFILES

PROFILE = PROFILES["user"]


@pytest.fixture(scope="module")
def siege() -> Siege:
    return besiege(PROFILE)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_an_attack_is_contained(siege: Siege, attack: Attack) -> None:
    assert_contained(siege, attack, PROFILE)


def test_nothing_is_left_of_the_attacks(siege: Siege) -> None:
    assert siege.left == []
