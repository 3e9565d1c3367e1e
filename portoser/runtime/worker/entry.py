"""A tool's function, ready to be called with arguments as they come out of JSON.

Arguments become what the signature says (dataclasses, models, enums, dates, …) by pydantic, with the rules of
FastMCP: lax conversion, defaults, resolved forward references. Validation and the call are two steps here, so
that a pydantic error of the tool's own code is never taken for a wrong argument.
"""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

_MOST_PROBLEMS = 10
_PLAIN = frozenset((dict, list, str, int, float, bool, type(None)))
"""What is a result as it is: neither awaitable nor a generator."""


class ArgumentsError(Exception):
    """The arguments do not fit the function; the message names each that does not."""


class Entry:
    """One function, prepared once and called often."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._arguments = TypeAdapter[Any](_binder(function))
        self.results = results_adapter(function)
        self._loop = asyncio.new_event_loop() if _is_async(function) else None

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments that the function is to be called with.

        Raises:
            ArgumentsError: where they do not fit.
        """
        try:
            bound: dict[str, Any] = self._arguments.validate_python(arguments)
        except ValidationError as error:
            raise ArgumentsError(_describe(error)) from None
        return bound

    def call(self, arguments: dict[str, Any]) -> Any:
        """Call the function, to its end: coroutines and generators are run. Raises whatever it raises."""
        result = self.function(**arguments)
        if type(result) in _PLAIN:
            return result
        if inspect.isawaitable(result) or inspect.isasyncgen(result):
            result = self._run(result)
        if inspect.isgenerator(result):
            result = list(result)
        return result

    async def finish(self, arguments: dict[str, Any]) -> Any:
        """Call the function on the event loop that runs, otherwise as ``call``."""
        result = self.function(**arguments)
        if inspect.isawaitable(result) or inspect.isasyncgen(result):
            result = await _finish(result)
        return list(result) if inspect.isgenerator(result) else result

    def _run(self, awaited: Any) -> Any:
        # A loop that is kept costs a call 20 µs; asyncio.run would cost 300.
        loop = self._loop or asyncio.new_event_loop()
        try:
            return loop.run_until_complete(_finish(awaited))
        finally:
            _end_leftovers(loop)
            if self._loop is None:
                loop.close()
            elif getattr(loop, "_default_executor", None) is not None:
                self._loop = _without_threads(loop)


async def _finish(awaited: Any) -> Any:
    if inspect.isasyncgen(awaited):
        return [item async for item in awaited]
    result = await awaited
    return [item async for item in result] if inspect.isasyncgen(result) else result


def _is_async(function: Callable[..., Any]) -> bool:
    target = inspect.unwrap(function)
    return inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)


def _without_threads(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """A loop in the place of one that has started threads, which end with it."""
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return asyncio.new_event_loop()


def _end_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that a call left running: they must not see the next one."""
    leftovers = asyncio.all_tasks(loop)
    if leftovers:
        for task in leftovers:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = target.__call__
    try:
        return get_type_hints(target, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are expressions of the tool's: they may raise anything
        return dict(getattr(target, "__annotations__", {}))


def _binder(function: Callable[..., Any]) -> Any:
    """A function with the same signature that returns what it was called with."""

    def binder(**arguments: Any) -> dict[str, Any]:
        return arguments

    signature = inspect.signature(function)
    hints = _hints(function)
    annotations: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if name in hints:
            annotations[name] = hints[name]
        elif parameter.annotation is not inspect.Parameter.empty:
            annotations[name] = parameter.annotation
    # Keyword-only, so that pydantic hands everything over by name.
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        else parameter
        for parameter in signature.parameters.values()
    ]
    described: Any = binder
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = annotations
    described.__module__ = getattr(function, "__module__", __name__)
    described.__name__ = described.__qualname__ = getattr(function, "__name__", "tool")
    return binder


def results_adapter(function: Callable[..., Any]) -> TypeAdapter[Any] | None:
    """The adapter that the declared return type serializes by; None where it says nothing or cannot be used."""
    declared = _hints(function).get("return", Any)
    if declared in (None, type(None), Any, ...) or isinstance(declared, str):
        return None
    try:
        return TypeAdapter(declared)
    except PydanticSchemaGenerationError:
        return None


def _describe(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in problems]
    if len(lines) > _MOST_PROBLEMS:
        lines = [*lines[:_MOST_PROBLEMS], f"and {len(lines) - _MOST_PROBLEMS} more"]
    return "; ".join(lines)
