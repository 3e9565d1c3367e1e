"""Each write of a tool names what it expects to find, and leaves alone what is not so."""

import uuid
from datetime import UTC, datetime

import msgspec
import pytest

from portoser.catalog.revision import Declaration, SourceFile, revision_of
from portoser.catalog.tool import ToolStatus
from portoser.store import revisions, tools
from portoser.store.tools import ToolRow

NOW = datetime.now(UTC)
REVISION = revision_of(
    Declaration(files=(SourceFile("a.py", "def a(): ...\n"),), entrypoint="a.py:a"),
    description="",
    input_schema={},
    output_schema=None,
)
ROW = ToolRow(
    id=str(uuid.uuid4()),
    name="a",
    owner="git:main",
    group_name=None,
    permissions=("x", "y"),
    digest=REVISION.digest,
    version=3,
    status=ToolStatus.SYNCED,
    problem=None,
    source="main",
    path=None,
    commit=None,
    author=None,
    applied_commit=None,
    generation=1,
    created_at=NOW,
    updated_at=NOW,
)


@pytest.mark.parametrize(
    "believed",
    [{"version": 2}, {"deleted_at": NOW}, {"owner": "rest:bob"}, {"id": str(uuid.uuid4())}, {"name": "b"}],
)
async def test_a_row_that_is_not_as_believed_is_left_alone(database, believed):
    before = msgspec.structs.replace(ROW, **believed)
    after = msgspec.structs.replace(before, version=4, problem="changed")
    async with database.acquire() as connection:
        await revisions.put(connection, [REVISION])
        assert await tools.insert(connection, [ROW]) == 1
        assert await tools.update(connection, [(before, after)]) == 0
        assert await tools.living(connection) == [ROW]
        changed = msgspec.structs.replace(ROW, version=4, permissions=None, generation=2)
        assert await tools.update(connection, [(ROW, changed)]) == 1
        assert await tools.changed_since(connection, 1) == [changed]


async def test_a_revision_that_is_stored_already_is_not_stored_again(database):
    async with database.acquire() as connection:
        await revisions.put(connection, [REVISION, REVISION])
        await revisions.put(connection, [REVISION])
        assert await revisions.whole(connection, REVISION.digest) == REVISION
        assert await revisions.whole(connection, "0" * 64) is None
