"""The pages about clients say what `GET /api/mcp/config` says, and lead somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from portoser.clients import Client, auth_headers, client_snippets

DOCS = Path(__file__).parents[2] / "docs"
SNIPPETS = client_snippets("http://localhost:8000", auth_headers(auth_enabled=True))


def page(client: str) -> str:
    return (DOCS / "clients" / f"{client}.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[Any]:
    """What stands in the page's JSON and YAML blocks; JSON is YAML."""
    found = re.findall(r"^( *)```(?:json|yaml)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(body.replace("\n" + indent, "\n")) for indent, body in found]


@pytest.mark.parametrize("client", list(Client))
def test_a_page_holds_what_the_server_says_to_paste(client: Client) -> None:
    snippet = SNIPPETS[client.value]
    assert snippet["content"] in blocks(page(client.value))
    for place in (snippet.get("command"), snippet.get("file"), *snippet.get("files", {}).values()):
        assert place is None or place in page(client.value)


@pytest.mark.parametrize("client", list(Client))
def test_a_page_says_how_changes_show_and_what_to_do_when_it_does_not_work(client: Client) -> None:
    text = page(client.value)
    assert "**When tools change:**" in text
    assert "**When it does not work:**" in text
    assert len(text.splitlines()) < 75


def test_the_overview_names_every_client() -> None:
    overview = (DOCS / "clients" / "README.md").read_text(encoding="utf-8")
    assert all(f"({client.value}.md)" in overview for client in Client)


def test_every_link_between_pages_leads_to_a_page_and_a_heading() -> None:
    for file in (*DOCS.rglob("*.md"), DOCS.parent / "README.md"):
        text = file.read_text(encoding="utf-8")
        for target, heading in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]+))?\)", text):
            linked = (file.parent / target) if target else file
            assert linked.exists(), (file.name, target)
            if heading:
                heads = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                assert heading in slugs, (file.name, target, heading)
