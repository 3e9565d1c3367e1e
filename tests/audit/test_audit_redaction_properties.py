"""Properties of redaction: nothing hidden is left, nothing raises, twice is once."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from portoser.audit.fitting import RESULT_LIMIT, fit
from portoser.audit.redaction import FAILED, PLACEHOLDER, Redactor, Taint

SCHEMA = {
    "properties": {
        "word": {"format": "password"},
        "list": {"items": {"$ref": "#/$defs/n"}},
        "again": {"$ref": "#"},
    },
    "$defs": {"n": {"properties": {"hidden": {"writeOnly": True}, "n": {"$ref": "#/$defs/n"}}}},
}
REDACTOR = Redactor.for_schema(SCHEMA, ["card", "pay.iban"])

HIDING_KEYS = ("password", "apiKey", "card", "Authorization", "client-secret", "word")
secrets = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0[]"), min_size=6, max_size=40).filter(
    lambda text: len(text.strip()) >= 6 and "REDACTED" not in text and text.strip() not in PLACEHOLDER
)
keys = st.one_of(st.text(max_size=12), st.sampled_from([*HIDING_KEYS, "name", "value", "tokens", "list", "again", "n"]))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=60))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=15,
)
hostile_pieces = st.sampled_from(
    ["password", "=", ":", "://", "@", "-----BEGIN RSA PRIVATE KEY-----", "eyJ", ".", "--token ", '"', "'", "\\",
     "{", "}", "[", "]", "a", " ", "\n", "Bearer ", "Basic ", "ghp_", "[REDACTED]", "[REDACTED", "é", "\0", "\ud800",
     "1", "Cookie"]
)  # fmt: skip
hostile = st.lists(hostile_pieces, max_size=60).map("".join)


def texts_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts_of(part)]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return [str(value)]


@given(secrets, st.sampled_from(HIDING_KEYS), values, st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_a_hidden_value_is_found_nowhere_in_what_is_kept(
    secret: str, key: str, other: Any, before: str, after: str
) -> None:
    echo = f"{before} {secret} {after}"
    arguments = {
        "early": echo,
        "other": other,
        key: secret,
        "late": [echo, {echo: 1}],
        "json": msgspec.json.encode({"e": secret}).decode(),
    }
    shown, taint = REDACTOR.redact_arguments(arguments)
    result = REDACTOR.redact({"content": [{"type": "text", "text": echo}], "structured": arguments}, taint)
    log = REDACTOR.redact_text(echo, taint)
    for text in [*texts_of(shown), *texts_of(result), log]:
        assert secret.strip() not in text.replace(PLACEHOLDER, "\0")


@given(st.one_of(values, hostile))
@settings(max_examples=200, deadline=None)
def test_redacting_twice_is_redacting_once(value: Any) -> None:
    once, _ = REDACTOR.redact_arguments(value)
    twice, _ = REDACTOR.redact_arguments(once)
    assert msgspec.json.encode(twice) == msgspec.json.encode(once)


@given(st.one_of(values, hostile), hostile)
@settings(max_examples=300, deadline=None)
def test_nothing_makes_it_fail_and_postgres_can_hold_what_is_left(value: Any, text: str) -> None:
    shown, taint = REDACTOR.redact_arguments({"v": value, "t": text})
    taint.add(value)
    for part in (shown, REDACTOR.redact(value, taint), REDACTOR.redact_text(text, taint)):
        encoded = msgspec.json.encode(part)
        assert b"\\u0000" not in encoded
        assert FAILED.encode() not in encoded
        assert len(msgspec.json.encode(fit(part, RESULT_LIMIT))) <= RESULT_LIMIT


@given(st.lists(hostile_pieces, min_size=1, max_size=4).map("".join))
@settings(max_examples=40, deadline=None)
def test_what_is_kept_of_endless_hostile_text_is_bounded(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    shown, taint = REDACTOR.redact_arguments({"a": text, "b": [text] * 50})
    assert len(msgspec.json.encode(shown)) < 3_000_000
    assert len(REDACTOR.redact_text(text, Taint())) < 9_000
    assert len(msgspec.json.encode(REDACTOR.redact({"a": [text] * 100}, taint))) < 200_000
