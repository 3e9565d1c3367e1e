"""What an example says of its powers: which fakes there are, and what each may say."""

from typing import Any

from portoser.powers.fake_answers import FORM as ANSWERS_FORM
from portoser.powers.fakes import FAKES, HTTP_BODIES, HTTP_KEYS
from portoser.powers.registry import METHODS as REGISTRY_METHODS
from sync import fields
from sync.located import Node, Problems

FAKED_POWERS = (*FAKES, "ctx")
HTTP_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
FORM = 'given: {registry: {services: []}, http: [{url: "https://api.example.com/*", json: {ok: true}}]}'
_HTTP_FORM = 'http: [{method: GET, url: "https://api.example.com/*", status: 200, json: {ok: true}}]'
_HINTS = {"network": f"The fake answers of the network are under 'http': {_HTTP_FORM}"}
_FIRST_STATUS, _LAST_STATUS = 100, 599


def given(problems: Problems, node: Node | None) -> dict[str, Any]:
    """The fakes of an example, by power; what is wrong with them is told."""
    pairs = fields.mapping(problems, node, "given", FORM, FAKED_POWERS, hints=_HINTS)
    for power, value in pairs.items():
        if power == "registry":
            form = "registry: {services: [{name: web, host: alpha}]}"
            fields.mapping(problems, value, "given.registry", form, REGISTRY_METHODS)
        elif power == "http":
            _http(problems, value)
        elif power == "ctx":
            _answers(problems, value)
        elif not isinstance(value.value, dict):
            fields.wrong_type(problems, value, f"given.{power}", f'{power}: {{"…": …}}')
    return {power: value.plain() for power, value in pairs.items()}


def _answers(problems: Problems, node: Node) -> None:
    elicit = fields.mapping(problems, node, "given.ctx", ANSWERS_FORM, ("elicit",)).get("elicit")
    if elicit is not None and not isinstance(elicit.value, list | dict):
        fields.wrong_type(problems, elicit, "given.ctx.elicit", ANSWERS_FORM)


def _http(problems: Problems, node: Node) -> None:
    if not isinstance(node.value, list):
        fields.wrong_type(problems, node, "given.http", _HTTP_FORM)
        return
    for item in node.value:
        pairs = fields.mapping(problems, item, "given.http", _HTTP_FORM, HTTP_KEYS)
        if isinstance(item.value, dict):
            _answer(problems, item, pairs)


def _answer(problems: Problems, item: Node, pairs: dict[str, Node]) -> None:
    if "url" not in pairs:
        problems.error(item, "A fake answer needs a 'url'.", f"Write for example: {_HTTP_FORM}")
    for key in ("url", "text", "base64", "error"):
        fields.text(problems, pairs.get(key), f"given.http.{key}", f"{key}: …", may_be_empty=key == "text")
    method, status = pairs.get("method"), pairs.get("status")
    if method is not None and isinstance(method.value, str):
        method = Node(method.value.upper(), method.path, method.line, method.column)
    fields.choice(problems, method, "given.http.method", HTTP_METHODS)
    code = fields.whole_number(problems, status, "given.http.status", "status: 200", at_most=_LAST_STATUS)
    if status is not None and code is not None and code < _FIRST_STATUS:
        problems.error(status, f"{code} is not a status of HTTP.", "Write for example: status: 200")
    headers = pairs.get("headers")
    names = tuple(name for name, _ in headers.items()) if headers is not None else ()
    told = fields.mapping(problems, headers, "given.http.headers", 'headers: {x-total: "5"}', names)
    for name, value in told.items():
        fields.text(problems, value, f"given.http.headers.{name}", f'{name}: "…"', may_be_empty=True)
    bodies = [key for key in HTTP_BODIES if key in pairs]
    if len(bodies) > 1:
        both = f"A fake answer has both {bodies[0]!r} and {bodies[1]!r}."
        problems.key_error(pairs[bodies[1]], both, "Keep one of them.")
