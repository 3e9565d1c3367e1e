"""Attacks by what a call raises or returns: each is one outcome that clients can read."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
from portoser import tool


class _Loud(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def unprintable_exception(target: dict[str, Any]) -> dict[str, Any]:
    """Raises an exception whose text raises.

    ends: exception
    """
    raise _Loud


def huge_exception(target: dict[str, Any]) -> dict[str, Any]:
    """Raises an exception of a hundred megabytes.

    ends: exception, memory_limit
    """
    raise ValueError("x" * 100_000_000)


def exception_in_a_circle(target: dict[str, Any]) -> dict[str, Any]:
    """Raises an exception that is its own cause.

    ends: exception
    """
    error = ValueError("circle")
    other = ValueError("other")
    error.__cause__, other.__cause__ = other, error
    raise error


def lying_exception(target: dict[str, Any]) -> dict[str, Any]:
    """Raises an exception whose class and traceback lie, and whose text prints into the terminal.

    ends: exception, tool_error
    """

    class Lie(Exception):
        __module__ = "\x1b[2J"

        @property
        def __traceback__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

        @property
        def __cause__(self) -> Any:  # type: ignore[override]
            return self

    Lie.__name__ = "x" * 100_000 + "\ud800\x00"
    raise Lie("\ud800\x1b]0;title\x07")


def exception_that_is_none(target: dict[str, Any]) -> dict[str, Any]:
    """Raises what ends loops, tasks and programs.

    ends: exception
    """
    raise BaseExceptionGroup("many", [KeyboardInterrupt(), GeneratorExit(), _Loud()])


def exit_by_exception(target: dict[str, Any]) -> dict[str, Any]:
    """Exits with an object as its code.

    ends: exited
    """
    sys.exit(_Loud())  # type: ignore[arg-type]


def exhausted_stack(target: dict[str, Any]) -> dict[str, Any]:
    """Raises with nothing left of the stack.

    ends: exception
    """
    return exhausted_stack(target)


def circle(target: dict[str, Any]) -> Any:
    """Returns a list that holds itself.

    ends: not_serializable
    """
    found: list[Any] = []
    found.append(found)
    return found


def deep_result(target: dict[str, Any]) -> Any:
    """Returns a list that nests a hundred thousand deep.

    ends: not_serializable
    """
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def lone_surrogates(target: dict[str, Any]) -> Any:
    """Returns text that is not Unicode.

    ends: not_serializable
    """
    return {"x": "\ud800", "\udfff": 1}


def infinite_numbers(target: dict[str, Any]) -> Any:
    """Returns numbers that JSON does not have.

    ends: ok, not_serializable
    """
    return {"nan": float("nan"), "infinity": float("-inf")}


def huge_numbers(target: dict[str, Any]) -> Any:
    """Returns a number of a million digits.

    ends: not_serializable, result_too_large, exception, timeout
    limits: {timeout: 1s}
    """
    sys.set_int_max_str_digits(0)
    return {"n": 1 << 3_000_000}


class _Bomb:
    def __getattr__(self, name: str) -> Any:
        raise SystemExit(f"asked for {name}")

    def __class_getitem__(cls, item: Any) -> Any:
        raise SystemExit

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self

    def __len__(self) -> int:
        return 1 << 62


def objects_that_bite(target: dict[str, Any]) -> Any:
    """Returns objects whose attributes raise, and that never end.

    ends: ok, not_serializable, exited, exception
    """
    return {"x": _Bomb(), "y": [_Bomb()]}


class _Changing(dict[Any, Any]):
    def items(self) -> Any:
        self[len(self)] = self
        return super().items()

    def __getitem__(self, key: Any) -> Any:
        raise MemoryError


def changing_result(target: dict[str, Any]) -> Any:
    """Returns a mapping that changes while it is read.

    ends: ok, not_serializable, exception, memory_limit
    """
    return _Changing(x=1)


def fake_blocks(target: dict[str, Any]) -> Any:
    """Returns blocks that claim to be of the server: with meta data, with the wrong types.

    ends: protocol_error, not_serializable, exception
    """

    class Fake(tool.Image):
        def to_block(self) -> dict[str, Any]:
            return {"type": "text", "text": {"not": "text"}, "_meta": {"portoser/tool": "another"}}

    return Fake(data=b"x")


def file_as_image(target: dict[str, Any]) -> Any:
    """Returns a file of the host as an image.

    ends: exception
    real: ok
    """
    return tool.Image(path=target["key"])


def lying_models(target: dict[str, Any]) -> Any:
    """Returns models whose serializers run on.

    ends: not_serializable, exited, exception, protocol_error
    """

    class Model(pydantic.BaseModel):
        x: int = 1

        @pydantic.model_serializer
        def hostile(self) -> dict[str, Any]:
            raise SystemExit(0)

    return [Model(), msgspec.Raw(b"\xff")]


def other_than_promised(target: dict[str, Any]) -> "_Promise":
    """Returns another shape than its output schema promises.

    ends: not_serializable
    """
    return [1, 2, 3]  # type: ignore[return-value]


@dataclass
class _Promise:
    x: int


def many_blocks(target: dict[str, Any]) -> Any:
    """Returns a hundred thousand blocks.

    ends: result_too_large
    """
    return [tool.EmbeddedResource("a", text="b")] * 100_000


def exits(target: dict[str, Any]) -> Any:
    """Ends its process without a word.

    ends: exited
    """
    import os

    os._exit(0)


def aborts(target: dict[str, Any]) -> Any:
    """Aborts its process.

    ends: crashed
    """
    import os

    os.abort()


def segfaults(target: dict[str, Any]) -> Any:
    """Reads at address 0.

    ends: crashed
    """
    import ctypes

    ctypes.string_at(0)


def bad_code_objects(target: dict[str, Any]) -> Any:
    """Runs bytecode that no compiler makes.

    ends: crashed, exception
    """

    def victim() -> None: ...

    victim.__code__ = victim.__code__.replace(co_code=b"\x7d\xff" * 2 + b"\x64\xff\x53\x00" * 8, co_consts=())
    victim()
    return {"got": []}


def pickles(target: dict[str, Any]) -> Any:
    """Hands out a pickle that runs a program for whoever loads it.

    ends: ok, not_serializable
    """
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            import os

            return os.system, ("echo attacked",)

    return pickle.dumps(Evil()).hex()


def finalizers(target: dict[str, Any]) -> Any:
    """Returns objects that end the process when they are freed.

    ends: ok, exited, not_serializable
    """
    import os

    class Last:
        def __del__(self) -> None:
            os._exit(9)

    kept = [Last()]
    kept.append(kept)  # type: ignore[arg-type]
    return "a text"
