"""A worker's folder goes, whatever its tool has made of it."""

import os
from pathlib import Path

from portoser.runtime.removal import remove_tree


def test_a_folder_that_nests_deeper_than_paths_are_long_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    place = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        for name in ("d", "e"):
            os.mkdir(name, dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    remove_tree(folder)
    assert not folder.exists()


def test_a_folder_that_is_closed_to_us_is_removed_and_links_in_it_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    folder = tmp_path / "scratch"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").touch()
    (folder / "closed" / "out").symlink_to(kept)
    (folder / "out").symlink_to(kept)
    (folder / os.fsdecode(b"odd\xff\n name")).mkdir()
    os.mkfifo(folder / "pipe")
    for each in ("closed/inner", "closed", "."):
        (folder / each).chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert (kept / "file").read_text() == "kept"


def test_a_folder_that_is_gone_or_a_link_is_left_alone(tmp_path: Path) -> None:
    remove_tree(tmp_path / "gone")
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("real")
    remove_tree(tmp_path / "link")
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o755
