"""A server keeps its name, and shares it with none."""

from pathlib import Path

import pytest

from portoser.audit.replica import replica_name
from portoser.catalog.errors import PortoserError


def test_a_name_is_kept_in_the_data_directory_and_differs_between_two(tmp_path: Path) -> None:
    name = replica_name(tmp_path / "a", "host", 8000)
    assert name.startswith("host:8000/")
    assert replica_name(tmp_path / "a", "host", 8000) == name
    assert replica_name(tmp_path / "a", "host", 8001) == name.replace("8000", "8001")
    assert replica_name(tmp_path / "b", "host", 8000) != name
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["replica"]


@pytest.mark.parametrize("text", [b"", b"half", b"\xff\xfe"])
def test_a_file_that_holds_no_name_is_made_anew(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "replica").write_bytes(text)
    name = replica_name(tmp_path, "host", 8000)
    assert replica_name(tmp_path, "host", 8000) == name


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(PortoserError, match="cannot be used"):
        replica_name(tmp_path / "data", "host", 8000)
