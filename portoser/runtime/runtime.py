"""Describes declarations and executes calls, in worker processes."""

import asyncio
import os
import time
from pathlib import Path
from typing import Literal

import msgspec
import psutil
import structlog

from portoser.catalog.allowance import CEILINGS, Allowance, allowance_of, beyond
from portoser.catalog.errors import PortoserError, Unavailable
from portoser.catalog.revision import MIB, Declaration, Limits
from portoser.runtime import protocol
from portoser.runtime.calls import Calls
from portoser.runtime.environments.folders import Folders
from portoser.runtime.environments.nurseries import Nurseries
from portoser.runtime.isolation.kernel import IS_LINUX
from portoser.runtime.isolation.layers import TESTING_VARIABLE, left_out
from portoser.runtime.nursery import Held, Terms
from portoser.runtime.pool import Pool
from portoser.runtime.protocol import Describe, Described
from portoser.runtime.running import Running, WorkerEnded
from portoser.runtime.scratch import Scratch
from portoser.runtime.types import (
    Call,
    CodeError,
    Description,
    Events,
    Execution,
    FilesLoader,
    PowerHost,
    Program,
    RuntimeStatus,
)
from portoser.runtime.workplace import STOPPING, Workplace

log = structlog.get_logger(__name__)

_DESCRIBE_MEMORY = 512 * MIB
_DESCRIBE_QUEUE = 100_000
_DESCRIBE_ZYGOTES = 4
"""Environments at most that declarations are described in at the same time."""

_WARM_MEMORY = 12 * MIB
"""What a warm worker holds that it shares with no other."""

NO_LINUX = (
    "Tools run on Linux alone, in processes that only Linux can make. `portoser validate --no-run` reads tools "
    "anywhere; to serve them from here, use a Linux container or a virtual machine."
)


class Runtime:
    """Runs tool code outside the server process.

    ``workers`` calls run at once, ``queue`` more wait; ``warm`` worker processes live at most, by default as many as
    ``warm_workers`` says, and none that was not used for ``longest_rest`` seconds. ``describers`` declarations are
    described at once. ``ceilings`` are the most that a tool may have, whatever it asks for. ``folders`` has the
    packages of programs that require some; ``zygotes`` environments at most are ready for calls, beside that of the
    programs that require none.
    """

    def __init__(
        self,
        *,
        workers: int,
        scratch: Path,
        sandbox: Literal["off", "strict"] = "strict",
        queue: int = 1000,
        warm: int | None = None,
        spares: int = 2,
        describers: int | None = None,
        calls_per_worker: int = 10_000,
        oldest_worker: float = 3600.0,
        longest_rest: float = 600.0,
        ceilings: Allowance = CEILINGS,
        folders: Folders | None = None,
        zygotes: int = 16,
    ) -> None:
        self._sandbox = sandbox
        self._ceilings = ceilings
        self._longest_rest = longest_rest
        self._scratch = Scratch(scratch)
        terms = Terms(self._scratch, sandbox != "off", left_out(), Held())
        self._callers = Nurseries("call", terms, folders, most=zygotes)
        self._describers = Nurseries("describe", terms, folders, most=_DESCRIBE_ZYGOTES)
        self._pool = Pool(
            self._callers.spawn,
            slots=workers,
            queue=queue,
            processes=warm if warm is not None else warm_workers(workers, memory_of_machine()),
            spares=spares,
            calls_per_worker=calls_per_worker,
            oldest=oldest_worker,
            longest_rest=longest_rest,
        )
        slots = describers if describers is not None else (os.cpu_count() or 1) + 1
        self._describe_pool = Pool(
            self._describers.spawn,
            slots=slots,
            queue=_DESCRIBE_QUEUE,
            processes=slots,
            spares=0,
            calls_per_worker=1,
            oldest=oldest_worker,
        )
        self._keepers: list[asyncio.Task[None]] = []
        self._workplace = Workplace()
        self._calls = Calls(self._pool, self._callers, self._workplace, ceilings)
        self._described_at = 0.0
        self._has_begun = False

    def begin(self, *, describing: bool = False) -> None:
        """Start the zygote that calls are run from without waiting for it, before there is an event loop.

        ``describing`` says that there is new code to be described: the zygote for that is started, too.

        Raises:
            PortoserError: this is no system that tools run on, or the data directory cannot be used.
            Unavailable: where no process can be started.
        """
        if not IS_LINUX:
            raise PortoserError(NO_LINUX)
        if self._sandbox == "off":
            log.warning("tools_run_without_isolation", sandbox="off")
        elif left_out():
            log.warning("testing_layers_off", layers=left_out(), told=f"{TESTING_VARIABLE} is set: for tests only.")
        self._has_begun = True
        try:
            self._scratch.open()
        except OSError as error:
            raise PortoserError(f"The data directory cannot be used: {error}.") from error
        self._callers.own.begin()
        if describing:
            self._describers.own.begin()

    def abandon(self) -> None:
        """End what was begun where nobody went on with it; after `aclose` there is nothing to end. Blocks."""
        self._callers.own.abandon()
        self._describers.own.abandon()
        self._scratch.abandon()

    async def start(self) -> None:
        """Start the zygote that calls are run from, and wait until it can.

        Raises:
            PortoserError: where ``sandbox`` is strict, and tools cannot be isolated here.
            Unavailable: where the zygote does not come up.
        """
        if not self._has_begun:
            self.begin()
        await self._callers.own.start()
        self._keepers = [
            asyncio.create_task(self._pool.keep_spares(), name="runtime-spares"),
            asyncio.create_task(self._pool.retire_unused(), name="runtime-retire"),
            asyncio.create_task(self._retire_describers(), name="runtime-describers"),
        ]

    async def _retire_describers(self) -> None:
        """End the zygote that declarations are described from, when none was for long: it weighs as much as a server.

        The next one waits for a new zygote. The zygotes of environments that nobody uses end, too.
        """
        while True:
            await asyncio.sleep(self._longest_rest / 10)
            rested = time.monotonic() - self._described_at > self._longest_rest
            if rested and self._describers.own.alive and not self._describe_pool.busy:
                await self._describers.own.retire()
            self._describers.retire_unused(self._longest_rest / 10)
            self._callers.retire_unused(self._longest_rest)

    async def warm_up(self) -> None:
        """Start the zygote that declarations are described from, so that the first description need not wait for it.

        Where it does not come up, the first description tries again, and says why it cannot be had.
        """
        self._described_at = time.monotonic()
        try:
            await self._describers.own.start()
        except Unavailable as error:
            log.warning("describing_not_warm", error=str(error))

    def stop_calls(self) -> None:
        """End the calls that run, as cancelled, and turn away those that wait or come: the server is stopping."""
        self._pool.turn_away()
        self._describe_pool.turn_away()
        self._workplace.close()

    async def aclose(self) -> None:
        """End every worker and both zygotes; calls that run end as cancelled."""
        for keeper in self._keepers:
            keeper.cancel()
        for told in await asyncio.gather(*self._keepers, return_exceptions=True):
            if isinstance(told, Exception):
                log.error("runtime_keeper_failed", exc_info=told)
        await self._callers.aclose()
        await self._describers.aclose()
        await self._scratch.aclose()

    def status(self) -> RuntimeStatus:
        """A moment of the runtime."""
        return RuntimeStatus(
            workers=self._callers.workers + self._describers.workers,
            busy=self._pool.busy + self._describe_pool.busy,
            queued=self._pool.queued + self._describe_pool.queued,
            zygotes=self._callers.alive + self._describers.alive,
            sandbox=self._sandbox,
            layers=self._callers.own.layers or (NOT_ISOLATED if self._sandbox == "off" else {}),
        )

    # Describe ------------------------------------------------------------------------------------------------

    @property
    def environments(self) -> frozenset[str]:
        """The digests of the locks whose packages processes have now."""
        return self._callers.environments | self._describers.environments

    async def describe(self, declaration: Declaration, *, environment: str | None = None) -> Description:
        """Import a declaration's code in a worker of its own, and read its description and schemas.

        ``environment`` is the digest of the lock whose packages the code may import.

        Raises:
            CodeError: where it cannot be imported or described.
            Unavailable: where no worker is to be had, or the server is stopping.
        """
        entry_path, _, name = declaration.entrypoint.partition(":")
        told = beyond(declaration.limits, self._ceilings)
        if told:
            advice = "Ask for less, or have the operator raise PORTOSER_LIMITS."
            raise CodeError(" ".join(told), path=entry_path, advice=advice)
        allowance = _describing(allowance_of(declaration.limits, self._ceilings))
        frame = protocol.encode(Describe(declaration.files, declaration.entrypoint))
        running = Running("", allowance, None)
        pool = self._describe_pool
        began = await pool.enter(None)
        try:
            worker = await pool.fresh(environment, allowance.scratch)
            try:
                self._workplace.begins(worker)
                with self._describers.using(environment):
                    self._workplace.set_up(worker, allowance)
                    answer = await worker.describe(running, frame)
            except WorkerEnded as ended:
                if self._workplace.is_closing:
                    raise Unavailable(STOPPING) from None  # which says nothing of the code
                message = f"The file cannot be imported: {ended.message}"
                raise CodeError(message, path=entry_path, advice=_printed(running)) from None
            finally:
                self._workplace.ends(worker)
                pool.give_back(worker, None)
        finally:
            self._described_at = time.monotonic()
            pool.leave(began)
        if not isinstance(answer, Described):
            raise CodeError(
                answer.message,
                path=answer.path if answer.path in {file.path for file in declaration.files} else entry_path,
                line=answer.line,
                column=answer.column,
                advice=answer.advice,
            )
        return Description(
            description=answer.description,
            input_schema=answer.input_schema,
            output_schema=answer.output_schema,
            warnings=answer.warnings + _sharing(name, declaration.limits, is_async=answer.is_async),
        )

    # Execute -------------------------------------------------------------------------------------------------

    async def execute(
        self, program: Program, files: FilesLoader, call: Call, *, events: Events | None, powers: PowerHost | None
    ) -> Execution:
        """Run one call, to its one end; see `Calls.execute`."""
        return await self._calls.execute(program, files, call, events=events, powers=powers)


def warm_workers(workers: int, memory: int) -> int:
    """How many worker processes are kept where ``workers`` calls run at once and the machine has ``memory`` bytes.

    A tool in use that has no warm worker costs a fork and an import for each call, fifty times what a warm one
    costs: so many, but no more than a quarter of the memory holds.
    """
    return max(workers, min(max(128, 8 * workers), memory // 4 // _WARM_MEMORY))


def memory_of_machine() -> int:
    """The machine's memory in bytes, or what this container may have of it."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


NOT_ISOLATED = {
    "processes": "on: tool code runs in worker processes, never in the server",
    "namespaces": "off: PORTOSER_SANDBOX=off",
    "landlock": "off: PORTOSER_SANDBOX=off",
    "seccomp": "off: PORTOSER_SANDBOX=off",
    "uid": "off: workers run as the server's user",
    "rlimits": "on: memory, processor time, file size, open files",
    "no_new_privs": "on: no set-uid program gives anything back",
}
"""What holds where the settings say that nothing need."""


def _describing(allowance: Allowance) -> Allowance:
    """What a description is allowed: the code is imported beside what describes it."""
    memory = max(allowance.memory, _DESCRIBE_MEMORY)
    return msgspec.structs.replace(allowance, memory=memory, result=8 * MIB, share=1)


def _sharing(name: str, limits: Limits, *, is_async: bool) -> tuple[str, ...]:
    if limits.share == 1 or is_async:
        return ()
    return (f"'limits.share' is {limits.share}, but {name} is not async: its calls run one after the other.",)


def _printed(running: Running) -> str:
    printed = running.output().strip()
    return f"It printed: {printed[-1000:]}" if printed else ""
