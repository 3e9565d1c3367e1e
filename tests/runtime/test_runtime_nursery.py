"""A zygote that comes up with less than the first one, or runs out of something, does no harm."""

import errno
import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from runtime_bench import Bench, descendants, until

from portoser.catalog.errors import Unavailable
from portoser.runtime.isolation.enclosure import Enclosure, Orders
from portoser.runtime.nursery import Held, Nursery, Terms
from portoser.runtime.protocol import ZYGOTE_DECODER, Spawn, SpawnFailed
from portoser.runtime.scratch import Scratch
from portoser.runtime.zygote import Zygote


def nursery(tmp_path: Path, *without: str) -> tuple[Nursery, Held]:
    scratch, held = Scratch(tmp_path / "scratch"), Held()
    scratch.open()
    return Nursery("call", Terms(scratch, True, without, held)), held


async def test_a_later_zygote_must_have_what_the_first_one_had(tmp_path: Path) -> None:
    ours, held = nursery(tmp_path)
    held.layers = frozenset(("seccomp", "imagined"))
    try:
        with pytest.raises(Unavailable, match="by less than before: imagined: unknown"):
            await ours.start()
        assert not ours.alive
        held.layers = frozenset(("seccomp",))
        await ours.start()
        assert ours.alive
    finally:
        await ours.aclose()


async def test_where_a_later_zygote_finds_too_little_it_is_tried_again(tmp_path: Path) -> None:
    ours, held = nursery(tmp_path, "seccomp")
    held.layers = frozenset(("seccomp",))
    try:
        with pytest.raises(Unavailable, match="Tools cannot be isolated on this machine"):
            await ours.start()
    finally:
        await ours.aclose()


async def test_a_worker_whose_pidfd_does_not_arrive_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = nursery(tmp_path)
    await ours.start()
    before = descendants()
    receive = socket.recv_fds

    def without_room(*arguments: Any) -> Any:
        packet, descriptors, *rest = receive(*arguments)
        for descriptor in descriptors:
            os.close(descriptor)
        return packet, [], *rest

    monkeypatch.setattr(socket, "recv_fds", without_room)
    try:
        worker = await ours.spawn()
        await worker.gone()
        assert not worker.alive
        assert ours.alive
        assert ours.workers == 0
        await until(lambda: descendants() == before, "its process has ended")
    finally:
        await ours.aclose()


def test_a_zygote_without_room_for_descriptors_says_so_and_goes_on() -> None:
    server, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote = Zygote(control, Enclosure(Orders(isolate=False, scratch="")))
    with server, control:
        server.send(msgspec.msgpack.encode(Spawn(7, False, "", 0)))
        assert zygote._answer()
        failed = ZYGOTE_DECODER.decode(server.recv(4096))
    assert isinstance(failed, SpawnFailed)
    assert (failed.seq, "Too many open files" in failed.message) == (7, True)


async def test_a_worker_knows_nothing_of_how_it_was_started(bench: Bench) -> None:
    code = "import sys\ndef tool(): return {'argv': sys.argv, 'orig': sys.orig_argv}"
    assert (await bench.run(code)).structured == {"argv": [""], "orig": [""]}


async def test_what_is_not_counted_as_memory_is_bounded(bench: Bench) -> None:
    code = """
        import mmap, resource
        def tool():
            try:
                mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100)
            except OSError as error:
                return {"stack": resource.getrlimit(resource.RLIMIT_STACK), "refused": error.errno}
    """
    said = (await bench.run(code)).structured
    assert said["refused"] == errno.EPERM
    assert 0 < said["stack"][0] == said["stack"][1] <= 8 << 20
