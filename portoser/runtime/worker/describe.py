"""What a tool's code says of itself: its description and schemas, by FastMCP's own rules.

Imported in describe workers only, where FastMCP is preloaded; workers that run calls never pay for it.
"""

import inspect
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from fastmcp.tools.function_parsing import ParsedFunction
from fastmcp.utilities.types import Audio as FastAudio
from fastmcp.utilities.types import File as FastFile
from fastmcp.utilities.types import Image as FastImage
from fastmcp.utilities.types import replace_type
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from portoser.runtime.protocol import BadCode, Describe, Described
from portoser.runtime.worker.failures import failure_of, place_of
from portoser.runtime.worker.loader import TAKEN, EntrypointError, Library
from portoser.tool import Audio, EmbeddedResource, Image

# Ours need no server to be imported; for schemas they are FastMCP's, which have none.
_MEDIA = {Image: FastImage, Audio: FastAudio, EmbeddedResource: FastFile}

_USUAL: tuple[Any, ...] = (
    str,
    int,
    float,
    bool,
    None,
    dict,
    list,
    dict[str, Any],
    dict[str, str],
    dict[str, int],
    list[Any],
    list[str],
    list[int],
    list[dict],  # type: ignore[type-arg]
    list[dict[str, Any]],
    str | None,
    dict[str, Any] | None,
)
"""What most tools return: what takes longest of describing one is working out the schema of its result."""

_VARIADIC: Mapping[Any, str] = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of positional arguments",
    inspect.Parameter.VAR_KEYWORD: "takes any keyword argument",
}


def describe(frame: Describe) -> Described | BadCode:
    """Import the files, and describe the entrypoint or say why it cannot be."""
    library = Library(frame.files)
    try:
        library.import_all()
        function = library.entrypoint(frame.entrypoint)
    except EntrypointError as error:
        return BadCode(str(error), error.path, 0, 0, error.advice)
    except BaseException as error:  # noqa: BLE001 - importing runs the tool's code, which may raise anything
        return _import_problem(error, library, frame)
    problem = _signature_problem(function, frame)
    if problem is not None:
        return problem
    try:
        parsed = ParsedFunction.from_function(_with_our_media(function))
    except BaseException as error:  # noqa: BLE001 - schemas run the tool's code, which may raise anything
        return _schema_problem(error, function, frame)
    return Described(
        parsed.description or "",
        parsed.input_schema,
        parsed.output_schema,
        inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.isasyncgenfunction(inspect.unwrap(function)),
        tuple(_warnings(function, parsed, frame)),
    )


def warm() -> None:
    """Describe something, so that what FastMCP imports on first use is there before the zygote forks."""
    logging.disable(logging.CRITICAL)

    def sample(text: str, count: int = 1) -> dict[str, int]:
        """Sample.

        Args:
            text: A text.
            count: A number.
        """
        return {text: count}

    ParsedFunction.from_function(sample)
    for usual in _USUAL:  # FastMCP keeps what it has worked out of a type
        sample.__annotations__["return"] = usual
        ParsedFunction.from_function(sample)


def _with_our_media(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        returns = get_type_hints(function, include_extras=True).get("return")
    except Exception:  # noqa: BLE001 - annotations are expressions of the tool's: they may raise anything
        return function
    replaced = replace_type(returns, _MEDIA)
    if replaced is not returns and replaced != returns:
        # This process describes one tool and ends: its function may be changed in place.
        function.__annotations__ = {**function.__annotations__, "return": replaced}
    return function


def _signature_problem(function: Callable[..., Any], frame: Describe) -> BadCode | None:
    path, _, name = frame.entrypoint.partition(":")
    if inspect.isclass(function):
        return BadCode(f"{name!r} is a class, not a function.", path, _line(function), 0, "Name a function.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        return BadCode(f"{name!r} has no signature that can be read: {error}", path, 0, 0, "Name a function.")
    for parameter in signature.parameters.values():
        how = _VARIADIC.get(parameter.kind)
        if how is not None:
            return BadCode(
                f"The parameter {parameter.name!r} of {name} {how}.",
                path,
                _line(function),
                0,
                "MCP passes arguments by name: give each argument a parameter of its own.",
            )
    return None


def _import_problem(error: BaseException, library: Library, frame: Describe) -> BadCode:
    if isinstance(error, SyntaxError) and error.filename in library.paths:
        message = f"{type(error).__name__}: {error.msg}"
        return BadCode(message, error.filename or "", error.lineno or 0, error.offset or 0, "")
    place = place_of(error, library.paths)
    advice = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        advice = (
            "Tools can import the standard library, pydantic, msgspec, the packages that they name in 'requires' "
            f"and their own files, here {', '.join(sorted(library.paths))}; name a missing one in 'files'."
        )
    elif "partially initialized module" in str(error):
        advice = (
            f"{_imports(error, library)} import each other while they load: "
            "move what both need into a file of its own, or import inside of the function."
        )
    elif isinstance(error, NameError):
        advice = "Only ctx, registry, vault, cluster and http are there without an import."
    elif isinstance(error, SystemExit):
        advice = 'A tool\'s file must not end the process; is there an `if __name__ == "__main__"` missing?'
    failure = failure_of(error, ())
    return BadCode(
        f"The file cannot be imported: {failure.message}",
        place[0] if place else "",
        place[1] if place else 0,
        _column(error, place[0], frame) if place else 0,
        advice,
    )


def _imports(error: BaseException, library: Library) -> str:
    """The places in the tool's files that the way to an exception leads over."""
    frames = traceback.extract_tb(error.__traceback__)
    return " and ".join(f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename in library.paths)


def _column(error: BaseException, path: str, frame: Describe) -> int:
    """The column, from 1, that an exception came from in one of the tool's files; 0 where it is not known."""
    at = [summary for summary in traceback.extract_tb(error.__traceback__) if summary.filename == path][-1]
    content = next((file.content for file in frame.files if file.path == path), "")
    lines = content.split("\n")
    if at.colno is None or at.lineno is None or at.lineno > len(lines):
        return 0
    # Python counts a line's bytes, an author its characters.
    return len(lines[at.lineno - 1].encode()[: at.colno].decode(errors="ignore")) + 1


def _schema_problem(error: BaseException, function: Callable[..., Any], frame: Describe) -> BadCode:
    path, _, name = frame.entrypoint.partition(":")
    line = _line(function)
    try:
        hints = get_type_hints(function, include_extras=True)
    except BaseException as unresolved:  # noqa: BLE001 - annotations are expressions of the tool's: they may raise anything
        text = failure_of(unresolved, ()).message
        return BadCode(f"The annotations of {name} cannot be resolved: {text}", path, line, 0, "")
    for parameter, hint in hints.items():
        try:
            TypeAdapter(hint).json_schema(mode="serialization" if parameter == "return" else "validation")
        except BaseException as reason:  # noqa: BLE001 - a type is the tool's code: it may raise anything
            subject = "The return type" if parameter == "return" else f"The parameter {parameter!r}"
            return BadCode(
                f"{subject} of {name} has no JSON Schema: {_printed(hint)}. {_why(reason)}".rstrip(),
                path,
                line,
                0,
                "Use JSON-like types, dataclasses, enums, dates or pydantic models.",
            )
    return BadCode(f"{name} has no schema: {failure_of(error, ()).message}", path, line, 0, "")


def _warnings(function: Callable[..., Any], parsed: ParsedFunction, frame: Describe) -> list[str]:
    found = []
    name = frame.entrypoint.partition(":")[2]
    if not parsed.description:
        found.append(f"{name} has no docstring: the model reads it to know when to call the tool.")
    untyped = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.annotation is inspect.Parameter.empty
    ]
    if untyped:
        found.append(f"{name} does not say the type of {', '.join(untyped)}: any value will be accepted.")
    shadowing = [file.path for file in frame.files if file.path.partition("/")[0].removesuffix(".py") in TAKEN]
    if shadowing and len(frame.files) > 1:
        found.append(
            f"{', '.join(shadowing)} is named like a standard module: importing that name gets the standard one."
        )
    return found


def _line(function: Callable[..., Any]) -> int:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_firstlineno if code is not None else 0


def _why(error: BaseException) -> str:
    """The reason of a type without a schema, in one line; nothing where pydantic says no more than that."""
    if isinstance(error, PydanticSchemaGenerationError | PydanticInvalidForJsonSchema):
        return ""
    return failure_of(error, ()).message.partition("\n")[0]


def _printed(hint: object) -> str:
    try:
        return inspect.formatannotation(hint)
    except Exception:  # noqa: BLE001 - printing a type is the tool's code: it may raise anything
        return "a type that cannot be printed"
