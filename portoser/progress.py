"""A progress bar for the long part of a cold start: importing every new tool once."""

import time
from types import TracebackType
from typing import Self

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = structlog.get_logger(__name__)

_LOG_EVERY = 5.0
"""Seconds between log lines where nobody sits at a terminal."""


class AdmissionProgress:
    """Shows how many new tools are admitted: a bar at a terminal, now and then a line in a log.

    Call it with (done, total); enter it for as long as it may be called.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = (
            Progress(
                TextColumn("Admitting new tools"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            if console.is_terminal
            else None
        )
        self._task = None if self._progress is None else self._progress.add_task("", total=None, visible=False)
        self._logged_at = time.monotonic()
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hide()

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` new tools are admitted."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, visible=True)
            if done >= total:
                self._hide()
            elif not self._shown:
                self._progress.start()
                self._shown = True
            return
        if time.monotonic() - self._logged_at >= _LOG_EVERY:
            self._logged_at = time.monotonic()
            log.info("admission.progress", done=done, total=total)

    def _hide(self) -> None:
        if self._progress is not None and self._shown:
            self._progress.stop()
            self._shown = False
