"""Runs a program once in the zygote, so that workers find first-use costs paid and their pages shared."""

import sys

import msgspec

from portoser.catalog.revision import SourceFile
from portoser.runtime.protocol import CallerView, CallFrame, Load, encode
from portoser.runtime.worker import main
from portoser.runtime.worker.hygiene import Hygiene
from portoser.runtime.worker.loader import Library

_SAMPLE = """
def sample(text: str, count: int = 1) -> dict[str, int]:
    return {text: count}
"""


def warm_worker() -> None:
    """The same in a worker that waits for its first call, in its folder; and look at what that has left."""
    warm_calls()
    Hygiene().is_dirty()


def warm_calls() -> None:
    """Load and run a sample program of our own, and take it out again."""
    frame = Load((SourceFile("portoser_sample.py", _SAMPLE),), "portoser_sample.py:sample", None, 1024, 1)
    program = main.load(frame)
    if not isinstance(program, main.Program):
        raise RuntimeError(program.message)
    call = CallFrame("sample", 0, {"text": "a"}, CallerView("", "", []), "")
    result = program.run(call)
    if result.reason is not None:
        raise RuntimeError(result.message)
    msgspec.msgpack.decode(encode(result)[5:])
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Library)]
    del sys.modules["portoser_sample"]
