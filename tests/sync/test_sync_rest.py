"""A tool in a REST request goes through the same checks as one in a folder; problems name the fields."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portoser.catalog.errors import Invalid
from sync.manifest import from_rest, read

LIST_SERVICES = {
    "name": "list_services",
    "description": "List all services in the registry",
    "code": "def list_services():\n return registry.services()\n",
    "permissions": ["operator"],
}


def problems(body: dict[str, Any]) -> list[str]:
    with pytest.raises(Invalid) as caught:
        from_rest(body)
    return [str(problem) for problem in caught.value.problems]


def test_the_readmes_tool_is_taken() -> None:
    tool = from_rest(LIST_SERVICES)
    assert (tool.name, tool.permissions, tool.group, tool.path) == ("list_services", ("operator",), None, "")
    assert tool.declaration.entrypoint == "list_services.py:list_services"
    assert tool.declaration.description == "List all services in the registry"


def test_the_function_is_the_one_named_like_the_last_part_of_the_name() -> None:
    tool = from_rest({"name": "ops.restart-all", "code": "def a(): pass\ndef restart_all(): pass\n"})
    assert tool.declaration.entrypoint == "restart_all.py:restart_all"


def test_else_it_is_the_only_public_one() -> None:
    tool = from_rest({"name": "x", "code": "def _hidden(): pass\nasync def shown(): pass\n"})
    assert tool.declaration.entrypoint == "x.py:shown"


def test_several_files_stay_in_their_order_and_may_be_called_filename() -> None:
    tool = from_rest(
        {
            "name": "refund",
            "files": [
                {"path": "money.py", "content": "CENT = 1\n"},
                {"filename": "refund.py", "content": "import money\ndef refund(): pass\n"},
            ],
        }
    )
    assert [file.path for file in tool.declaration.files] == ["money.py", "refund.py"]
    assert tool.declaration.entrypoint == "refund.py:refund"


def test_the_entrypoint_may_be_named() -> None:
    files = [{"path": "a.py", "content": "def go(): pass\n"}, {"path": "b.py", "content": "x = 1\n"}]
    assert from_rest({"name": "x", "files": files, "entrypoint": "a.py:go"}).declaration.entrypoint == "a.py:go"
    assert from_rest({"name": "x", "files": files, "entrypoint": "a.py"}).declaration.entrypoint == "a.py:go"


def test_fields_that_are_null_are_left_out() -> None:
    tool = from_rest({**LIST_SERVICES, "group": None, "files": None, "limits": None, "replace_existing": True})
    assert tool.group is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ["name: A tool needs a name.", "code: The tool has no code."]),
        ({"permisions": []}, ["permisions: 'permisions' is not known. Did you mean 'permissions'?"]),
        ({"kind": "Tool"}, ["kind: 'kind' is not known. A request declares tools only."]),
        ({"adopt": True}, ["adopt: 'adopt' is not known. Only a manifest can adopt a tool."]),
        ({"replace_existing": "yes"}, ["replace_existing: 'replace_existing' must be true or false, not 'yes'."]),
        ({"limits": {"timeout": "soon"}}, ["limits.timeout: 'soon' is not a duration"]),
        ({"examples": [{"call": 1}]}, ["examples[0].call: 'call' cannot be a number (1)."]),
        ({"name": "x", "code": "def f(:"}, ["x.py:1:7: Not valid Python: invalid syntax."]),
        ({"name": "x", "code": "def f(*a): pass"}, ["x.py:1:7: A tool cannot have '*a'."]),
        ({"name": "x", "code": "def a(): pass\ndef b(): pass"}, ["code: There is no function 'x' in x.py."]),
        ({"name": "x", "code": ""}, ["code: There is no function 'x' in x.py. Write 'def x(…):' in it."]),
        ({"name": "x", "code": 5}, ["code: 'code' cannot be a number (5)."]),
        ({"name": "x", "code": "\ud800"}, ["code: 'code' holds half of a surrogate pair."]),
        ({"name": "x", "code": "#" * 300_000}, ["code: 'code' has 300,000 bytes; at most 256 KiB"]),
        ({"name": "x", "code": "", "files": []}, ["code: 'code' and 'files' are both given."]),
        ({"name": "x", "files": []}, ["files: 'files' is empty. Write for example: "]),
        ({"name": "x", "files": ["a.py"]}, ["files[0]: 'files' cannot be text (a.py)."]),
        ({"name": "x", "files": [{"path": "a.py"}]}, ["files[0]: A file has no 'content'."]),
        ({"name": "x", "files": [{"path": "../a.py", "content": ""}]}, ["files[0].path: '../a.py' leaves"]),
        ({"name": "x", "files": [{"path": "a.py", "content": ""}] * 2}, ["files[1]: The path 'a.py' stands twice"]),
        ({"name": "x", "code": "def x(): pass", "entrypoint": "y.py:x"}, ["entrypoint: 'entrypoint' names 'y.py'"]),
        ({"name": "x", "code": "def x(): pass", "description": "\0"}, ["description: 'description' holds a NUL"]),
    ],
)
def test_what_is_refused_names_the_field(body: dict[str, Any], expected: list[str]) -> None:
    told = problems(body)
    for start in expected:
        assert any(problem.startswith(start) for problem in told), told


def test_a_body_that_nests_too_deeply_is_refused() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert "nests more than 64 levels" in problems({**LIST_SERVICES, "examples": deep})[0]


def test_a_request_and_a_folder_declare_the_same_tool() -> None:
    manifest = b"kind: Tool\ndescription: List all services in the registry\npermissions: [operator]\n"
    folder = {"list_services.yaml": manifest, "list_services.py": str(LIST_SERVICES["code"]).encode()}
    assert read(folder).tools[0].declaration.key() == from_rest(LIST_SERVICES).declaration.key()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    [
        "name",
        "code",
        "files",
        "entrypoint",
        "limits",
        "uses",
        "examples",
        "inputSchema",
        "confirm",
        "redact",
        "requires",
    ]
)


@given(st.dictionaries(_KEYS, _JSON, max_size=6))
def test_no_body_raises_anything_but_invalid(body: dict[str, Any]) -> None:
    with contextlib.suppress(Invalid):
        from_rest({**LIST_SERVICES, **body})
