"""`portoser dev`: the author's loop. Save a file, read what is wrong with it, call the tool, without a server."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from portoser.cli.check import WITHOUT_RUNNING, Folder, NoRun, running, settings_of, shown
from portoser.cli.exits import CommandError, Exit
from portoser.cli.target import AsJson

if TYPE_CHECKING:
    from portoser.cli.dev_session import Session
    from portoser.cli.dev_told import Teller
    from portoser.runtime.environments.environments import Environments
    from portoser.runtime.runtime import Runtime
    from portoser.settings import Settings

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def dev(
    folder: Folder = None,
    once: Annotated[bool, typer.Option("--once", help="Check the folder once, run its examples, and end.")] = False,
    no_run: NoRun = False,
    as_json: AsJson = False,
) -> None:
    """Check a folder at each save, run its examples, and call its tools at a prompt. No server is needed.

    Where no terminal is, or with --json, commands are read from standard input, a line each, until it ends; it then
    exits 1 where one failed, or where the folder has errors.
    """
    settings = settings_of(folder, "dev")
    code = asyncio.run(_dev(settings, folder or shown(settings.tools), once=once, run=not no_run, as_json=as_json))
    if code:
        raise typer.Exit(code)


async def _dev(settings: "Settings", folder: Path, *, once: bool, run: bool, as_json: bool) -> int:
    from portoser import logs
    from portoser.cli.dev_told import teller_of
    from portoser.progress import AdmissionProgress

    logs.configure("critical")  # what the server would log, is told as problems here
    teller = teller_of(folder, as_json=as_json)
    with _Signals() as signals:
        try:
            async with contextlib.AsyncExitStack() as stack:
                runtime, environments = await _parts(settings, stack, teller) if run else (None, None)
                how = f"sandbox {settings.sandbox.value}" if run else "nothing is run"
                teller.note(f"portoser dev: {folder}, {how}, registry {shown(settings.registry_path)}")
                session, at_terminal = _session(settings, runtime, environments, teller, as_json=as_json)
                with AdmissionProgress() as progress:
                    checked = await session.check(always=True, progress=progress)
                if not once:
                    await _serve_lines(session, signals, at_terminal=at_terminal)
                    if at_terminal:
                        return Exit.OK
                    checked = await session.check()
                return Exit.FAILED if session.failed or checked is None or checked.errors else Exit.OK
        except asyncio.CancelledError:
            if signals.code is None:
                raise
            return signals.code


async def _parts(
    settings: "Settings", stack: contextlib.AsyncExitStack, teller: "Teller"
) -> "tuple[Runtime, Environments]":
    """The runtime, started, and the packages that tools require.

    Where this machine cannot isolate tools, what can be told without it is told first.
    """
    from portoser.catalog.errors import PortoserError

    try:
        return await stack.enter_async_context(running(settings, "dev"))
    except PortoserError as error:
        session, _ = _session(settings, None, None, teller, as_json=True)
        await session.check()
        raise CommandError(str(error), problems=(WITHOUT_RUNNING,)) from None


def _session(
    settings: "Settings",
    runtime: "Runtime | None",
    environments: "Environments | None",
    teller: "Teller",
    *,
    as_json: bool,
) -> "tuple[Session, bool]":
    from portoser.authoring.workshop import Workshop
    from portoser.cli.dev_session import Ask, Session

    at_terminal = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    ask: Ask | None = None
    if at_terminal:
        from portoser.cli.dev_prompt import answers as ask
    workshop = Workshop(
        settings.tools,
        runtime,
        environments=environments,
        registry=settings.registry_path,
        admin_groups=frozenset(settings.admin_groups),
    )
    return Session(workshop, teller, runs=runtime is not None, ask=ask), at_terminal


async def _serve_lines(session: "Session", signals: "_Signals", *, at_terminal: bool) -> None:
    """Do line after line, and check the folder when it changes, until the lines end."""
    lines = _typed(session) if at_terminal else _piped()
    if at_terminal:
        signals.cancel_line = session.cancel
    watching = asyncio.create_task(session.watch(), name="watch")
    try:
        async for line in lines:
            if not await session.do(line):
                return
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await lines.aclose()


async def _typed(session: "Session") -> AsyncGenerator[str, None]:
    """The lines of a person at a terminal."""
    from portoser.cli.dev_prompt import Prompt

    prompt = Prompt(lambda: session.schemas, lambda: session.caller.subject)
    while (line := await prompt.read()) is not None:
        yield line


async def _piped() -> AsyncGenerator[str, None]:
    """The lines of standard input, read in a thread of its own, because a file cannot be waited for otherwise."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line


class _Signals:
    """Ctrl-C ends the line that is being done, or the program where there is none; a hang-up or kill ends it always.

    ``code`` is the exit code of a program that was ended so.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self.cancel_line: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end(number: int) -> None:
            if number == signal.SIGINT and self.cancel_line is not None:
                self.cancel_line()
            elif task is not None:
                self.code = 128 + number
                task.cancel()

        for number in _ENDING:
            loop.add_signal_handler(number, end, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            loop.remove_signal_handler(number)
