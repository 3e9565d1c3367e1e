"""The references in docs/ say what the code says."""

import pytest

from portoser.cli.docs import DOCS, pages


@pytest.mark.parametrize("name", ["cli.md", "settings.md", "manifest.schema.json"])
def test_the_generated_page_is_fresh(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_every_command_and_option_is_described() -> None:
    page = pages()["cli.md"]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows
    assert not [row for row in rows if row.endswith("|  |")]
    sections = page.split("\n## ")[1:]
    assert not [section for section in sections if section.splitlines()[2] == ""]
