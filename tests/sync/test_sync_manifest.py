"""What a folder declares, and all that is refused: each with its place, what is wrong, and what would be right."""

import pytest

from portoser.catalog.errors import Problem, Severity
from portoser.catalog.revision import KIB, MIB, Isolation
from portoser.catalog.units import Rate
from sync.documents import read_manifest
from sync.manifest import Reader, Reading, placed, read

REFUND = b"""\
def refund(order_id: str, amount: float) -> dict:
    return {"status": "refunded"}
"""


def reading(**files: str | bytes) -> Reading:
    """Read files; '__' in a keyword stands for '/', '_py' and '_yaml' at its end for the ending."""
    return read({_path(name): text.encode() if isinstance(text, str) else text for name, text in files.items()})


def _path(name: str) -> str:
    stem, _, ending = name.replace("__", "/").rpartition("_")
    return f"{stem}.{ending}"


def errors(found: Reading) -> list[str]:
    return [str(problem) for problem in found.errors]


def only_error(found: Reading) -> Problem:
    assert len(found.errors) == 1, errors(found)
    return found.errors[0]


def test_the_short_form_takes_every_default() -> None:
    found = reading(refund_yaml="kind: Tool\n", refund_py=REFUND)
    [tool] = found.tools
    assert found.problems == ()
    assert (tool.name, tool.group, tool.permissions, tool.path, tool.line) == ("refund", None, None, "refund.yaml", 1)
    assert tool.paths == ("refund.yaml", "refund.py")
    declared = tool.declaration
    assert declared.entrypoint == "refund.py:refund"
    assert [(file.path, file.content) for file in declared.files] == [("refund.py", REFUND.decode())]
    assert declared.description is None
    assert declared.annotations.destructive
    assert declared.limits.timeout == 30


def test_the_long_form_is_read_whole() -> None:
    manifest = """\
kind: Tool
name: orders.refund
description: Refund an order.
entrypoint: refund.py:refund
files: [money.py, refund.py]
permissions: [operator]
group: orders
annotations: {readOnly: false, destructive: true, idempotent: true, openWorld: true, title: Refund}
confirm: "Refund {amount} for {order_id}?"
isolation: fresh
limits: {timeout: 10s, memory: 256MiB, result: 1MiB, logs: 64KiB, concurrency: 4, rate: 60/min}
uses:
  vault: ["orders/stripe-key"]
  network: ["api.stripe.com:443"]
redact: [amount]
examples:
  - call: {order_id: A1, amount: 5}
    given: {vault: {"orders/stripe-key": test}}
    expect: {status: refunded}
adopt: true
"""
    found = reading(orders__refund_yaml=manifest, orders__refund_py=REFUND, orders__money_py="CENT = 0.01\n")
    assert errors(found) == []
    [tool] = found.tools
    declared = tool.declaration
    assert (tool.name, tool.group, tool.permissions, tool.adopt) == ("orders.refund", "orders", ("operator",), True)
    assert [file.path for file in declared.files] == ["money.py", "refund.py"]
    assert tool.paths == ("orders/refund.yaml", "orders/money.py", "orders/refund.py")
    assert declared.isolation is Isolation.FRESH
    assert declared.limits.timeout == 10
    assert declared.limits.rate == Rate(60, 60.0)
    assert declared.limits.result == MIB
    assert declared.uses == {"vault": ["orders/stripe-key"], "network": ["api.stripe.com:443"]}
    assert declared.requires == ()
    assert declared.redact == ("amount",)
    [example] = declared.examples
    assert (example.call, example.expect, example.line) == ({"order_id": "A1", "amount": 5}, {"status": "refunded"}, 17)


def test_a_problem_of_an_example_is_placed_at_the_example() -> None:
    text = "kind: Tool\nname: x\nexamples:\n  - call: {}\n  - call: {}\n"
    [tool] = reading(refund_yaml=text + "entrypoint: refund.py\n", refund_py=REFUND).tools
    problem = placed(Problem(line=5, message="Example 2 fails."), tool)
    assert (problem.path, problem.line, problem.column) == ("refund.yaml", 5, 5)
    assert placed(Problem(message="Wrong."), tool).line == 1


def test_of_several_files_the_last_one_is_the_entrypoints() -> None:
    found = reading(a_yaml="kind: Tool\nfiles: [a.py, refund.py]\n", a_py="x = 1\n", refund_py=REFUND)
    assert found.tools[0].declaration.entrypoint == "refund.py:refund"


def test_the_default_function_of_a_file_whose_name_is_no_identifier() -> None:
    found = read({"list-all.yaml": b"kind: Tool\n", "list-all.py": b"def list_all(): pass\n"})
    assert found.tools[0].declaration.entrypoint == "list-all.py:list_all"


def test_several_documents_share_a_file_and_empty_ones_are_nothing() -> None:
    text = "---\n---\nkind: Tool\nname: a\n---\nkind: Tool\nname: b\nentrypoint: x.py:refund\n---\n"
    found = reading(x_yaml=text, x_py=REFUND.replace(b"def refund", b"def x(): pass\ndef refund"))
    assert [(tool.name, tool.line) for tool in found.tools] == [("a", 3), ("b", 6)]


def test_names_with_dots_are_told_of_but_taken() -> None:
    found = reading(orders__refund_yaml="kind: Tool\n", orders__refund_py=REFUND)
    assert found.tools[0].name == "orders.refund"
    [warning] = found.problems
    assert warning.severity is Severity.WARNING
    assert "some clients allow only" in warning.message


def test_an_async_tool_may_share_its_worker_and_each_limit_is_read() -> None:
    every = "timeout: 5s, cpu: 500ms, memory: 1GiB, scratch: 1MiB, output: 2MiB, files: 8, powers: 7, share: 8"
    code = b"async def one() -> int:\n    return 1\n"
    found = reading(one_yaml=f"kind: Tool\nlimits: {{{every}}}\n", one_py=code)
    assert not found.problems
    limits = found.tools[0].declaration.limits
    assert (limits.timeout, limits.cpu, limits.memory, limits.scratch) == (5.0, 0.5, 1024**3, 1024**2)
    assert (limits.output, limits.files, limits.powers, limits.share) == (2 * 1024**2, 8, 7, 8)


def test_calls_that_share_a_worker_cannot_each_have_a_fresh_one() -> None:
    text = "kind: Tool\nisolation: fresh\nlimits: {share: 8}\n"
    found = reading(one_yaml=text, one_py=b"async def one() -> int:\n    return 1\n")
    [problem] = found.problems
    assert (problem.severity, problem.line, problem.column) == (Severity.ERROR, 3, 17)
    assert "'isolation: fresh' gives each its own" in problem.message


def test_a_power_that_this_server_does_not_have_is_told_of_but_taken() -> None:
    text = "kind: Tool\nuses:\n  registry: [all]\n  vault:\n    - orders/stripe-key\n"
    found = reading(refund_yaml=text, refund_py=REFUND)
    assert found.tools[0].declaration.uses == {"registry": ["all"], "vault": ["orders/stripe-key"]}
    assert [(str(problem), problem.severity) for problem in found.problems] == [
        ("refund.yaml:4:3: This server has no power 'vault' yet: a call that uses it fails.", Severity.WARNING)
    ]


def test_all_problems_of_all_files_are_told_at_once_and_the_good_tool_is_taken() -> None:
    found = reading(
        a_yaml="kind: Tool\npermisions: [x]\nlimits: {timeout: soon, rat: 3/s}\n",
        a_py="def b(): pass\n",
        c_yaml="kind: Tol\n",
        d_yaml="kind: Tool\n",
        good_yaml="kind: Tool\n",
        good_py="def good(): pass\n",
    )
    assert [tool.name for tool in found.tools] == ["good"]
    assert sorted(found.invalid) == ["a", "d"]
    assert list(found.broken_paths) == ["c.yaml"]
    assert errors(found) == [
        "a.yaml:1:1: There is no function 'a' in a.py. Name one of its functions, for example: entrypoint: a.py:b",
        "a.yaml:2:1: 'permisions' is not known. Did you mean 'permissions'?",
        "a.yaml:3:19: 'soon' is not a duration: write for example 10s, 500ms or 5m.",
        "a.yaml:3:25: 'limits.rat' is not known. Did you mean 'rate'?",
        "c.yaml:1:7: The kind 'Tol' is not supported. Did you mean 'Tool'?",
        "d.yaml:1:1: There is no file 'd.py' beside the manifest. "
        "Add it, or name another one: entrypoint: refund.py:refund",
    ]


@pytest.mark.parametrize(
    ("text", "place", "message", "advice"),
    [
        ("knd: Tool", (1, 1), "does not say what it is ('knd' is not known)", "Write 'kind: Tool, Group or Policy'"),
        ("- a", (1, 1), "A document must be a mapping, not a list.", "kind: Tool"),
        ("kind: [Tool]", (1, 7), "The kind a list is not supported.", "Write Tool, Group or Policy."),
        ("kind: Tool\nname: 5", (2, 7), "'name' must be text, not a number.", 'Put it in quotes: "5".'),
        ("kind: Tool\nname: true", (2, 7), "'name' must be text, not true or false.", '"true"'),
        ("kind: Tool\nname:", (2, 6), "'name' has no value.", "name: orders.refund"),
        ("kind: Tool\nname: a b", (2, 7), "may hold only letters, digits", "name: orders.refund"),
        (f"kind: Tool\nname: {'x' * 65}", (2, 7), "at most 64 are allowed", "name: orders.refund"),
        ("kind: Tool\nname: \u00e4", (2, 7), "may hold only letters, digits", "name: orders.refund"),
        ("kind: Tool\nname: ''", (2, 7), "'name' is empty.", "name: orders.refund"),
        ("kind: Tool\npermissions: operator", (2, 14), "cannot be text (operator)", "permissions: [operator]"),
        ("kind: Tool\npermissions: [a, a]", (2, 18), "'a' stands twice", "Keep one"),
        ("kind: Tool\npermissions: [5]", (2, 15), "must be text, not a number", '"5"'),
        ("kind: Tool\ngroup: '.x'", (2, 8), "cannot be a group's name", "group: orders"),
        ("kind: Tool\nadopt: yes", (2, 8), "'adopt' must be true or false, not 'yes'", "adopt: true"),
        ("kind: Tool\nannotations: {readOnlyHint: true}", (2, 15), "not known", "Did you mean 'readOnly'?"),
        ("kind: Tool\nannotations: [readOnly]", (2, 14), "cannot be a list", "annotations: {readOnly: true}"),
        ("kind: Tool\nadopt: no", (2, 8), "'adopt' must be true or false, not 'no'", "Write: adopt: false"),
        ("kind: Tool\nadopt: Off", (2, 8), "'adopt' must be true or false, not 'Off'", "Write: adopt: false"),
        ("kind: Tool\nannotations: {readOnly: 1}", (2, 25), "not 1", "Write: annotations: {readOnly: true}"),
        ("kind: Tool\nisolation: frsh", (2, 12), "cannot be 'frsh'", "Did you mean 'fresh'? Write reuse or fresh."),
        ("kind: Tool\nlimits: {memory: many}", (2, 18), "'many' is not a size", ""),
        ("kind: Tool\nlimits: {rate: 5}", (2, 16), "5 is not a rate", ""),
        ("kind: Tool\nlimits: {concurrency: 0}", (2, 23), "a whole number from 1 to 10000, not 0", "concurrency: 4"),
        ("kind: Tool\nlimits: {share: 2.5}", (2, 17), "a whole number from 1 to 1000, not 2.5", "share: 8"),
        ("kind: Tool\nlimits: {share: 2}", (2, 17), "needs an async function", "async def"),
        ("kind: Tool\nuses: {http: [a]}", (2, 8), "'uses.http' is not known", "under 'network'"),
        ("kind: Tool\nuses: {valt: [a]}", (2, 8), "'uses.valt' is not known", "Did you mean 'vault'?"),
        ("kind: Tool\nuses: {vault: a}", (2, 15), "'uses.vault' cannot be text (a)", 'vault: ["…"]'),
        ("kind: Tool\nrequires: ['git+https://x/y']", (2, 12), "is a URL or a path", "httpx==0.28.1"),
        ("kind: Tool\nrequires: ['a @ https://x/y.whl']", (2, 12), "it names a URL", "httpx==0.28.1"),
        ("kind: Tool\nrequires: ['--index-url=x']", (2, 12), "it is an option", "httpx==0.28.1"),
        ("kind: Tool\nrequires: ['./wheel.whl']", (2, 12), "is a URL or a path", "httpx==0.28.1"),
        ("kind: Tool\nrequires: ['..']", (2, 12), "is a URL or a path", "httpx==0.28.1"),
        ("kind: Tool\nrequires: ['two words']", (2, 12), "is no name of a package", "httpx==0.28.1"),
        ("kind: Tool\nrequires: ['a; os_name==\"nt\"']", (2, 12), "it has a condition", "Leave out what stands"),
        ("kind: Tool\nrequires: [a, A==1]", (2, 15), "The package a stands twice", "a>=1,<2"),
        ("kind: Tool\nrequires: [portoser]", (2, 12), "Every tool has portoser.", "Take it out"),
        (f"kind: Tool\nrequires: {[f'p{n}' for n in range(51)]}", (2, 1), "names 51 packages", "Name only what"),
        ("kind: Tool\nrequires: httpx", (2, 11), "cannot be text (httpx)", "httpx==0.28.1"),
        ("kind: Tool\nconfirm: 'Pay {amonut}?'", (2, 10), "no such argument", "Did you mean 'amount'?"),
        ("kind: Tool\nconfirm: 'Pay {amount.real}?'", (2, 10), "not the name of an argument alone", "{amount}"),
        ("kind: Tool\nconfirm: 'Pay {amount:>9}?'", (2, 10), "not the name of an argument alone", "{amount}"),
        ("kind: Tool\nconfirm: 'Pay {amount?'", (2, 10), "'confirm' is not a template", "'{{'"),
        ("kind: Tool\nexamples: {call: {}}", (2, 11), "'examples' cannot be a mapping", "examples: [{call"),
        ("kind: Tool\nexamples: [{cal: {}}]", (2, 13), "'examples.cal' is not known", "Did you mean 'call'?"),
        ("kind: Tool\nexamples: [{call: [1]}]", (2, 19), "'call' cannot be a list", "call: {order_id: A1"),
        ("kind: Tool\nexamples: [{given: {registri: 1}}]", (2, 21), "is not known", "Did you mean 'registry'?"),
        ("kind: Tool\ninputSchema: {type: string}", (2, 21), "must describe an object", "type: object"),
        ("kind: Tool\ninputSchema: []", (2, 14), "must be a JSON Schema, not a list", "type: object"),
        ("kind: Tool\ninputSchema: {type: object, required: a}", (2, 39), '"a" is not of type "array"', ""),
        ("kind: Tool\ninputSchema: {type: object, properties: {a: {type: objekt}}}", (2, 52), '"objekt" is not', ""),
        ("kind: Tool\ninputSchema: {type: object, properties: {a: {pattern: '('}}}", (2, 55), '"regex"', ""),
        ("kind: Tool\noutputSchema: {type: object, $ref: 'http://x'}", (2, 36), "another document", "#/$defs/"),
        ("kind: Tool\noutputSchema: {type: object, $ref: '#/$defs/a'}", (2, 15), "does not exist", ""),
        ("kind: Tool\ninputSchema: {type: object, $schema: 'x'}", (2, 38), "Only JSON Schema 2020-12", "Leave"),
        ("kind: Tool\nfiles: []", (2, 8), "'files' is empty", "Leave it out"),
        ("kind: Tool\nfiles: [../refund.py]", (2, 9), "leaves the manifest's folder", "Move the file"),
        ("kind: Tool\nfiles: [a/../refund.py]", (2, 9), "leaves the manifest's folder", "Move the file"),
        ("kind: Tool\nfiles: [/etc/x.py]", (2, 9), "is an absolute path", "relative to the manifest"),
        ("kind: Tool\nfiles: ['C:/x.py']", (2, 9), "is an absolute path", "relative to the manifest"),
        ("kind: Tool\nfiles: ['a\\x.py']", (2, 9), "holds a backslash", "by '/'"),
        ("kind: Tool\nfiles: [./refund.py]", (2, 9), "not in its shortest form", "without './'"),
        ("kind: Tool\nfiles: [refund.txt]", (2, 9), "is not a Python file", "'.py'"),
        ("kind: Tool\nfiles: [refnd.py]", (2, 9), "There is no file 'refnd.py'", "Did you mean 'refund.py'?"),
        ("kind: Tool\nfiles: [refund.py, refund.py]", (2, 20), "'refund.py' stands twice", "Keep one"),
        ("kind: Tool\nentrypoint: refund", (2, 13), "not '<file>.py:<function>'", "entrypoint: refund.py:refund"),
        ("kind: Tool\nentrypoint: refund.py:re fund", (2, 13), "not '<file>.py:<function>'", "refund.py:refund"),
        ("kind: Tool\nentrypoint: refund.py:refnd", (2, 13), "no function 'refnd'", "Did you mean 'refund'?"),
        (
            "kind: Tool\nentrypoint: b.py:x\nfiles: [refund.py]",
            (2, 13),
            "not one of 'files'",
            "files: [refund.py, b.py]",
        ),
        (
            "kind: Tool\na: 1\nb: &x 1\na: 2",
            (4, 1),
            "'a' stands here a second time; the first is in line 2",
            "Keep one",
        ),
    ],
)
def test_what_is_refused_in_a_tool(text: str, place: tuple[int, int], message: str, advice: str) -> None:
    found = reading(refund_yaml=text, refund_py=REFUND)
    assert found.tools == ()
    matching = [problem for problem in found.errors if message in problem.message]
    assert matching, errors(found)
    problem = matching[0]
    assert (problem.path, problem.line, problem.column) == ("refund.yaml", *place)
    assert advice in problem.advice


@pytest.mark.parametrize(
    ("code", "place", "message", "advice"),
    [
        (b"def refund(:\n", (1, 12), "Not valid Python: invalid syntax.", "def refund(:"),
        (b"def refund():\n\tif 1:\n        pass\n", (3, 1), "Not valid Python", "spaces"),
        (b"def refund(*args): pass\n", (1, 12), "A tool cannot have '*args'.", "named parameters"),
        (b"async def refund(a, **more): pass\n", (1, 21), "A tool cannot have '**more'.", "named parameters"),
        (b"def refund(a, /): pass\n", (1, 12), "'a' is positional only", "'/'"),
        (b"x = '\0'\n", (1, 1), "NUL", "Take it out"),
        (b"# caf\xe9\n", (1, 6), "not UTF-8: byte 0xe9", "Save it as UTF-8"),
        ("def refund(): pass".encode("utf-16"), (1, 1), "is UTF-16", "Save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", (0, 0), "Git LFS", "git lfs untrack"),
        (b"#" * (256 * KIB + 1), (0, 0), "at most 256 KiB", "Split it"),
        (b"-" * 200_000 + b"1", (0, 0), "cannot be parsed", ""),
        (b"(" * 5_000, (1, 0), "Not valid Python", ""),
    ],
)
def test_what_is_refused_in_a_python_file(code: bytes, place: tuple[int, int], message: str, advice: str) -> None:
    found = reading(refund_yaml="kind: Tool\n", refund_py=code)
    problem = only_error(found)
    assert found.tools == ()
    assert problem.tool == "refund"
    assert problem.path == "refund.py"
    if place[1]:
        assert (problem.line, problem.column) == place
    assert message in problem.message
    assert advice in problem.advice


def test_a_byte_order_mark_is_taken_off() -> None:
    found = read({"a.yaml": b"\xef\xbb\xbfkind: Tool\n", "a.py": b"\xef\xbb\xbfdef a(): pass\n"})
    assert found.problems == ()
    assert found.tools[0].declaration.files[0].content == "def a(): pass\n"


def test_a_class_is_no_entrypoint_but_an_imported_or_assigned_name_may_be() -> None:
    for code in (
        "from money import x",
        "x = make()",
        "import x",
        "x: object = 1",
        "from money import *",
        "a, x = 1, 2",
    ):
        assert errors(reading(x_yaml="kind: Tool\n", x_py=code)) == []
    assert "is a class" in only_error(reading(x_yaml="kind: Tool\n", x_py="class x: pass")).message


def test_a_function_under_a_condition_is_found() -> None:
    code = "try:\n    import a\nexcept ImportError:\n    def x(): pass\nelse:\n    if a:\n        def x(): pass\n"
    assert errors(reading(x_yaml="kind: Tool\n", x_py=code)) == []


def test_a_decorated_function_may_have_any_signature_until_it_is_imported() -> None:
    code = "@wrap\ndef x(*args, **kwargs): pass\n"
    assert errors(reading(x_yaml="kind: Tool\nconfirm: 'Do {it}?'\n", x_py=code)) == []


def test_a_tool_over_a_mebibyte_is_refused() -> None:
    files = {f"f{number}.py": b"#" * (255 * KIB) for number in range(5)}
    names = ", ".join(files)
    text = f"kind: Tool\nfiles: [{names}, x.py]\n".encode()
    found = read({"x.yaml": text, "x.py": b"def x(): pass\n", **files})
    assert "at most 1024 KiB are taken" in only_error(found).message


def test_a_name_declared_twice_is_told_at_both_places_and_neither_is_taken() -> None:
    found = read(
        {
            "a.yaml": b"kind: Tool\nname: same\n",
            "a.py": b"def a(): pass\n",
            "b.yaml": b"\nkind: Tool\nname: same\n",
            "b.py": b"def b(): pass\n",
        }
    )
    assert found.tools == ()
    assert list(found.invalid) == ["same"]
    assert errors(found) == [
        "a.yaml:1:1: The name 'same' is declared more than once; also in b.yaml:2. Keep one of them.",
        "b.yaml:2:1: The name 'same' is declared more than once; also in a.yaml:1. Keep one of them.",
    ]


def test_the_nearest_group_upwards_is_the_default() -> None:
    files = {
        "group.yaml": b"kind: Group\nname: everything\n",
        "a/group.yml": b"kind: Group\npermissions: [op]\nenabled: false\ndescription: A.\n",
        "a/b/x.yaml": b"kind: Tool\nname: x\n",
        "a/b/x.py": b"def x(): pass\n",
        "y.yaml": b"kind: Tool\n",
        "y.py": b"def y(): pass\n",
        "a/z.yaml": b"kind: Tool\nname: z\ngroup: other\n",
        "a/z.py": b"def z(): pass\n",
    }
    found = read(files, source="team")
    assert errors(found) == []
    assert {tool.name: tool.group for tool in found.tools} == {"x": "a", "y": "everything", "z": "other"}
    group = next(group for group in found.groups if group.name == "a")
    assert (group.owner, group.enabled, group.permissions) == ("git:team", False, ("op",))
    assert (group.path, group.description) == ("a/group.yml", "A.")


def test_a_group_that_nothing_declares_is_told_of_unless_it_may_stand_in_a_file_that_cannot_be_read() -> None:
    files = {
        "group.yaml": b"kind: Group\nname: orders\n",
        "x.yaml": b"kind: Tool\ngroup: order\n",
        "x.py": b"def x(): pass\n",
        "y.yaml": b"kind: Tool\ngroup: orders\n",
        "y.py": b"def y(): pass\n",
    }
    found = read(files)
    assert [str(problem) for problem in found.problems] == [
        "x.yaml:2:8: No group.yaml declares the group 'order', so it is on and gives no permissions. "
        "Did you mean 'orders'?"
    ]
    assert found.errors == ()
    assert [tool.group for tool in found.tools] == ["order", "orders"]
    broken = read({**files, "z.yaml": b"kind: ["})
    assert broken.problems == broken.errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Group\n", "A group at the top needs a name."),
        ("kind: Group\nname: '.a'\n", "cannot be a group's name"),
        ("kind: Group\nname: a\nenabled: maybe\n", "must be true or false, not 'maybe'"),
        ("kind: Group\nname: a\ntools: [x]\n", "'tools' is not known"),
        ("kind: Group\nname: a\n---\nkind: Group\nname: a\n", "declared more than once"),
    ],
)
def test_what_is_refused_in_a_group(text: str, message: str) -> None:
    found = reading(group_yaml=text)
    assert found.groups == ()
    assert any(message in problem.message for problem in found.errors), errors(found)


def test_a_tool_waits_while_its_folders_group_cannot_be_known() -> None:
    found = reading(a__group_yaml="kind: Group\nname: [", a__x_yaml="kind: Tool\nname: x\n", a__x_py="def x(): pass\n")
    assert found.tools == ()
    assert "The group of this folder cannot be known: a/group.yaml:3 is wrong." in errors(found)[-1]


def test_a_group_with_a_known_name_and_a_wrong_field_is_told_as_broken() -> None:
    found = reading(
        a__group_yaml="kind: Group\nenabld: false\n", a__x_yaml="kind: Tool\nname: x\n", a__x_py="def x(): pass"
    )
    assert found.broken_groups == {"a"}
    assert found.tools[0].group == "a"


def test_the_policy_is_read() -> None:
    text = """\
kind: Policy
roles: {admin: [platform-admins], editor: [authors]}
clients: {cursor: [examples, orders]}
powers:
  - {vault: ["orders/*"], actions: [get], owner: "git:main", tools: ["orders.*"]}
  - {requires: [httpx]}
"""
    found = reading(policy_yaml=text)
    assert errors(found) == []
    assert found.policy is not None
    assert found.policy_path == "policy.yaml"
    assert found.policy.roles == {"admin": ("platform-admins",), "editor": ("authors",)}
    assert found.policy.clients == {"cursor": ("examples", "orders")}
    assert found.policy.powers[0].grants == {"vault": ["orders/*"]}
    assert (found.policy.powers[1].owner, found.policy.powers[1].tools) == ("*", ("*",))


def test_a_rule_that_grants_packages_names_them_without_versions() -> None:
    found = reading(policy_yaml='kind: Policy\npowers:\n  - {requires: ["httpx==0.28.1", "types-*"]}\n')
    problem = only_error(found)
    assert (problem.path, problem.line) == ("policy.yaml", 3)
    assert "by name, not 'httpx==0.28.1'" in problem.message


def test_packages_are_taken_as_they_are_written() -> None:
    text = 'kind: Tool\nrequires: ["httpx==0.28.1", "Types.PyYAML", "pydantic[email] >= 2, < 3"]'
    [tool] = reading(refund_yaml=text, refund_py="def refund(): ...\n").tools
    assert tool.declaration.requires == ("httpx==0.28.1", "Types.PyYAML", "pydantic[email] >= 2, < 3")
    assert tool.requires_place == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Policy\nroles: {amin: [a]}\n", "'roles.amin' is not known"),
        ("kind: Policy\nroles: {admin: a}\n", "'roles.admin' cannot be text (a)"),
        ("kind: Policy\nclients: [a]\n", "'clients' cannot be a list"),
        ("kind: Policy\npowers: {vault: [a]}\n", "'powers' cannot be a mapping"),
        ("kind: Policy\npowers: [{owner: a}]\n", "This rule grants no power."),
        ("kind: Policy\npowers: [{vault: [a], tool: [b]}]\n", "'powers.tool' is not known"),
        ("kind: Policy\n---\nkind: Policy\n", "The policy is declared more than once; also in policy.yaml:"),
        ("kind: Policy\nroles: [", "Not valid YAML"),
    ],
)
def test_a_policy_that_is_wrong_is_unknown_and_not_absent(text: str, message: str) -> None:
    found = reading(policy_yaml=text)
    assert found.policy is None
    assert found.policy_is_unknown
    assert any(message in problem.message for problem in found.errors), errors(found)


def test_only_the_authority_may_declare_the_policy() -> None:
    found = read({"policy.yaml": b"kind: Policy\n"}, is_authority=False)
    assert found.policy is None
    assert "may not declare the policy" in only_error(found).message


def test_a_file_that_declares_nothing_is_told_of_and_may_have_declared_anything() -> None:
    for content in (b"", b"# kind: Tool\n", b"---\n---\n"):
        found = read({"x.yaml": content})
        assert "declares nothing" in only_error(found).message
        assert list(found.broken_paths) == ["x.yaml"]


def test_what_the_source_refuses_is_told_where_it_stands_and_where_it_is_named() -> None:
    leaves = Problem(path="x.py", message="This symlink leaves the folder.", advice="Put the file itself in its place.")
    found = read({"x.yaml": b"kind: Tool\n"}, refused={"x.py": leaves})
    assert errors(found) == [
        "x.py: This symlink leaves the folder. Put the file itself in its place.",
        "x.yaml:1:1: 'x.py' cannot be taken: This symlink leaves the folder. Put the file itself in its place.",
    ]


def test_a_problem_names_the_tool_it_holds_back() -> None:
    found = reading(a_yaml="kind: Tool\nname: b\nx: 1\n", a_py="def a(): pass\n")
    assert only_error(found).tool == "b"


# Reading again ---------------------------------------------------------------------------------------------------


FILES = {
    "a.yaml": b"kind: Tool\n",
    "a.py": b"def a(): pass\n",
    "g/b.yaml": b"kind: Tool\nfiles: [c.py, b.py]\n",
    "g/b.py": b"def b(): pass\n",
    "g/c.py": b"x = 1\n",
    "policy.yaml": b"kind: Policy\n",
}


def test_a_reader_that_sees_no_change_answers_with_the_same_object() -> None:
    reader = Reader("main")
    first = reader.read(FILES)
    assert reader.read(dict(FILES)) is first
    assert reader.read({path: bytes(bytearray(content)) for path, content in FILES.items()}) is first


def test_after_a_change_only_the_tools_it_concerns_are_new_objects() -> None:
    reader = Reader("main")
    before = {tool.name: tool for tool in reader.read(FILES).tools}
    after = {tool.name: tool for tool in reader.read({**FILES, "g/c.py": b"x = 2\n"}).tools}
    assert after["a"] is before["a"]
    assert after["g.b"].declaration.files[0].content == "x = 2\n"


@pytest.mark.parametrize(
    "change",
    [
        {"a.yaml": None},
        {"a.py": None},
        {"g/c.py": None},
        {"g/c.py": b"x = ("},
        {"g/group.yaml": b"kind: Group\n"},
        {"g/group.yaml": b"kind: Group\nname: ["},
        {"group.yaml": b"kind: Group\nname: top\n"},
        {"policy.yaml": None},
        {"policy.yaml": b"kind: Policy\nx: 1\n"},
        {"z.yaml": b"kind: Tool\nname: a\n"},
        {"g/b.yaml": b"kind: Tool\nfiles: [b.py]\n---\nkind: Tool\nname: n\nentrypoint: c.py:x\n"},
    ],
)
def test_reading_again_says_what_reading_anew_says(change: dict[str, bytes | None]) -> None:
    reader = Reader("main")
    first = reader.read(FILES)
    changed = {path: content for path, content in {**FILES, **change}.items() if content is not None}
    assert reader.read(changed) == read(changed)
    assert reader.read(FILES) == first


def test_very_many_mistakes_of_one_kind_take_no_time_for_ever_and_no_memory_for_ever() -> None:
    """Each of thousands of tools without a file was compared with every file, and each duplicate told every other."""
    lost = {f"t{number}.yaml": b"kind: Tool\n" for number in range(2_000)}
    others = {f"u{number}.py": b"" for number in range(2_000)}
    assert len(read({**lost, **others}).errors) == 2_000
    same = {f"t{number}.yaml": b"kind: Tool\nname: same\nentrypoint: x.py:x\n" for number in range(2_000)}
    found = read({**same, "x.py": b"def x(): pass\n"})
    assert len(found.errors) == 2_000
    assert "also in t1.yaml:1, t10.yaml:1, t100.yaml:1 and 1996 other places." in found.errors[0].message


def test_of_a_document_its_place_is_kept_and_not_all_of_it() -> None:
    """With ten thousand tools, whole documents weighed more than everything that was made of them."""
    [document] = read_manifest("kind: Tool\nname: a\n", "a.yaml", owner="git:main").documents
    assert (document.place.value, document.place.line) == (None, 1)
