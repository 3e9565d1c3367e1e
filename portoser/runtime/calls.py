"""Runs calls: finds each a worker, alone or beside others, and makes an outcome of whatever happens."""

import asyncio
import time
from collections.abc import Hashable
from functools import partial
from typing import NamedTuple

import msgspec

from portoser.catalog.allowance import Allowance, allowance_of
from portoser.catalog.caller import Caller
from portoser.catalog.revision import Isolation
from portoser.runtime import protocol
from portoser.runtime.environments.nurseries import Nurseries
from portoser.runtime.outcome import check_volume, execution_of, execution_that_ended, is_small
from portoser.runtime.pool import Key, Pool
from portoser.runtime.process import WorkerProcess
from portoser.runtime.protocol import CallerView, CallFrame, Load, ProtocolViolation, Result
from portoser.runtime.running import Running, WorkerEnded
from portoser.runtime.sharing import OpenedInVain, Shared, Sharing
from portoser.runtime.types import Call, Events, Execution, FilesLoader, PowerHost, Program
from portoser.runtime.workplace import Workplace

_UNSENDABLE = (TypeError, ValueError, OverflowError, RecursionError)


class _Asked(NamedTuple):
    """What is to be run, for whom."""

    program: Program
    files: FilesLoader
    frame: bytearray
    caller: Caller
    powers: PowerHost | None
    key: Key
    """Which workers may run it."""

    @property
    def who(self) -> Hashable:
        """Whose turn it waits for."""
        caller = self.caller
        return caller.subject, caller.address if caller.is_anonymous else None


class Calls:
    """Runs calls in the workers of a pool."""

    def __init__(self, pool: Pool, nurseries: Nurseries, workplace: Workplace, ceilings: Allowance) -> None:
        self._pool = pool
        self._nurseries = nurseries
        self._workplace = workplace
        self._ceilings = ceilings
        self._sharing = Sharing(pool)

    async def execute(
        self, program: Program, files: FilesLoader, call: Call, *, events: Events | None, powers: PowerHost | None
    ) -> Execution:
        """Run one call, to its one end. ``files`` is asked only where no warm worker holds the program.

        Cancelling the awaiting task kills the call.

        Raises:
            Unavailable: where as many calls wait as may, or no worker can be started.
        """
        allowance = allowance_of(program.limits, self._ceilings)
        if allowance.share > 1 and program.isolation is Isolation.FRESH:
            allowance = msgspec.structs.replace(allowance, share=1)
        running = Running(call.id, allowance, events)
        caller = call.caller
        view = _view(caller)
        try:
            frame = protocol.encode(CallFrame(call.id, running.nonce, call.arguments, view, call.request_id))
        except _UNSENDABLE as error:
            message = f"Invalid arguments: they cannot be sent to the tool: {error}"
            return Execution(outcome="error", reason="invalid_arguments", message=message)
        asked = _Asked(program, files, frame, caller, powers, Key(program.digest, _known(caller, view)))
        if allowance.share > 1:
            return await self._execute_beside_others(asked, running)
        running.aside, running.back = self._pool.step_aside, self._pool.step_back
        began = await self._pool.enter(asked.who)
        try:
            return await self._execute(asked, running, began)
        finally:
            self._pool.leave(began)

    async def _execute(self, asked: _Asked, running: Running, began: float) -> Execution:
        reuse = asked.program.isolation is Isolation.REUSE
        worker, load = await self._worker(asked, running.allowance, reuse=reuse)
        keep = False
        try:
            execution, retire = await self._run(worker, asked, running, began, load)
            keep = reuse and not retire
        finally:
            self._pool.give_back(worker, asked.key if keep else None)
        return execution

    async def _execute_beside_others(self, asked: _Asked, running: Running) -> Execution:
        """The same in a worker that runs several calls, which the first of them opens."""
        while True:
            shared, is_first = self._sharing.join(asked.key, running.allowance.share)
            running.aside = partial(self._sharing.waits, shared)
            running.back = partial(self._sharing.goes_on, shared)
            keep = True
            try:
                worker = await (
                    self._open(shared, asked, running.allowance) if is_first else asyncio.shield(shared.ready)
                )
                execution, retire = await self._run(worker, asked, running, time.perf_counter(), None)
                keep = not retire
                return execution
            except OpenedInVain:
                continue
            finally:
                self._sharing.part(shared, keep=keep)

    async def _open(self, shared: Shared, asked: _Asked, allowance: Allowance) -> WorkerProcess:
        worker = None
        try:
            shared.began = await self._pool.enter(asked.who)
            worker, load = await self._worker(asked, allowance, reuse=True)
            if load is not None:
                self._prepare(worker, allowance, load)
        except BaseException as error:
            self._sharing.failed(shared, error)
            if worker is not None:
                worker.kill("cancelled", "The worker could not be made ready.")
            raise
        self._sharing.opened(shared, worker)
        return worker

    async def _worker(
        self, asked: _Asked, allowance: Allowance, *, reuse: bool
    ) -> tuple[WorkerProcess, bytearray | None]:
        """A worker for a call; with it the frame that gives it its program, where it has none yet."""
        worker = self._pool.take(asked.key) if reuse else None
        if worker is not None:
            return worker, None
        load = await _load(asked.program, asked.files, allowance)
        return await self._pool.fresh(asked.program.environment, allowance.scratch), load

    async def _run(
        self, worker: WorkerProcess, asked: _Asked, running: Running, began: float, load: bytearray | None
    ) -> tuple[Execution, bool]:
        """What came of a call, and whether its worker should have no other."""
        environment = asked.program.environment
        try:
            if environment is None:
                result = await self._result(worker, asked, running, load)
            else:
                with self._nurseries.using(environment):
                    result = await self._result(worker, asked, running, load)
            return execution_of(result, running, began), result.retire
        except WorkerEnded as ended:
            return execution_that_ended(ended, running, began), not worker.alive
        except ProtocolViolation as error:
            message = f"The tool's worker broke the protocol: {error}."
            return execution_that_ended(WorkerEnded("protocol_error", message), running, began), True

    async def _result(self, worker: WorkerProcess, asked: _Asked, running: Running, load: bytearray | None) -> Result:
        self._workplace.begins(worker)
        try:
            if load is not None:
                self._prepare(worker, running.allowance, load)
            result = await worker.run(running, asked.frame, asked.powers)
            if not is_small(result):
                await check_volume(result)
        finally:
            self._workplace.ends(worker)
        return result

    def _prepare(self, worker: WorkerProcess, allowance: Allowance, load: bytearray) -> None:
        self._workplace.set_up(worker, allowance)
        worker.send(load)


async def _load(program: Program, files: FilesLoader, allowance: Allowance) -> bytearray:
    sources = await files()
    return protocol.encode(Load(sources, program.entrypoint, program.output_schema, allowance.result, allowance.share))


def _known(caller: Caller, view: CallerView) -> tuple[str, ...]:
    """Two callers who differ in this share no worker: what one may know is not the other's."""
    return caller.kind, view.subject, view.name, *view.groups


def _view(caller: Caller) -> CallerView:
    return CallerView(caller.subject, caller.name, sorted(caller.groups))
