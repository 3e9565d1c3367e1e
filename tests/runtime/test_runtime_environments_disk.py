"""Environments on a disk that does not do what is asked of it."""

import tempfile
from pathlib import Path

import pytest

from portoser.catalog.errors import Unavailable
from portoser.runtime.environments.folders import Folders, environment_id
from portoser.runtime.environments.uv import Uv


async def test_where_no_files_can_be_made_nothing_is_resolved_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match="cannot be resolved: No such file or directory"):
        await Uv(tmp_path / "cache").compile(["tiny==1"])


def test_an_environment_whose_lock_cannot_be_taken_is_as_good_as_gone(tmp_path: Path) -> None:
    folder = tmp_path / environment_id("a lock")
    folder.mkdir()
    (folder / "environment.json").write_text("{}")
    (tmp_path / "locks").write_text("not a folder")
    assert Folders(tmp_path).find("a lock") is None
