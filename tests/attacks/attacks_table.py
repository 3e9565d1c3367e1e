"""The table of ``docs/security.md``: every attack, and whether each profile contains it.

``python tests/attacks/attacks_table.py`` runs all attacks in all profiles and writes what came of them; it takes root.
What it writes is what the attacks say of themselves: it fails where that is not what happened, as the tests do.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from attacks import ATTACKS, EVERY, SUBJECTS, Attack
from attacks_siege import besiege
from attacks_world import PROFILES

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
HELD, KEPT, OPEN = "held", "held*", "**open**"
"""``KEPT``: held for everybody else; a reused worker may keep it for the same caller of the same tool."""


def declared(attack: Attack, profile: str) -> bool:
    """Whether an attack says of itself that a profile contains it."""
    return profile not in attack.open


def table(contained: Mapping[tuple[str, str], bool]) -> str:
    """The table, from whether an attack (by its name) was contained in a profile (by its name)."""
    titles = " | ".join(profile.title for profile in PROFILES.values())
    lines = []
    for subject, heading in SUBJECTS.items():
        lines += [f"### {heading}", "", f"| attack | what it tries | {titles} |", f"|---|---|{'---|' * len(PROFILES)}"]
        for attack in EVERY:
            if attack.subject != subject:
                continue
            cells = [
                (KEPT if attack.keeps else HELD)
                if contained.get((attack.name, profile), declared(attack, profile))
                else OPEN
                for profile in PROFILES
            ]
            lines.append(f"| `{attack.function}` | {attack.tried} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def reasons() -> list[str]:
    """Why what is open is open: each reason once, with its attacks."""
    found: dict[str, list[str]] = {}
    for attack in EVERY:
        for why in dict.fromkeys(attack.open.values()):
            found.setdefault(why, []).append(f"`{attack.name}`")
    return [f"* {', '.join(names)}: {why}" for why, names in found.items()]


def page(text: str, contained: Mapping[tuple[str, str], bool]) -> str:
    """The page with its table written anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    open_ones = "\n".join(["What is open there, and why:", "", *reasons(), "", ""]) if reasons() else ""
    return f"{before}{BEGIN}\n{table(contained)}{open_ones}{END}{after}"


def main() -> None:
    """Run the sieges, and write the table."""
    contained: dict[tuple[str, str], bool] = {}
    for profile in PROFILES.values():
        siege = besiege(profile)
        for attack in ATTACKS:
            contained[attack.name, profile.name] = siege.tried[attack.name].contained
        held = sum(contained[attack.name, profile.name] for attack in ATTACKS)
        print(f"{profile.title}: {held} of {len(ATTACKS)} contained; left: {siege.left or 'nothing'}")  # noqa: T201
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), contained), encoding="utf-8")
    wrong = [
        key
        for key, held in contained.items()
        for each in ATTACKS
        if each.name == key[0] and held != declared(each, key[1])
    ]
    if wrong:
        sys.exit(f"Otherwise than the attacks say of themselves: {wrong}")


if __name__ == "__main__":
    main()
