"""Attacks on later calls: each leaves something behind, and looks for it when it is called again.

``keeps: yes`` says that a worker that is used again may keep it, for the same caller of the same tool.
"""

import _thread
import atexit
import builtins
import contextlib
import gc
import json
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pydantic
from portoser import tool
from trying import Tries

MARK = "left by an attack"
_kept: list[str] = []


def _told(found: Any) -> dict[str, Any]:
    return {"got": [str(found)[:160]] if found else []}


def environment(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves environment variables."""
    if look:
        return _told([name for name, value in os.environ.items() if value == MARK])
    os.environ["ATTACK"] = os.environ["PYTHONPATH"] = MARK
    return _told(None)


def working_folder(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves another working folder and another umask."""
    if look:
        mask = os.umask(0o077)
        return _told([os.getcwd()] if os.getcwd() in ("/", "/usr") or mask == 0 else None)
    os.umask(0)
    with contextlib.suppress(OSError):
        os.chdir("/")
    return _told(None)


def builtin_names(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Replaces built-in functions."""
    if look:
        return _told(isinstance(builtins.len, types.FunctionType) or hasattr(builtins, "attack"))
    real = builtins.len
    builtins.len = lambda value: real(value)  # type: ignore[assignment]
    builtins.attack = MARK  # type: ignore[attr-defined]
    return _told(None)


def signal_handlers(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves handlers of signals, and a blocked mask."""
    if look:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
        return _told(signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None) or blocked)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    return _told(None)


def timers(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves an alarm clock that would end the process in a later call.

    keeps: yes
    """
    if look:
        return _told(signal.getitimer(signal.ITIMER_REAL)[0])
    signal.setitimer(signal.ITIMER_REAL, 3600)
    return _told(None)


def modules(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Replaces functions of modules that others use.

    keeps: yes
    """
    if look:
        return _told(json.dumps([1]) == MARK or "attack_module" in sys.modules)
    json.dumps = lambda *_, **__: MARK  # type: ignore[assignment]
    sys.modules["attack_module"] = types.ModuleType("attack_module")
    return _told(None)


def import_path(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves a folder and a finder of its own where modules are looked for."""
    if look:
        return _told([path for path in sys.path if MARK in path])
    sys.path.insert(0, f"/{MARK}")
    sys.path_hooks.insert(0, lambda path: None)
    return _told(None)


def exit_functions(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves functions that run at the end, and whenever garbage is collected.

    keeps: yes
    """
    if look:
        return _told([each for each in gc.callbacks if getattr(each, "__name__", "") == "attack"])

    def attack(*_: Any) -> None:
        print(MARK)

    atexit.register(attack)
    gc.callbacks.append(attack)
    return _told(None)


def threads(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves a thread that listens, prints and computes on."""
    if look:
        return _told([each.name for each in threading.enumerate() if each.name == MARK])
    threading.Thread(target=time.sleep, args=(3600,), name=MARK, daemon=True).start()
    return _told(None)


def hidden_threads(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves a thread that Python's list of threads does not know."""
    if look:
        return _told(_thread._count() > 0)

    _thread.start_new_thread(time.sleep, (3600,))
    time.sleep(0.01)
    return _told(None)


def files(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves files in its scratch folder.

    keeps: yes
    """
    if look:
        return _told([str(path) for path in Path().rglob("*") if MARK in path.name])
    Path(MARK).write_text(MARK)
    Path(f".{MARK}").mkdir(exist_ok=True)
    return _told(None)


def descriptors(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves open files, pipes and sockets.

    keeps: yes
    """
    if look:
        return _told([number for number in range(40, 60) if _is_open(number)])
    for number, descriptor in enumerate((*os.pipe(), *[each.detach() for each in socket.socketpair()])):
        os.dup2(descriptor, 50 + number)
    return _told(None)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def interpreter_switches(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves other settings of the interpreter: recursion, switching, tracing, digits, garbage.

    keeps: yes
    """
    if look:
        return _told(sys.getrecursionlimit() == 77777 or not gc.isenabled())
    sys.setrecursionlimit(77777)
    sys.setswitchinterval(10)
    gc.disable()
    return _told(None)


def library_settings(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves other settings of libraries: random numbers, warnings, logging, sockets, locale.

    keeps: yes
    """
    if look:
        return _told(socket.getdefaulttimeout() == 77 or logging.getLogger().name == MARK or None)
    random.seed(0)
    warnings.simplefilter("error")
    logging.getLogger().name = MARK
    socket.setdefaulttimeout(77)
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "C")
    return _told(None)


def lower_limits(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Lowers its limits, so that the next call has less than is promised.

    keeps: yes
    """
    if look:
        return _told(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 17)
    resource.setrlimit(resource.RLIMIT_NOFILE, (17, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return _told(None)


def own_globals(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Keeps what it was told in globals of its own module.

    keeps: yes
    """
    if look:
        return _told(_kept)
    _kept.append(MARK)
    return _told(None)


def powers_replaced(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Replaces what the next call is handed: ctx, registry, ToolError.

    keeps: yes
    """
    if look:
        return _told(tool.registry == MARK or getattr(tool.Context, "attack", None))
    tool.registry = MARK  # type: ignore[assignment]
    tool.Context.attack = MARK  # type: ignore[attr-defined]
    tool.ToolError.__str__ = lambda self: MARK  # type: ignore[method-assign]
    return _told(None)


def lies_about_results(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Replaces what turns results into answers, so that the next call's answer is a lie.

    keeps: yes
    """
    if look:
        return _told(None)  # what comes of it is a lie, where there is one
    from portoser.runtime import protocol
    from portoser.runtime.worker import main, results

    def lie(value: Any, **_: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return [{"type": "text", "text": MARK}], {"got": [MARK]}

    results.convert = lie  # type: ignore[assignment]
    main.results.convert = lie  # type: ignore[assignment]
    with contextlib.suppress(AttributeError, TypeError):
        pydantic.TypeAdapter.dump_python = lambda *_, **__: {"got": [MARK]}  # type: ignore[method-assign]
        protocol.encode_value = lambda value: msgspec.msgpack.encode({"got": [MARK]})  # type: ignore[assignment]
    return {"got": []}


def listening_hooks(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves hooks that hear what the next call does: audit hooks, profilers, import hooks.

    keeps: yes
    """
    if look:
        return _told([each for each in _kept if each.startswith("heard")])
    sys.addaudithook(lambda event, _: _kept.append(f"heard {event}") if len(_kept) < 50 else None)
    return _told(None)


def standard_streams(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Replaces the streams that the next call prints to.

    keeps: yes
    """
    if look:
        return _told(type(sys.stdout).__name__ == "StringIO")
    import io

    sys.stdout = io.StringIO()
    return _told(None)


def event_loop_tasks(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Leaves tasks and callbacks on the event loop."""
    import asyncio

    async def later() -> None:
        while True:
            await asyncio.sleep(0.001)
            _kept.append("heard a later call")

    async def begin() -> None:
        asyncio.get_running_loop().create_task(later())

    if look:
        return _told([each for each in _kept if each.startswith("heard")])
    with contextlib.suppress(RuntimeError):
        asyncio.new_event_loop().run_until_complete(begin())
    _kept.clear()
    return _told(None)


def memory_kept(target: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Keeps most of its memory, so that the next call has none.

    keeps: yes
    limits: {memory: 64MiB}
    """
    if look:
        tries = Tries()
        try:
            bytearray(40 << 20)
        except MemoryError:
            tries.got.append("the next call has no memory")
        return tries.told()
    _kept.append("x" * (40 << 20))
    return _told(None)
