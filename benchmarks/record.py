"""What a soak saw, sample by sample; what of it is judged, and the judgement. Pure."""

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from io import StringIO
from typing import Any, NamedTuple, Self

from benchmarks.trend import Trend, Verdict, trend


@dataclass(frozen=True)
class Sample:
    """A moment. Memory in MiB without shared memory, latencies in milliseconds; None where nothing was asked."""

    at: float
    server: float
    zygotes: float
    workers: float
    postgres: float
    postgres_cache: float
    server_resident: float
    server_descriptors: int
    descriptors: int
    processes: int
    server_threads: int
    p50: float | None
    p99: float | None
    loop_lag: float | None
    told: float | None
    rate: float
    wrong: int
    sessions: int
    disk: float
    recorded: int
    server_cpu: float
    harness_cpu: float

    @property
    def tools(self) -> float:
        """What runs the tools: zygotes and workers."""
        return self.zygotes + self.workers


class Judged(NamedTuple):
    """Something that must not grow: by more than ``tolerance`` an hour, and by ``least`` while it was watched."""

    subject: str
    label: str
    attribute: str
    unit: str
    tolerance: float
    least: float


JUDGED = (
    Judged("memory", "server, resident", "server_resident", "MiB", 0.05, 2),
    Judged("memory", "zygotes and workers", "tools", "MiB", 0.05, 4),
    Judged("memory", "Postgres, no cache", "postgres", "MiB", 0.05, 2),
    Judged("descriptors", "server", "server_descriptors", "", 0.05, 2),
    Judged("descriptors", "all processes", "descriptors", "", 0.05, 4),
    Judged("processes", "all", "processes", "", 0.05, 1),
    Judged("processes", "threads of the server", "server_threads", "", 0.05, 1),
    Judged("latency", "p50", "p50", "ms", 0.2, 0.3),
    Judged("latency", "p99", "p99", "ms", 0.5, 2),
    Judged("latency", "/health, p50", "loop_lag", "ms", 0.2, 0.3),
)


@dataclass(frozen=True)
class Finding:
    """What a run says of one of them."""

    judged: Judged
    trend: Trend | None
    verdict: Verdict

    def told(self) -> dict[str, Any]:
        """For programs."""
        return self.judged._asdict() | {
            "verdict": self.verdict.value,
            "trend": asdict(self.trend) if self.trend else None,
        }


@dataclass
class Record:
    """A whole soak."""

    about: dict[str, str] = field(default_factory=dict)
    saturated: float = 0.0
    offered: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    edits: list[float] = field(default_factory=list)
    """Seconds of each save, on the samples' clock."""
    kinds: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        """The judgement, one for each of JUDGED."""
        times = [sample.at for sample in self.samples]
        found = []
        for judged in JUDGED:
            seen = trend(times, [getattr(sample, judged.attribute) for sample in self.samples])
            verdict = seen.judge(judged.tolerance, judged.least) if seen is not None else Verdict.SHORT
            found.append(Finding(judged, seen, verdict))
        return found

    @property
    def passed(self) -> bool:
        """Whether nothing grows and no answer was wrong."""
        return not self.wrong and all(finding.verdict is not Verdict.GROWS for finding in self.findings())

    def as_csv(self) -> str:
        """The samples."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(each.name for each in fields(Sample))
        writer.writerows(_rounded(sample) for sample in self.samples)
        return text.getvalue()

    def told(self) -> dict[str, Any]:
        """Everything, for programs; ``Record.read`` takes it back."""
        return asdict(self) | {"findings": [each.told() for each in self.findings()], "passed": self.passed}

    @classmethod
    def read(cls, told: dict[str, Any]) -> Self:
        """What ``told`` gave."""
        known = {each.name: told[each.name] for each in fields(cls)}
        return cls(**known | {"samples": [Sample(**each) for each in told["samples"]]})


def _rounded(sample: Sample) -> Iterator[object]:
    for value in asdict(sample).values():
        yield round(value, 3) if isinstance(value, float) else value
