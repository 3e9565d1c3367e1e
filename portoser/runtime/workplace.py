"""What every worker is told before it works, its limits; and which workers are at work."""

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
        self._busy: dict[WorkerProcess, int] = {}
        """How much each worker was given."""
        self.is_closing = False

    def set_up(self, worker: WorkerProcess, allowance: Allowance) -> None:
        """Send a new worker the first frame that it expects."""
        worker.send(protocol.encode(Setup(allowance.memory, allowance.scratch, allowance.files)))

    def begins(self, worker: WorkerProcess) -> None:
        """Have ``close`` know of the worker; where it came before, the worker ends before it begins."""
        if self.is_closing:
            worker.kill("cancelled", STOPPING)
        self._busy[worker] = self._busy.get(worker, 0) + 1

    def ends(self, worker: WorkerProcess) -> None:
        """The worker has done what it was given."""
        left = self._busy.pop(worker) - 1
        if left:
            self._busy[worker] = left

    def close(self) -> None:
        """End every worker that is at work, as cancelled, and whichever comes to be."""
        self.is_closing = True
        if self._busy:
            log.info("calls_stopped", count=sum(self._busy.values()))
        for worker in tuple(self._busy):
            worker.kill("cancelled", STOPPING)
