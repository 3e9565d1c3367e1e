"""What is told of powers before a tool runs: of its manifest, of its code, of the policy, and of its examples."""

import textwrap

import pytest

from portoser.catalog.errors import Invalid, Severity
from sync.manifest import Reading, from_rest, read

USES = 'uses: {network: ["api.example.com:443"]}\n'
POLICY = 'kind: Policy\npowers:\n  - {network: ["*.example.com:443"], owner: "git:main", tools: ["*"]}\n'


def read_tool(code: str, manifest: str = "", **files: str) -> Reading:
    return read(
        {
            "t.yaml": f"kind: Tool\n{manifest}".encode(),
            "t.py": textwrap.dedent(code).encode(),
            "policy.yaml": POLICY.encode(),
            **{name.replace("__", "."): textwrap.dedent(text).encode() for name, text in files.items()},
        }
    )


def told(reading: Reading) -> list[str]:
    return [str(problem) for problem in reading.problems]


# In the code ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("def t():\n    return http.get('https://api.example.com')\n", "2:12"),
        ("async def t():\n    x = [await http.get(u) for u in ()]\n", "2:16"),
        ("def t():\n    return (lambda: http)()\n", "2:21"),
        ("def t():\n    def inner():\n        return http.get('x')\n    return inner()\n", "3:16"),
        ("def t(via=http):\n    return via.get('x')\n", "1:11"),
        ("client = http\ndef t():\n    return client.get('x')\n", "1:10"),
        ("def helper():\n    return http.get('x')\ndef t():\n    return helper()\n", "2:12"),
        ("class Api:\n    def get(self):\n        return http.get('x')\ndef t():\n    return Api().get()\n", "3:16"),
        ("from portoser.tool import http\ndef t():\n    return http.get('x')\n", "3:12"),
        ("from portoser.tool import http as web\ndef t():\n    return web.get('x')\n", "3:12"),
        ("import portoser.tool\ndef t():\n    return portoser.tool.http.get('x')\n", "3:12"),
        ("import portoser.tool as p\ndef t():\n    return p.http.get('x')\n", "3:12"),
        ("from portoser import tool\ndef t():\n    return tool.http.get('x')\n", "3:12"),
        ("def t():\n    from portoser.tool import http as h\n    return h.get('x')\n", "3:12"),
        (
            "try:\n    from portoser.tool import http\nexcept ImportError:\n    http = None\n"
            "def t():\n    return http.get('x')\n",
            "6:12",
        ),
        ("def t():\n    return " + "len('') + " * 2_000 + "http.get('x')\n", "2:20012"),
        ("def t():\n    if True:\n        return http.get('x')\n    http = 1\n", None),
        ("import http\ndef t():\n    return http.HTTPStatus.OK\n", None),
        ("from http import HTTPStatus\nimport http.client\ndef t():\n    return http.client\n", None),
        ("def t(http: str):\n    return http.upper()\n", None),
        ("def t():\n    http = 'x'\n    return http\n", None),
        ("def t():\n    for http in 'ab':\n        print(http)\n", None),
        ("def t():\n    return [http for http in 'ab']\n", None),
        ("def t():\n    return (lambda http: http)(1)\n", None),
        ("http = 5\ndef t():\n    return http\n", None),
        ("def http():\n    return 1\ndef t():\n    return http()\n", None),
        ("def t():\n    try:\n        pass\n    except ValueError as http:\n        return http\n", None),
        ("def t(x: dict):\n    match x:\n        case {'a': http}:\n            return http\n", None),
        ("def t():\n    with open('x') as http:\n        return http\n", None),
        ("def t():\n    if (http := 5):\n        return http\n", None),
        ("def set_up():\n    global http\n    http = 1\ndef t():\n    return http\n", None),
        ("def t(x: object):\n    return x.http\n", None),
        ("def t():\n    return 'http://api.example.com'\n", None),
        ("def other():\n    return http.get('x')\ndef t():\n    return 1\n", None),
        ("from money import *\ndef t():\n    return http\n", None),
    ],
)
def test_a_power_that_the_manifest_does_not_declare_is_found_in_the_code(code: str, place: str | None) -> None:
    reading = read_tool(code)
    if place is None:
        assert told(reading) == []
        return
    assert told(reading) == [
        f"t.py:{place}: The tool uses the power http, and its manifest does not say so. Write what it needs there, for "
        'example: uses: {network: ["api.example.com:443"]}'
    ]
    assert reading.tools == ()
    assert told(read_tool(code, USES)) == []


def test_the_powers_of_other_files_count_where_the_entrypoint_reaches_them() -> None:
    money = """
    def charge():
        return vault.get_secret("orders/key")
    def round_up(x):
        return x
    """
    files = "files: [money.py, t.py]\n"
    for code, is_reached in (
        ("from money import charge\ndef t():\n    return charge()\n", True),
        ("import money\ndef t():\n    return money.charge()\n", True),
        ("import money as m\ndef helper():\n    return m.charge()\ndef t():\n    return helper()\n", True),
        ("from money import round_up\ndef t():\n    return round_up(1)\n", False),
        ("def t():\n    return 1\n", False),
    ):
        errors = [problem for problem in read_tool(code, files, money__py=money).problems if problem.is_error]
        assert [(each.path, each.line, each.column) for each in errors] == ([("money.py", 3, 12)] if is_reached else [])


def test_what_only_a_statement_of_the_module_reaches_is_warned_of() -> None:
    code = "def show():\n    return http.get('x')\ndef t():\n    return 1\nALL = [show, t]\n"
    reading = read_tool(code)
    assert told(reading) == [
        "t.py:2:12: The tool may use the power http, and its manifest does not say so. Write what it needs there, for "
        'example: uses: {network: ["api.example.com:443"]}'
    ]
    assert reading.problems[0].severity is Severity.WARNING
    assert len(reading.tools) == 1


@pytest.mark.parametrize("code", ["x = " + "1 + " * 2_000 + "1", "if 1:\n    pass\n" + "elif 1:\n    pass\n" * 700])
def test_long_sums_and_choices_are_read_like_any_code(code: str) -> None:
    assert told(read_tool(f"# see http\n{code}\ndef t():\n    return 1\n")) == []
    money = "def charge():\n    return http.get('x')\n"
    problems = read_tool(f"{code}\ndef t():\n    return 1\n", "files: [money.py, t.py]\n", money__py=money).problems
    assert problems == ()


def test_code_that_nests_too_deeply_is_a_problem_of_its_file_alone() -> None:
    deep = "# see http\nx = " + "lambda: " * 800 + "1\ndef deep():\n    return 1\n"
    reading = read_tool("def t():\n    return 1\n", deep__py=deep, deep__yaml="kind: Tool\n")
    assert [(problem.path, problem.is_error) for problem in reading.problems] == [("deep.py", True)]
    assert "nests too deeply" in str(reading.problems[0])
    assert [tool.name for tool in reading.tools] == ["t"]


def test_one_file_of_two_tools_asks_of_each_only_what_it_uses() -> None:
    files = {
        "a.yaml": b"kind: Tool\nentrypoint: both.py:show\n",
        "b.yaml": b'kind: Tool\nentrypoint: both.py:send\nuses: {network: ["api.example.com:443"]}\n',
        "both.py": b"def show():\n    return 1\ndef send():\n    return http.get('https://api.example.com')\n",
        "policy.yaml": POLICY.encode(),
    }
    assert told(read(files)) == []


def test_code_that_comes_over_rest_is_looked_at_like_any_other() -> None:
    with pytest.raises(Invalid) as refused:
        from_rest({"name": "t", "code": "def t():\n    return http.get('x')\n"})
    assert "t.py:2:12: The tool uses the power http" in str(refused.value)


# In the manifest and the policy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uses", "message"),
    [
        ('{network: ["api.example.com"]}', "names no port; write for example api.example.com:443."),
        ('{network: ["https://api.example.com/"]}', "is a URL; name the host and its port alone"),
        ('{network: ["169.254.169.254:80"]}', "cannot be reached, whatever grants it"),
        ('{http: ["api.example.com:443"]}', "The power http reaches the hosts under 'network'"),
        ('{netwrok: ["api.example.com:443"]}', "'uses.netwrok' is not known. Did you mean 'network'?"),
    ],
)
def test_a_use_that_cannot_be_is_told_with_its_place(uses: str, message: str) -> None:
    [problem] = read_tool("def t():\n    pass\n", f"uses: {uses}\n").problems
    assert message in str(problem)
    assert (problem.path, problem.line, problem.is_error) == ("t.yaml", 2, True)


def test_what_no_rule_grants_is_warned_of_with_the_rule_that_would() -> None:
    code = "def t():\n    return http.get('https://other.org')\n"
    uses = 'uses: {network: ["api.example.com:443", "other.org:443"]}\n'
    reading = read_tool(code, uses)
    assert told(reading) == [
        "t.yaml:2:41: The policy grants the tool no network other.org:443: a call that uses it is refused. "
        'Have added to policy.yaml: powers: [{network: ["other.org:443"], owner: "git:main", tools: ["t"]}]'
    ]
    assert reading.problems[0].severity is Severity.WARNING
    assert len(reading.tools) == 1
    without_policy = read({"t.yaml": f"kind: Tool\n{USES}".encode(), "t.py": code.encode()})
    assert ["grants the tool no network" in each for each in told(without_policy)] == [True]


def test_a_policy_that_cannot_be_known_is_not_said_to_grant_nothing() -> None:
    files = {"t.yaml": f"kind: Tool\n{USES}".encode(), "t.py": b"def t():\n    return http\n"}
    assert not any("grants the tool no" in each for each in told(read({**files, "policy.yaml": b"kind: Polic"})))
    assert not any("grants the tool no" in each for each in told(read(files, is_authority=False)))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ('{network: ["example.com"]}', "policy.yaml:2:21: 'example.com' names no port"),
        ('{vault: ["a/*"], private: true}', "policy.yaml:2:27: 'private' says that names of 'network'"),
        ('{network: ["a:1"], actions: []}', "policy.yaml:2:38: 'powers.actions' is empty. Leave it out to grant every"),
        ('{network: ["a:1"], actions: [get, GTE]}', "cannot have 'GTE'. Did you mean 'get'?"),
        ('{network: ["a:1"], actions: [HEAD]}', "cannot have 'HEAD'. Did you mean 'head'?"),
        ('{network: ["a:1"], private: yes please}', "'powers.private' must be true or false"),
        ('{network: ["a:1"], privat: true}', "'powers.privat' is not known. Did you mean 'private'?"),
    ],
)
def test_a_rule_that_cannot_be_is_told_with_its_place(rule: str, message: str) -> None:
    reading = read({"policy.yaml": f"kind: Policy\npowers: [{rule}]\n".encode()})
    assert any(message in each for each in told(reading))
    assert reading.policy is None


def test_a_rule_may_lead_into_the_private_network() -> None:
    reading = read({"policy.yaml": b'kind: Policy\npowers: [{network: ["db.internal:80"], private: true}]\n'})
    assert reading.policy is not None
    assert reading.policy.powers[0].private


# In examples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{htp: []}", "'given.htp' is not known. Did you mean 'http'?"),
        ("{network: []}", "The fake answers of the network are under 'http'"),
        ("{registry: {servces: []}}", "'given.registry.servces' is not known. Did you mean 'services'?"),
        ("{registry: []}", "'given.registry' cannot be a list"),
        ("{http: {}}", "'given.http' cannot be a mapping"),
        ("{http: [{ulr: x}]}", "'given.http.ulr' is not known. Did you mean 'url'?"),
        ("{http: [{json: 1}]}", "A fake answer needs a 'url'."),
        ("{http: [{url: x, status: 99}]}", "99 is not a status of HTTP"),
        ("{http: [{url: x, status: 600}]}", "whole number from 1 to 599"),
        ("{http: [{url: x, method: GTE}]}", "'given.http.method' cannot be 'GTE'. Did you mean 'GET'?"),
        ("{http: [{url: x, json: 1, text: a}]}", "has both 'json' and 'text'"),
        ("{http: [{url: x, headers: {a: 1}}]}", "'given.http.headers.a' must be text"),
        ("{http: [5]}", "'given.http' cannot be a number"),
        ("{vault: [a]}", "'given.vault' cannot be a list"),
    ],
)
def test_a_fake_that_cannot_be_is_told_with_its_place(given: str, message: str) -> None:
    reading = read_tool("def t():\n    pass\n", f"examples:\n  - given: {given}\n")
    assert any(message in each for each in told(reading)), told(reading)
    assert all(problem.line == 3 for problem in reading.errors)


def test_fakes_may_say_what_there_is_to_say() -> None:
    given = """
  - given:
      registry: {services: [], service: {web: {port: 80}}, machines: [], read: {services.web.port: 80}}
      http:
        - {url: "https://api.example.com/*", method: post, status: 201, json: {ok: true}, headers: {x-a: "b"}}
        - {url: "https://api.example.com/v1", text: ""}
        - {url: "https://api.example.com/v2", base64: AAEC}
        - {url: "https://api.example.com/v3", error: It is away.}
      vault: {orders/stripe-key: test}
"""
    assert told(read_tool("def t():\n    pass\n", f"examples:{given}")) == []
