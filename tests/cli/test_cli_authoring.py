"""New tools from templates, stubs and the schema, as commands."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from portoser.authoring.forms import SCHEMA_FILE, TEMPLATES, Form, made
from portoser.authoring.new import write_all
from portoser.catalog.errors import Invalid

Run = Callable[..., Any]


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    monkeypatch.setenv("PORTOSER_SANDBOX", "off")
    return home


def files_in(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_every_form_passes_validate_with_its_examples_and_is_valid_under_the_schema_it_names(
    portoser: Run, trusting: Path
) -> None:
    for form in Form:
        name = [f"shop.{form}"] if form.is_tool else ["shop"] if form is Form.GROUP else []
        said = portoser("tool", "new", *name, "--form", form)
        assert said.code == 0, said.err
        assert "portoser validate tools.d" in said.out
    told = portoser("validate", "--json").json
    assert [problem for problem in told["problems"] if "holds a dot" not in problem["message"]] == []
    tools = [form for form in Form if form.is_tool]
    assert set(told["tools"]) == {f"shop.{form}" for form in tools}
    assert told["imported"]
    for manifest in (trusting / "tools.d").rglob("*.yaml"):
        first, *_ = manifest.read_text().splitlines()
        named = re.fullmatch(r"# yaml-language-server: \$schema=(.+)", first)
        assert named
        schema = json.loads((manifest.parent / named[1]).read_text())
        document = yaml.safe_load(manifest.read_text())
        assert jsonschema_rs.validator_for(schema).is_valid(document)
        assert document["kind"] != "Tool" or document["examples"]


def test_there_is_a_template_for_each_form_and_no_other() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.txt")} == set(Form)
    for form in Form:
        files = made(form, "shop.a-b" if form.is_tool else "shop")
        assert "@" not in "".join(text.replace("@dataclass", "") for text in files.values())
        assert form.summary


def test_a_name_that_python_would_not_take_gets_a_function_of_another_name(portoser: Run, trusting: Path) -> None:
    for form in ("function", "files", "registry"):
        for name in ("import", "list", "2fa", "get-time", "registry", "Sum"):
            assert portoser("tool", "new", f"{form}.{name}", "--form", form).code == 0
    said = portoser("validate")
    assert said.code == 0, said.out


def test_nothing_is_overwritten_unless_force_says_so(portoser: Run, trusting: Path) -> None:
    assert portoser("tool", "new", "greet").code == 0
    code = trusting / "tools.d" / "greet.py"
    code.write_text("mine")
    before = files_in(trusting)
    said = portoser("tool", "new", "greet", "--form", "files")
    assert said.code == 1
    assert "tools.d/greet.py: There is such a file already. --force replaces it." in said.err
    assert "tools.d/greet.yaml" in said.err
    assert code.read_text() == "mine"
    assert files_in(trusting) == before
    assert portoser("tool", "new", "greet", "--force").code == 0
    assert "def greet" in code.read_text()


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("last", ["taken/c.py", "full"])  # a file is on the way; a folder is in the place
def test_all_files_are_written_or_none(tmp_path: Path, last: str, replace: bool) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "full" / "inner").mkdir(parents=True)
    if replace:
        (tmp_path / "a.py").write_text("mine")
    before = {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")}
    with pytest.raises(Invalid, match=last):
        write_all(tmp_path, {"a.py": "a", "b.py": "b", last: "c"}, replace=replace)
    assert {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a b"], "may hold only letters"),
        (["a..b"], "cannot be made into the path"),
        ([".hidden"], "cannot be made into the path"),
        (["x" * 65], "at most 64"),
        (["../x"], "may hold only letters"),
        (["naïve"], "may hold only letters"),
        (["greet", "--group", "no/group"], "cannot be a group's name"),
        (["orders", "--form", "group", "--group", "a"], "belongs to no group"),
        (["taken"], "declared more than once"),
    ],
)
def test_nothing_is_written_where_anything_is_wrong(
    portoser: Run, trusting: Path, arguments: list[str], told: str
) -> None:
    tools = trusting / "tools.d"
    tools.mkdir()
    (tools / "other.yaml").write_text("kind: Tool\nname: taken\n")
    (tools / "other.py").write_text("def other() -> int:\n    return 1\n")
    before = files_in(trusting)
    said = portoser("tool", "new", *arguments)
    assert said.code == 1
    assert "nothing is written" in said.err
    assert told in said.err
    assert files_in(trusting) == before


def test_a_tool_is_written_where_the_settings_say_and_into_the_group_that_is_named(
    portoser: Run, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTOSER_TOOLS", "elsewhere")
    said = portoser("tool", "new", "orders.refund", "--group", "orders", "--json")
    assert said.json["written"] == [
        "elsewhere/orders/refund.py",
        "elsewhere/orders/refund.yaml",
        f"elsewhere/{SCHEMA_FILE}",
    ]
    assert "No group.yaml declares the group 'orders'" in json.dumps(said.json["warnings"])
    assert yaml.safe_load(Path("elsewhere/orders/refund.yaml").read_text())["group"] == "orders"
    (trusting / "portoser.toml").write_text('tools = "other"\n')
    monkeypatch.delenv("PORTOSER_TOOLS")
    assert portoser("tool", "new", "a").code == 0
    assert (trusting / "other" / "a.yaml").is_file()


def test_what_is_told_to_do_next_works(portoser: Run, trusting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert portoser("tool", "new", "a", "--json").json["next"] == ["portoser validate tools.d", "portoser dev tools.d"]
    monkeypatch.delenv("PORTOSER_SANDBOX")
    told = portoser("tool", "new", "c", "--folder", "my tools", "--json").json["next"]
    assert all(command.startswith("portoser ") for command in told)
    monkeypatch.setenv("PORTOSER_TESTING_LAYERS_OFF", "seccomp")
    for command in portoser("tool", "new", "b", "--folder", "my tools", "--json").json["next"]:
        variable, program, *arguments = shlex.split(command)
        assert (variable, program) == ("PORTOSER_SANDBOX=off", "portoser")
        with monkeypatch.context() as there:
            there.setenv(*variable.split("="))
            assert portoser(*arguments, *(["--once"] if "dev" in arguments else [])).code == 0


def test_a_broken_settings_file_is_told_and_nothing_is_written(portoser: Run, trusting: Path) -> None:
    (trusting / "portoser.toml").write_text("tools = ")
    said = portoser("tool", "new", "a")
    assert said.code == 1
    assert "portoser.toml: this is not TOML" in said.err
    assert files_in(trusting) == {"portoser.toml"}


def test_a_schema_that_is_old_is_made_anew_and_another_file_is_left_alone(portoser: Run, trusting: Path) -> None:
    portoser("tool", "new", "a")
    schema = trusting / "tools.d" / SCHEMA_FILE
    fresh = schema.read_text()
    assert portoser("tool", "schema", "--print").out == fresh
    assert "is as it should be" in portoser("tool", "schema").out
    schema.write_text(fresh.replace("Refund", "x"))
    assert portoser("tool", "schema").code == 0
    assert schema.read_text() == fresh
    schema.write_text("{}")
    said = portoser("tool", "schema")
    assert said.code == 1
    assert schema.read_text() == "{}"


def test_stubs_are_written_beside_the_first_tool_or_alone(portoser: Run, trusting: Path) -> None:
    assert portoser("tool", "new", "a", "--stubs").code == 0
    assert "class Context" in (trusting / "typings" / "portoser" / "tool.pyi").read_text()
    assert (trusting / "typings" / "__builtins__.pyi").is_file()
    said = portoser("tool", "stubs", "stubs")
    assert said.code == 0
    assert 'stubPath = "stubs"' in said.out
    (trusting / "file").write_text("")
    assert portoser("tool", "stubs", "file").code == 1


def test_the_forms_are_told(portoser: Run) -> None:
    said = portoser("tool", "new", "--forms")
    assert all(form in said.out for form in Form)
    assert portoser("tool", "new").code == 2
    assert portoser("tool", "new", "a", "--form", "x").code == 2
