"""What a server's processes hold, by kind: memory, descriptors, threads. Read from /proc, so that it costs little."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import Server

KINDS = ("server", "zygotes", "workers", "postgres")


@dataclass(frozen=True)
class Holding:
    """What the processes of one kind hold together. Memory in MiB.

    ``private`` is the proportional set size without shared memory: Postgres's cache is shared memory that fills once
    and stays, which must not look like growth. ``shared`` is that share.
    """

    private: float = 0.0
    shared: float = 0.0
    resident: float = 0.0
    descriptors: int = 0
    processes: int = 0
    threads: int = 0


def holdings(server: Server) -> dict[str, Holding]:
    """What each kind of process holds now. A process that ends meanwhile counts as far as it was read."""
    tree, postgres = server.processes()
    main = tree[0].pid
    pids: dict[str, list[int]] = {kind: [] for kind in KINDS}
    pids["server"].append(main)
    pids["postgres"] += [each.pid for each in postgres]
    for process in tree[1:]:
        parent = _parent(process.pid)
        if parent is not None:
            pids["zygotes" if parent == main else "workers"].append(process.pid)
    return {kind: _held(each) for kind, each in pids.items()}


def size_on_disk(folder: Path) -> float:
    """MiB that the files below ``folder`` take."""
    return sum(_sizes(folder)) / 2**20


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                yield os.lstat(os.path.join(path, name)).st_blocks * 512  # noqa: PTH118 - of some thousand files


def _parent(pid: int) -> int | None:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _held(pids: list[int]) -> Holding:
    private = shared = resident = 0
    descriptors = processes = threads = 0
    for pid in pids:
        with suppress(OSError):
            rollup = _numbers(f"/proc/{pid}/smaps_rollup")
            shared += rollup.get("Pss_Shmem", 0)
            private += rollup["Pss"] - rollup.get("Pss_Shmem", 0)
            resident += rollup["Rss"]
            threads += _numbers(f"/proc/{pid}/status")["Threads"]
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - paths are not wanted
            processes += 1
    return Holding(private / 1024, shared / 1024, resident / 1024, descriptors, processes, threads)


def _numbers(path: str) -> dict[str, int]:
    """The lines ``Name:  number …`` of a file."""
    found = {}
    for line in Path(path).read_text().splitlines():
        name, _, rest = line.partition(":")
        first = rest.split(maxsplit=1)[:1]
        if first and first[0].isdecimal():
            found[name] = int(first[0])
    return found
