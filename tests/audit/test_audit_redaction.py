"""What the audit log must not show, layer by layer."""

import base64
import json
from typing import Any

import pytest

from portoser.audit.redaction import FAILED, PLACEHOLDER, Redactor, Taint
from portoser.audit.redaction.words import Sensitivity, sensitivity

PLAIN = Redactor.for_schema({"type": "object"}, [])
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAn8a9\nq1w2e3r4t5y6u7i8o9p0\n-----END RSA PRIVATE KEY-----"


def redacted(arguments: Any, redactor: Redactor = PLAIN) -> Any:
    return redactor.redact_arguments(arguments)[0]


@pytest.mark.parametrize(
    "key",
    [
        "password", "PASSWORD", "dbPassword", "db_password", "DB_PASSWORD_2", "dbpassword", "passwd", "pwd", "apiKey",
        "api_key", "APIKey", "X-Api-Key", "x-auth-token", "accessToken", "access_token", "csrftoken", "client_secret",
        "clientSecret", "secret", "Authorization", "proxy-authorization", "Cookie", "set-cookie", "privateKey",
        "ssh_key", "credentials", "awsSecretAccessKey", "connection_string", "secret_id", "pass", "jwt",
        "OAuthToken", "ｐａｓｓｗｏｒｄ",
        "пароль", "passwort", "root_passphrase", "webhook.secret",
    ],
)  # fmt: skip
def test_a_key_that_names_a_secret_hides_its_value(key: str) -> None:
    assert redacted({key: "hunter2"}) == {key: PLACEHOLDER}
    assert redacted({"deep": [{key: 4711}]}) == {"deep": [{key: PLACEHOLDER}]}


@pytest.mark.parametrize(
    "key",
    [
        "author", "compass", "authority", "max_tokens", "maxTokens", "prompt_tokens", "total_tokens", "token_path",
        "password_file", "secret_name", "token_url", "tokenizer", "primary_key", "key", "public_key", "monkey",
        "keyboard", "secretary", "cookie_policy", "token_type", "bypass", "passenger", "tokens_per_second",
        "access_key_id", "order_id",
    ],
)  # fmt: skip
def test_a_key_that_only_sounds_like_a_secret_is_kept(key: str) -> None:
    assert redacted({key: 17}) == {key: 17}


def test_tokens_are_counted_or_hidden_by_what_they_are() -> None:
    assert redacted({"tokens": 512, "usage": {"tokens": {"in": 1}}}) == {"tokens": 512, "usage": {"tokens": {"in": 1}}}
    assert redacted({"tokens": ["abc", "def"]}) == {"tokens": PLACEHOLDER}


def test_flags_and_absent_values_of_secret_keys_are_kept() -> None:
    assert redacted({"password": None, "token": True}) == {"password": None, "token": True}


def test_declared_fields_are_hidden_at_any_depth_and_by_path() -> None:
    redactor = Redactor.for_schema({}, ["card_number", "payment.iban", "people[].born", "*.inner.x"])
    assert redacted(
        {
            "Card_Number": "4111 1111 1111 1111",
            "iban": "kept",
            "payment": [{"iban": "DE89370400440532013000", "note": "kept too"}],
            "people": [{"born": "1970-01-01", "name": "Ann"}],
            "any": {"inner": {"x": "gone away", "y": 1}},
        },
        redactor,
    ) == {
        "Card_Number": PLACEHOLDER,
        "iban": "kept",
        "payment": [{"iban": PLACEHOLDER, "note": "kept too"}],
        "people": [{"born": PLACEHOLDER, "name": "Ann"}],
        "any": {"inner": {"x": PLACEHOLDER, "y": 1}},
    }


def test_declared_fields_are_hidden_in_results_too() -> None:
    redactor = Redactor.for_schema({}, ["card_number"])
    assert redactor.redact({"text": '{"card_number": 4111}'}, Taint()) == {"text": '{"card_number":"[REDACTED]"}'}
    assert redactor.redact_text("card_number=4111222", Taint()) == "card_number=[REDACTED]"


def test_the_schema_hides_through_references_branches_and_items() -> None:
    schema = {
        "$defs": {
            "Login": {
                "type": "object",
                "properties": {"user": {"type": "string"}, "word": {"type": "string", "format": "password"}},
            },
            "Tree": {
                "type": "object",
                "properties": {
                    "leaf": {"type": "string", "writeOnly": True},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
                },
            },
        },
        "type": "object",
        "properties": {
            "login": {"anyOf": [{"$ref": "#/$defs/Login"}, {"type": "null"}]},
            "logins": {"type": "array", "items": {"$ref": "#/$defs/Login"}},
            "pair": {"prefixItems": [{"type": "string"}, {"format": "password"}]},
            "tree": {"$ref": "#/$defs/Tree"},
            "map": {"additionalProperties": {"format": "password"}},
        },
        "allOf": [{"properties": {"extra": {"writeOnly": True}}}],
    }
    redactor = Redactor.for_schema(schema, [])
    assert redacted(
        {
            "login": {"user": "ann", "word": "s1"},
            "logins": [{"user": "bob", "word": "s2"}],
            "pair": ["a", "b"],
            "tree": {"leaf": "s3", "children": [{"leaf": "s4", "children": []}]},
            "map": {"k": "s5"},
            "extra": {"whole": "thing"},
            "other": "kept",
        },
        redactor,
    ) == {
        "login": {"user": "ann", "word": PLACEHOLDER},
        "logins": [{"user": "bob", "word": PLACEHOLDER}],
        "pair": [PLACEHOLDER, PLACEHOLDER],
        "tree": {"leaf": PLACEHOLDER, "children": [{"leaf": PLACEHOLDER, "children": []}]},
        "map": {"k": PLACEHOLDER},
        "extra": PLACEHOLDER,
        "other": "kept",
    }


@pytest.mark.parametrize(
    "token",
    [
        JWT, PEM, "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "github_pat_" + "a1B2" * 10, "glpat-" + "a1B2" * 5,
        "xoxb-123456789012-abcdefABCDEF", "AIza" + "a1B2_" * 7, "sk-proj-" + "a1B2" * 8, "sk_live_" + "a1B2" * 6,
        "npm_" + "a1B2" * 9, "pypi-" + "AgEIcHlwaS5vcmc" * 3, "hvs." + "CAESI" * 8, "ptk_" + "aB3-_" * 8 + "xyz",
        "SG." + "a1B2" * 5 + "." + "c3D4" * 10, "123456789:AA" + "h" * 33,
    ],
)  # fmt: skip
def test_a_known_token_is_hidden_wherever_it_stands(token: str) -> None:
    assert redacted({"note": f"use {token} please"}) == {"note": f"use {PLACEHOLDER} please"}
    assert redacted([token]) == [PLACEHOLDER]
    assert list(redacted({token: 1})) == [PLACEHOLDER]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("curl -H 'Authorization: Bearer abc.def.ghi' https://h", "abc.def.ghi"),
        ("Authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
        ("Cookie: sid=abcdef; theme=dark", "sid=abcdef"),
        ("postgresql://app:hunter2@db:5432/x", "hunter2"),
        ("https://h/path?page=2&token=abcdef&x=1", "abcdef"),
        ("export DB_PASSWORD=hunter2; ./run", "hunter2"),
        ('config = {"password": "two words", "x": 1', "two words"),
        ("{'api_key': 'abc def'}", "abc def"),
        (r"{\"secret\": \"shh-quiet\"}", "shh-quiet"),
        ("password: hunter2\nuser: ann", "hunter2"),
        ("mysql --password hunter2 -u ann", "hunter2"),
        ("mysql --password=hunter2 -u ann", "hunter2"),
        ('os.environ["SECRET_KEY"] = "hunter2"', "hunter2"),
        ("--token\thunter2", "hunter2"),
        (r'password="a \"quoted\" word" ok', r"a \"quoted\" word"),
        ("password='never closed\nnext line", "never closed"),
    ],
)
def test_an_inline_secret_is_hidden_and_the_rest_is_kept(text: str, secret: str) -> None:
    result = redacted({"note": text})["note"]
    assert secret not in result
    assert PLACEHOLDER in result
    assert result.partition(PLACEHOLDER)[0] == text.partition(secret)[0].removesuffix("Bearer ").removesuffix("Basic ")


@pytest.mark.parametrize(
    "text",
    [
        "def login(password: str, token: int | None) -> None",
        '{"type": "object", "required": ["password"]}',
        "https://example.com/orders?page=2&sort=name",
        "The author passed the compass: max_tokens=512, token_path=/run/x",
        "Basic authentication is used",
        "2026-11-22T10:00:00Z level=info msg=started",
    ],
)
def test_harmless_texts_are_kept(text: str) -> None:
    assert redacted({"note": text})["note"].replace(" ", "") == text.replace(" ", "")


def test_pairs_of_name_and_value_hide_the_value() -> None:
    assert redacted(
        {
            "env": [{"name": "DB_PASSWORD", "value": "s3cr3t"}, {"name": "MODE", "value": "fast"}],
            "headers": [["X-Api-Key", "abc123"], ["Accept", "*/*"]],
            "argv": ["mysql", "--password", "hunter2", "-u", "ann"],
        }
    ) == {
        "env": [{"name": "DB_PASSWORD", "value": PLACEHOLDER}, {"name": "MODE", "value": "fast"}],
        "headers": [["X-Api-Key", PLACEHOLDER], ["Accept", "*/*"]],
        "argv": ["mysql", "--password", PLACEHOLDER, "-u", "ann"],
    }


def test_json_inside_a_string_is_redacted_as_the_structure_it_is() -> None:
    inner = json.dumps({"password": "hunter2", "nested": json.dumps({"api_key": "abc-123"}), "n": 1})
    result = redacted({"body": inner})["body"]
    assert json.loads(result) == {"password": PLACEHOLDER, "nested": '{"api_key":"[REDACTED]"}', "n": 1}


def test_of_two_equal_keys_in_json_neither_shows_its_secret() -> None:
    assert "hunter2" not in redacted({"body": '{"password": "hunter2", "password": null}'})["body"]


@pytest.mark.parametrize(
    "copy",
    [
        "the word is correct-horse!",
        base64.b64encode(b"correct-horse").decode(),
        base64.b64encode(b"user:correct-horse").decode(),
        base64.urlsafe_b64encode(b"xcorrect-horsey").decode(),
        b"correct-horse".hex(),
        json.dumps({"a": "correct-horse"}),
        "https://h/?q=correct-horse",
    ],
)
def test_a_hidden_value_is_hidden_in_the_result_in_each_of_its_copies(copy: str) -> None:
    _, taint = PLAIN.redact_arguments({"password": "correct-horse"})
    result = PLAIN.redact({"answer": [copy]}, taint)
    assert PLACEHOLDER in str(result)
    assert "correct-horse" not in str(result)
    assert base64.b64encode(b"orrect-hor").decode()[:10] not in str(result)


def test_escaped_copies_are_hidden() -> None:
    secret = 'pä"ss\\wörd\n&<x>'
    _, taint = PLAIN.redact_arguments({"password": secret})
    for copy in (json.dumps(secret), repr(secret), "p%C3%A4%22ss%5Cw%C3%B6rd%0A%26%3Cx%3E"):
        assert PLACEHOLDER in PLAIN.redact_text(f"got {copy}.", taint)


def test_what_basic_credentials_hold_is_hidden_too() -> None:
    credentials = base64.b64encode(b"ann:correct-horse").decode()
    _, taint = PLAIN.redact_arguments({"Authorization": f"Basic {credentials}"})
    assert (
        PLAIN.redact_text("login failed for ann with correct-horse", taint)
        == f"login failed for ann with {PLACEHOLDER}"
    )


def test_a_value_that_the_vault_gave_is_hidden_in_result_error_and_logs() -> None:
    taint = Taint()
    taint.add({"key": "sk-vault-value", "pin": 90210})
    assert PLAIN.redact({"a": "sk-vault-value", "b": 90210, "sk-vault-value": 1}, taint) == {
        "a": PLACEHOLDER,
        "b": PLACEHOLDER,
        PLACEHOLDER: 1,
    }
    assert PLAIN.redact_text("KeyError: 'sk-vault-value'", taint) == f"KeyError: '{PLACEHOLDER}'"


def test_a_hidden_value_is_hidden_in_the_arguments_that_stand_before_it() -> None:
    assert redacted({"note": "it is 987654", "n": 987654, "password": 987654}) == {
        "note": f"it is {PLACEHOLDER}",
        "n": PLACEHOLDER,
        "password": PLACEHOLDER,
    }


def test_a_short_secret_is_hidden_where_it_stands_alone_and_leaves_words_readable() -> None:
    _, taint = PLAIN.redact_arguments({"cvv": 123, "pwd": "a"})
    assert PLAIN.redact(["cvv 123", "order 91234", "a", "banana"], taint) == [
        f"cvv {PLACEHOLDER}",
        "order 91234",
        PLACEHOLDER,
        "banana",
    ]


def test_two_secret_keys_stay_two_entries() -> None:
    keys = ["ghp_" + "a1B2" * 9, "ghp_" + "c3D4" * 9]
    assert redacted({keys[0]: 1, keys[1]: 2}) == {PLACEHOLDER: 1, f"{PLACEHOLDER} 2": 2}


def test_a_secret_across_the_cut_of_a_long_text_leaves_no_beginning() -> None:
    secret = "S3cr3tValue" * 20
    _, taint = PLAIN.redact_arguments({"password": secret})
    for shift in (8192 - 50, 8192 - 219, 8192, 8192 + 6000, 14336 - 30):
        text = PLAIN.redact({"t": "x" * shift + secret + "y" * 9000}, taint)["t"]
        assert "S3cr3t" not in text
        assert text.endswith("more characters]")
        assert len(text) < 8300


def test_more_than_can_be_searched_hides_everything() -> None:
    arguments = {"password": [f"secret-number-{n}" for n in range(5000)], "deep": "ok"}
    shown, taint = PLAIN.redact_arguments(arguments)
    assert "secret-number" not in str(shown)
    assert PLAIN.redact({"echo": "secret-number-4999"}, taint) == PLACEHOLDER


def test_nesting_without_end_is_cut_and_hides_the_rest() -> None:
    value: Any = {"password": "hunter2"}
    for _ in range(5000):
        value = [value]
    shown, taint = PLAIN.redact_arguments({"v": value})
    assert "hunter2" not in str(shown)
    assert PLAIN.redact_text("hunter2", taint) == PLACEHOLDER


def test_a_redactor_that_fails_shows_nothing() -> None:
    class Hostile(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

    shown, taint = PLAIN.redact_arguments({"a": Hostile(b=1), "password": "hunter2"})
    assert shown == FAILED
    assert PLAIN.redact({"echo": "hunter2"}, taint) == PLACEHOLDER


def test_a_result_that_cannot_be_walked_shows_nothing() -> None:
    class Hostile(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

    taint = Taint()
    assert PLAIN.redact([Hostile(a=1)], taint) == FAILED
    assert PLAIN.redact_text("anything", taint) == PLACEHOLDER


def test_text_that_postgres_cannot_hold_is_replaced() -> None:
    assert redacted({"a\0b": "c\0d", "e": "\ud800 is half"}) == {"a�b": "c�d", "e": "? is half"}


def test_a_long_document_inside_a_string_is_cut_after_it_was_redacted() -> None:
    document = json.dumps({"log": "x" * 20_000, "password": "hunter2", "echo": "hunter2"})
    shown = redacted({"body": document})["body"]
    assert len(shown) < 8300
    assert "hunter2" not in shown


def test_plural_keys_are_told_apart() -> None:
    assert sensitivity("tokens") is Sensitivity.UNLESS_NUMBER
    assert sensitivity("api_keys") is Sensitivity.SECRET
    assert sensitivity("x" * 1000 + "_password") is Sensitivity.SECRET
