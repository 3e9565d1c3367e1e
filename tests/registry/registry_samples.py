"""Tools, groups and callers for the registry's tests."""

from portoser.catalog.caller import Caller
from portoser.catalog.change import DeleteTool, PutTool
from portoser.catalog.revision import Declaration, Revision, SourceFile, revision_of
from portoser.catalog.tool import DesiredTool, Provenance

ALICE = Caller(subject="alice", name="Alice", groups=frozenset({"operator"}))
GIT = "git:main"


def a_revision(text: str = "1", **declared) -> Revision:
    code = f"def run(a: int) -> int:\n    return a + {text}\n"
    declaration = Declaration(files=(SourceFile("run.py", code),), entrypoint="run.py:run", **declared)
    schema = {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "integer"}}, "required": ["a"]}
    return revision_of(declaration, description=f"Add {text}.", input_schema=schema, output_schema=None)


def desired(name: str, text: str = "1", *, owner: str = GIT, commit: str | None = "c1", **fields) -> DesiredTool:
    provenance = Provenance(
        source="main" if owner == GIT else "rest",
        path=f"{name}.yaml",
        commit=commit,
        author="Ann <ann@example.org>" if commit else None,
        applied_commit=commit,
    )
    return DesiredTool(name=name, owner=owner, revision=a_revision(text), provenance=provenance, **fields)


def put(name: str, text: str = "1", *, expected: int | None = None, restore: bool = False, **fields) -> PutTool:
    return PutTool(desired=desired(name, text, **fields), expected_version=expected, restore=restore)


def delete(name: str, version: int = 1, *, owner: str = GIT) -> DeleteTool:
    return DeleteTool(name=name, owner=owner, expected_version=version)
