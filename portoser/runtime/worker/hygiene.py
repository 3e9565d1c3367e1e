"""Whether a call left something behind in its process that the next one would meet.

What a tool keeps in its own modules stays, for the same caller: a cache is no dirt. Neither is what it has imported,
nor what it told :mod:`logging`, and nothing that it registered with :mod:`atexit` ever runs. Looked at is what tools
change by accident most, and what the next call would suffer from most: the environment, streams, hooks, import paths,
the names of builtins, json and the powers, threads, descriptors, signals, timers, working directory, umask, the limits
of files. The look costs a few microseconds: it compares, by identity, what is there with what was there when the
program had been loaded, and asks the kernel some short questions. What it does not look at, such as other modules of
the standard library, stays for the same caller.

It finds accidents, and is no defence: code that wants to deceive it shares its process, and would find what it left
behind for its own caller alone.
"""

import _signal  # type: ignore[import-not-found]  # signal without its enums, which cost more than the rest
import _thread
import builtins
import gc
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from portoser import tool

_UMASK = 0o077
_TICK = 20_000_000
"""Nanoseconds within which two changes of a folder may have the same time."""
_SIGNALS = tuple(number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP))
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
_OBJECTS = (tool.ctx, tool.registry, tool.vault, tool.cluster, tool.http)
_WATCHED: tuple[Mapping[str, Any], ...] = (
    *(vars(module) for module in (builtins, json, tool)),
    *(vars(kind) for kind in sorted({*map(type, _OBJECTS), tool.Power}, key=id)),
    *(vars(each) for each in _OBJECTS),
)


class Hygiene:
    """What the process was like when its program had been loaded."""

    def __init__(self) -> None:
        self._names = tuple(dict(watched) for watched in _WATCHED)
        self._lists = sys.path, sys.meta_path, sys.path_hooks, gc.callbacks
        self._entries = tuple(list(each) for each in self._lists)
        self._environ = os.environ
        self._environment = dict(os.environ._data)  # type: ignore[attr-defined]
        self._interpreter = _interpreter()
        os.umask(_UMASK)
        self._process = _process()
        self._kept = frozenset(os.listdir("."))  # noqa: PTH208 - names are wanted
        self._folder = _state_of_folder()

    def is_dirty(self) -> bool:
        """Whether the process is not as it was. Files that were left in its folder are removed, and are no dirt."""
        try:
            return (
                self._names != _WATCHED
                or self._entries != self._lists
                or os.environ is not self._environ
                or self._environ._data != self._environment  # type: ignore[attr-defined]
                or _interpreter() != self._interpreter
                or _process() != self._process
                or not self._has_clean_folder()
            )
        except Exception:  # noqa: BLE001 - it asks what the tool may have replaced, which may raise anything
            return True

    def _has_clean_folder(self) -> bool:
        state = _state_of_folder()
        if state != self._folder or time.time_ns() - state[0] < _TICK:
            for name in set(os.listdir(".")) - self._kept:  # noqa: PTH208 - names are wanted
                if os.path.isdir(name) and not os.path.islink(name):  # noqa: PTH112, PTH114
                    shutil.rmtree(name)
                else:
                    os.unlink(name)  # noqa: PTH108
            self._folder = _state_of_folder()
        return True


def _interpreter() -> tuple[object, ...]:
    return (
        sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook,
        sys.modules, sys.gettrace(), sys.getprofile(), sys.getrecursionlimit(), sys.getswitchinterval(),
        _thread._count(), gc.isenabled(), gc.get_threshold(), gc.get_debug(),
    )  # fmt: skip


def _process() -> tuple[object, ...]:
    free = os.dup(0)
    os.close(free)
    return (
        free,
        os.umask(_UMASK),
        os.getcwd(),  # noqa: PTH109 - a path object costs more than all the rest
        _signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        [_signal.getsignal(number) for number in _SIGNALS],
        [_signal.getitimer(timer)[0] for timer in _TIMERS],
        [resource.getrlimit(limit) for limit in _LIMITS],
    )


def _state_of_folder() -> tuple[int, ...]:
    folder = os.stat(".")  # noqa: PTH116
    return folder.st_mtime_ns, folder.st_size, folder.st_nlink, folder.st_ino
