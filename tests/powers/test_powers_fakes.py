"""What stands in for the powers while an example runs."""

from typing import Any

import pytest

from portoser.catalog.errors import PowerError
from portoser.powers.base import PowerRefused
from portoser.powers.fakes import FAKES, FakePowers
from portoser.powers.room import KEPT

URL = "https://api.example.com/v1/orders?page=2"


def fakes(given: dict[str, Any], **uses: list[str]) -> FakePowers:
    return FakePowers(given, tool="orders.refund", uses={"network": ["api.example.com:443"], "vault": ["*"], **uses})


async def test_each_power_has_a_fake() -> None:
    assert {kept.name for kept in KEPT} <= FAKES.keys()


async def test_the_registry_is_answered_by_function_and_by_argument() -> None:
    powers = fakes({"registry": {"services": [1], "service": {"web": {"port": 80}}}})
    assert await powers.call("registry", "services", [], {}) == [1]
    assert await powers.call("registry", "service", ["web"], {}) == {"port": 80}
    assert await powers.call("registry", "service", [], {"name": "web"}) == {"port": 80}
    for method, args in (("machines", []), ("service", ["db"])):
        with pytest.raises(PowerError, match="The example gives no answer for registry"):
            await powers.call("registry", method, args, {})
    with pytest.raises(PowerError, match=r"registry has no function 'servces'\. Did you mean services\?"):
        await powers.call("registry", "servces", [], {})


async def test_a_secret_is_answered_by_its_path() -> None:
    powers = fakes({"vault": {"orders/key": "test"}})
    assert await powers.call("vault", "get_secret", ["orders/key"], {}) == "test"
    with pytest.raises(PowerError, match=r"write given: \{vault: \{\"hr/pay\": …\}\}"):
        await powers.call("vault", "get_secret", ["hr/pay"], {})


@pytest.mark.parametrize(
    ("given", "status", "content"),
    [
        ({"url": URL, "json": {"ok": True}}, 200, b'{"ok": true}'),
        ({"url": "https://api.example.com/*", "text": "ü"}, 200, "ü".encode()),
        ({"url": "https://api.example.com/…", "text": "x"}, 200, b"x"),
        ({"url": "https://*", "method": "get", "status": 404}, 404, b""),
        ({"url": "https://*", "base64": "AAEC"}, 200, b"\0\1\2"),
    ],
)
async def test_a_request_is_answered_by_the_first_fake_that_fits(
    given: dict[str, Any], status: int, content: bytes
) -> None:
    others = [{"url": "https://other.org/*"}, {"url": "https://*", "method": "POST"}, {"url": URL + "&x"}]
    powers = fakes({"http": [*others, given, {"url": "*", "status": 500}]})
    answer = await powers.call("http", "get", [URL], {})
    assert (answer["status"], answer["content"], answer["url"]) == (status, content, URL)


async def test_what_of_a_fake_goes_without_saying_may_be_said() -> None:
    powers = fakes({"http": [{"url": "*", "json": 1, "headers": {"Content-Type": "a/b", "X-A": "c"}}]})
    answer = await powers.call("http", "get", [URL], {})
    assert dict(answer["headers"]) == {"content-type": "a/b", "x-a": "c"}


async def test_a_fake_may_be_an_error() -> None:
    with pytest.raises(PowerError, match=r"GET https://api\.example\.com:443: It is away."):
        await fakes({"http": [{"url": "*", "error": "It is away."}]}).call("http", "get", [URL], {})


async def test_a_request_without_a_fake_is_told_with_the_one_to_write() -> None:
    for given in ({}, {"http": []}, {"http": [{"url": "https://other.org/"}]}):
        with pytest.raises(PowerError) as refused:
            await fakes(given).call("http", "get", [URL], {})
        assert f'write given: {{http: [{{method: GET, url: "{URL}", json: {{…}}}}]}}' in str(refused.value)


async def test_an_example_finds_what_a_server_would_refuse() -> None:
    given = {"http": [{"url": "*"}], "vault": {"a": 1}}
    for url, message in (
        ("https://other.org/", 'uses: {network: ["api.example.com:443", "other.org:443"]}'),
        ("file:///etc/passwd", "Only http:// and https://"),
        ("https://user:pw@api.example.com/", "names a user or a password"),
    ):
        with pytest.raises(PowerRefused) as refused:
            await fakes(given).call("http", "get", [url], {})
        assert message in str(refused.value)
    with pytest.raises(PowerRefused, match="The tool uses the power http, but its manifest does not say so"):
        await FakePowers(given, uses={}).call("http", "get", [URL], {})
    with pytest.raises(PowerRefused, match=r"has no function 'htpp'\. Did you mean http\?"):
        await fakes(given).call("htpp", "get", [URL], {})


SIZE = {"type": "object", "properties": {"size": {"type": "string", "enum": ["S", "L"]}}, "required": ["size"]}
PAIR = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}}


async def test_questions_are_answered_in_order_or_by_key() -> None:
    powers = fakes({"ctx": {"elicit": ["L", {"a": 1}, "decline", True]}})
    forms = [(SIZE, "size"), (PAIR, None), (SIZE, None), ({"type": "object"}, None)]
    answers = [await powers.call("ctx", "elicit", ["?", form, key], {}) for form, key in forms]
    assert answers == [
        {"action": "accept", "content": {"size": "L"}},
        {"action": "accept", "content": {"a": 1}},
        {"action": "decline", "content": None},
        {"action": "accept", "content": {}},
    ]
    by_key = fakes({"ctx": {"elicit": {"size": "M"}}})
    with pytest.raises(PowerError, match="The example's answer to 'Which\\?' does not fit: size:"):
        await by_key.call("ctx", "elicit", ["Which?", SIZE, "size"], {})
    with pytest.raises(PowerError, match=r"gives no answer to the question .And\?.: write given: \{ctx: \{elicit:"):
        await by_key.call("ctx", "elicit", ["And?", SIZE, None], {})
    with pytest.raises(PowerError, match="must describe an object"):
        await by_key.call("ctx", "elicit", ["And?", {"type": "string"}, None], {})
