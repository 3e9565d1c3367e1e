"""The token file: who is known, who is not any more, and what is said of a file that is wrong."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from portoser.catalog.caller import CallerKind
from portoser.catalog.errors import PortoserError
from portoser.identity.tokens import Expired, TokenFile, hash_of, new_token


def file_of(path: Path, *entries: object) -> Path:
    path.write_text(yaml.safe_dump(list(entries)), encoding="utf-8")
    return path


def test_a_token_tells_its_holder(tmp_path: Path) -> None:
    token, digest = new_token()
    tokens = TokenFile(
        file_of(tmp_path / "t.yaml", {"name": "cursor", "hash": digest, "groups": ["operator"], "subject": "ann"})
    )
    caller = tokens.verify(token)
    assert caller is not None
    assert (caller.subject, caller.name, caller.client, caller.groups, caller.kind) == (
        "ann",
        "cursor",
        "cursor",
        frozenset({"operator"}),
        CallerKind.TOKEN,
    )
    assert tokens.verify(token + "x") is None
    assert tokens.verify("") is None
    assert tokens.verify("x" * 10_000) is None
    assert tokens.verify(digest) is None
    assert len(tokens) == 1


def test_tokens_look_like_tokens() -> None:
    token, digest = new_token()
    assert token.startswith("ptk_")
    assert len(token) == 47
    assert digest == hash_of(token)
    assert new_token()[0] != token


def test_a_token_is_good_to_the_end_of_its_day(tmp_path: Path) -> None:
    old, old_hash = new_token()
    new, new_hash = new_token()
    tokens = TokenFile(
        file_of(
            tmp_path / "t.yaml",
            {"name": "old", "hash": old_hash, "expires": "2020-01-31"},
            {"name": "new", "hash": new_hash, "expires": "2999-01-31"},
        )
    )
    with pytest.raises(Expired, match="'old' has expired"):
        tokens.verify(old)
    caller = tokens.verify(new)
    assert caller is not None
    assert caller.expires_at == datetime(2999, 2, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("written", ["2030-06-01T12:00:00Z", "2030-06-01T14:00:00+02:00", "'2030-06-01T12:00:00'"])
def test_a_moment_may_be_given_too(tmp_path: Path, written: str) -> None:
    token, digest = new_token()
    path = tmp_path / "t.yaml"
    path.write_text(f"- {{name: a, hash: '{digest}', expires: {written}}}", encoding="utf-8")
    caller = TokenFile(path).verify(token)
    assert caller is not None
    assert caller.expires_at == 1906545600.0


def test_everything_wrong_is_told_at_once_and_no_token_is_shown(tmp_path: Path) -> None:
    token, digest = new_token()
    path = file_of(
        tmp_path / "t.yaml",
        {"name": "a", "hash": token},
        {"name": "b", "hash": "md5:1", "group": ["x"]},
        {"name": "b", "hash": digest, "groups": "operator"},
        {"name": "c", "hash": digest, "expires": "soon"},
        {"hash": digest},
        "text",
    )
    with pytest.raises(PortoserError) as caught:
        TokenFile(path)
    message = str(caught.value)
    for part in (
        "entry 1 (a): hash holds a token itself",
        "entry 2 (b): unknown key 'group'. Did you mean 'groups'?",
        "entry 2 (b): hash must be",
        "entry 3 (b): groups must be a list",
        "entry 3 (b): has the name of entry 2",
        "entry 4 (c): expires must be",
        "entry 4 (c): has the hash of entry 3",
        "entry 5: name must be",
        "entry 6: must be a mapping",
    ):
        assert f"{path}: {part}" in message
    assert token not in message


@pytest.mark.parametrize("content", ["{", "a: b", "- [", "\x00", b"\xff\xfe\xfa".decode("latin-1")])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PortoserError, match="token file"):
        TokenFile(path)


def test_a_missing_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(PortoserError, match="cannot be read"):
        TokenFile(tmp_path / "none.yaml")


def test_an_empty_file_knows_nobody(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("# none yet\n", encoding="utf-8")
    assert len(TokenFile(path)) == 0


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, first_hash = new_token()
    second, second_hash = new_token()
    path = file_of(tmp_path / "t.yaml", {"name": "a", "hash": first_hash})
    tokens = TokenFile(path)
    clock = time.monotonic()

    def later() -> None:
        nonlocal clock
        clock += 2
        monkeypatch.setattr(time, "monotonic", lambda: clock)

    path.write_text("- {broken", encoding="utf-8")
    later()
    assert tokens.verify(first) is not None
    path.unlink()
    later()
    assert tokens.verify(first) is not None
    file_of(tmp_path / "new.yaml", {"name": "b", "hash": second_hash})
    os.replace(tmp_path / "new.yaml", path)  # noqa: PTH105
    later()
    assert tokens.verify(first) is None
    assert tokens.verify(second) is not None


FIELDS = st.sampled_from(["name", "hash", "groups", "subject", "expires", "x"])
CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner),
)


@given(CONTENT)
@settings(deadline=None)
def test_no_content_makes_reading_fail_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    path = tmp_path_factory.mktemp("tokens") / "t.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        TokenFile(path)
    except PortoserError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_a_day_that_does_not_exist_is_said_and_does_not_break_what_is_served(tmp_path: Path) -> None:
    token, digest = new_token()
    path = file_of(tmp_path / "t.yaml", {"name": "ann", "hash": digest})
    tokens = TokenFile(path)
    path.write_text(f"- name: ann\n  hash: {digest}\n  expires: 2027-02-31\n")
    tokens.look()
    assert tokens.verify(token) is not None
    assert tokens.generation == 1
    with pytest.raises(PortoserError, match="not valid YAML"):
        TokenFile(path)


def test_the_file_tells_what_a_caller_may_be_now(tmp_path: Path) -> None:
    token, digest = new_token()
    path = file_of(tmp_path / "t.yaml", {"name": "ann", "hash": digest, "groups": ["dev"]})
    tokens = TokenFile(path)
    caller = tokens.verify(token)
    assert caller is not None
    file_of(path, {"name": "ann", "hash": digest, "groups": ["dev", "operator"]})
    tokens.look()
    assert tokens.generation == 2
    assert tokens.present(caller).groups == {"dev", "operator"}
    assert tokens.holder(digest) == tokens.present(caller)
    file_of(path)
    tokens.look()
    assert tokens.present(caller) == caller
    assert tokens.holder(digest) is None
