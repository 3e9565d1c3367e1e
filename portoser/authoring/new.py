"""Writes a new tool, group or policy into a folder of tools: all of it, or nothing."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from portoser.authoring.forms import SCHEMA_FILE, Form, made
from portoser.authoring.schema import TITLE, schema_text
from portoser.catalog.errors import Invalid, Problem
from portoser.catalog.names import GROUP_NAME, name_problem
from sync.blocking import in_thread
from sync.manifest import Reader
from sync.sources.base import Scan
from sync.sources.worktree import Worktree


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, by path relative to the folder, and what a reader says of it that holds nothing back."""

    paths: tuple[str, ...]
    warnings: tuple[Problem, ...]


async def write_new(folder: Path, form: Form, name: str, *, group: str | None = None, replace: bool = False) -> Written:
    """Make the files of a form, and the schema that their first line names.

    Raises:
        Invalid: everything that is wrong: the name, files that are there already, what a reader says of the files.
        SourceUnreadable: the folder is there and cannot be read.
    """
    _refuse(_wrong_names(form, name, group))
    files = made(form, name, group)
    _refuse(_in_the_way(folder, files, replace=replace))
    is_there = await in_thread(folder.exists)
    before = await Worktree(folder).scan() if is_there else Scan(files={}, tree="")
    reader = Reader("main")
    known = set(reader.read(before.files, before.refused).problems)
    after = {**before.files, **{path: text.encode() for path, text in files.items()}}
    new = [problem for problem in reader.read(after, before.refused).problems if problem not in known]
    _refuse(problem for problem in new if problem.is_error)
    write_all(folder, files, replace=replace)
    paths = tuple(files)
    if write_schema(folder):
        paths += (SCHEMA_FILE,)
    return Written(paths, tuple(problem for problem in new if problem.path in files))


def write_schema(folder: Path) -> bool:
    """Put the manifests' JSON Schema into a folder of tools; whether it was not there as it is.

    Raises:
        Invalid: there is another file in its place, or it cannot be written.
    """
    file, text = folder / SCHEMA_FILE, schema_text()
    try:
        there = file.read_text(encoding="utf-8") if file.exists() else None
        if there == text:
            return False
        if there is not None and TITLE not in there:
            raise Invalid([Problem(path=SCHEMA_FILE, message="There is another file.", advice="Move it away.")])
        file.parent.mkdir(parents=True, exist_ok=True)
        _swap_in(file, text)
    except (OSError, UnicodeDecodeError) as error:
        raise _unwritable(SCHEMA_FILE, error) from None
    return True


def write_all(folder: Path, files: Mapping[str, str], *, replace: bool = False) -> None:
    """Write files below a folder: all of them beside their places first, then each is moved there; all or nothing.

    Raises:
        Invalid: a file cannot be written, or is there already and ``replace`` does not say otherwise.
    """
    before: dict[Path, bytes | None] = {}
    path = ""
    try:
        for path, text in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            _beside(file).write_text(text, encoding="utf-8", newline="\n")
        for path in files:
            file = folder / path
            if not replace:
                file.touch(exist_ok=False)
                before[file] = None
            elif file not in before:
                before[file] = file.read_bytes() if file.exists() else None
            _beside(file).replace(file)
    except OSError as error:
        for file, content in before.items():
            _put_back(file, content)
        raise _unwritable(path, error) from None
    finally:
        for each in files:
            with contextlib.suppress(OSError):
                _beside(folder / each).unlink()


def _wrong_names(form: Form, name: str, group: str | None) -> Iterable[Problem]:
    if form.is_tool:
        wrong = name_problem(name)
        if wrong is not None:
            yield Problem(message=wrong, advice="Write for example: orders.refund")
        elif any(not part or part.startswith("-") for part in name.split(".")):
            yield Problem(
                message=f"The name {name!r} cannot be made into the path of a file.",
                advice="Put letters or digits on both sides of each dot: orders.refund",
            )
    elif form is Form.GROUP and (not GROUP_NAME.fullmatch(name) or "" in name.split(".")):
        yield Problem(message=f"{name[:70]!r} cannot be a group's name.", advice="Write for example: orders")
    if group is not None and not form.is_tool:
        yield Problem(message=f"A {form} belongs to no group.", advice="Leave --group out.")
    elif group is not None and not GROUP_NAME.fullmatch(group):
        yield Problem(message=f"{group[:70]!r} cannot be a group's name.", advice="Write for example: --group orders")


def _in_the_way(folder: Path, files: Iterable[str], *, replace: bool) -> Iterable[Problem]:
    root = folder.resolve()
    if folder.exists() and not folder.is_dir():
        yield Problem(message=f"{folder} is not a directory.", advice="Name another one with --folder.")
        return
    for path in files:
        file = folder / path
        if not file.parent.resolve().is_relative_to(root) or any(
            (folder / part).is_symlink() for part in Path(path).parents if part.name
        ):
            yield Problem(path=path, message="A folder on the way is a symlink, which is not followed.")
        elif os.path.lexists(file) and not (replace and file.is_file()):
            yield Problem(path=path, message="There is such a file already.", advice="--force replaces it.")


def _refuse(problems: Iterable[Problem]) -> None:
    found = list(problems)
    if found:
        raise Invalid(found)


def _swap_in(file: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that nobody reads half of it."""
    beside = _beside(file)
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}")


def _put_back(file: Path, content: bytes | None) -> None:
    """Make a file what it was, as far as that can be done."""
    with contextlib.suppress(OSError):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)


def _unwritable(path: str, error: OSError | UnicodeDecodeError) -> Invalid:
    reason = error.strerror if isinstance(error, OSError) else "what is there is not text"
    return Invalid([Problem(path=path, message=f"It cannot be written: {reason}.")])
