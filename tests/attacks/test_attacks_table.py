"""The page about security says of each attack what the attacks' tests find."""

from attacks import EVERY
from attacks_table import PAGE, page


def test_the_page_has_every_attack_with_what_comes_of_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text, {}), "run `make attacks`"


def test_what_is_open_has_its_reason_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for attack in EVERY:
        assert all(f"`{attack.name}`" in text and why in text for why in attack.open.values())
