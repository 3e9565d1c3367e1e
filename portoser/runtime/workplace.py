"""What every worker is told before it works, its limits; and which workers are at work."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import structlog

from portoser.catalog.allowance import Allowance
from portoser.runtime import protocol
from portoser.runtime.process import WorkerProcess
from portoser.runtime.protocol import Setup

log = structlog.get_logger(__name__)

STOPPING = "The server is stopping."


class Workplace:
    """Sets workers up, and ends those at work when the server stops."""

    def __init__(self) -> None:
        self._busy: Counter[WorkerProcess] = Counter()
        self.is_closing = False

    def set_up(self, worker: WorkerProcess, allowance: Allowance) -> None:
        """Send a new worker the first frame that it expects."""
        worker.send(protocol.encode(Setup(allowance.memory, allowance.scratch, allowance.files)))

    @contextlib.contextmanager
    def at_work(self, worker: WorkerProcess) -> Iterator[None]:
        """Have ``close`` know of the worker; where it came before, the worker ends before it begins."""
        if self.is_closing:
            worker.kill("cancelled", STOPPING)
        self._busy[worker] += 1
        try:
            yield
        finally:
            self._busy[worker] -= 1
            if not self._busy[worker]:
                del self._busy[worker]

    def close(self) -> None:
        """End every worker that is at work, as cancelled, and whichever comes to be."""
        self.is_closing = True
        if self._busy:
            log.info("calls_stopped", count=self._busy.total())
        for worker in tuple(self._busy):
            worker.kill("cancelled", STOPPING)
