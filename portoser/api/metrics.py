"""What Prometheus reads. Calls are counted as they end; everything else is looked up when it is asked for."""

import time
from collections import Counter as tally  # noqa: N813 - Prometheus has a Counter of its own
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from portoser.audit.entry import Outcome

if TYPE_CHECKING:
    from portoser.api.services import Services

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        calls = Counter(
            "portoser_tool_calls", "Calls of tools, by how they ended.", ["outcome"], registry=self._registry
        )
        durations = Histogram(
            "portoser_tool_call_duration_seconds",
            "How long calls took, from the request to the recorded outcome.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        # Looking a child up by its label costs more than counting; there are few outcomes.
        self._uses = Counter(
            "portoser_power_uses",
            "What running tools asked of powers, by power and by what came of it: ok, refused or failed.",
            ["power", "outcome"],
            registry=self._registry,
        )
        self._calls = {outcome: calls.labels(outcome.value) for outcome in Outcome}
        self._durations = durations

    def observe_call(self, outcome: Outcome, seconds: float) -> None:
        """Count one call that ended."""
        self._calls[outcome].inc()
        self._durations.observe(seconds)

    def observe_power(self, power: str, outcome: str) -> None:
        """Count one use of a power."""
        self._uses.labels(power, outcome).inc()

    def watch(self, services: "Services") -> None:
        """Tell of the parts of a server, too, whenever somebody asks."""
        self._registry.register(_Parts(services))

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Parts(Collector):
    def __init__(self, services: "Services") -> None:
        self._services = services

    def describe(self) -> Iterable[Metric]:
        # Nothing to check for duplicates: asking the parts would need them started.
        return ()

    def collect(self) -> Iterable[Metric]:
        yield from self._registry()
        yield from self._workers()
        yield from self._source()
        yield from self._audit()

    def _registry(self) -> Iterable[Metric]:
        follower = self._services.follower
        snapshot = follower.snapshot
        yield _gauge("generation", "The generation of the registry that is served.", snapshot.generation)
        yield _gauge(
            "snapshot_age_seconds",
            "Since when nobody has confirmed that the served generation is the newest.",
            max(0.0, time.monotonic() - follower.last_read_at),
        )
        standing = tally(tool.registered.status.value for tool in snapshot.tools.values())
        yield _gauges("tools", "Living tools, by how they stand to what is declared.", "status", standing)
        off = sum(1 for tool in snapshot.tools.values() if not tool.enabled)
        yield _gauge("tools_switched_off", "Living tools whose group is switched off.", off)

    def _workers(self) -> Iterable[Metric]:
        status = self._services.runtime.status()
        states = {"busy": status.busy, "idle": max(0, status.workers - status.busy)}
        yield _gauges("workers", "Worker processes.", "state", states)
        yield _gauge("calls_queued", "Calls that wait for a worker.", status.queued)

    def _source(self) -> Iterable[Metric]:
        status = self._services.reconciler.status
        phases = {phase.value: int(phase is status.phase) for phase in type(status.phase)}
        yield _gauges("source_phase", "1 for the phase that the source is in.", "phase", phases)
        yield _gauge("source_problems", "Problems that hold something of the source back.", status.problem_count)
        yield _gauge("source_failures", "Sync runs that failed since the last one that did not.", status.failures)
        if status.last_run is not None:
            ended = status.last_run.finished_at.timestamp()
            yield _gauge("source_last_run_timestamp_seconds", "When the last sync run ended.", ended)

    def _audit(self) -> Iterable[Metric]:
        status = self._services.audit_writer.status
        yield _gauge("audit_available", "Whether the audit log can be written.", int(status.available))
        yield _gauge("audit_waiting", "Entries that somebody waits for to be written.", status.waiting)
        yield _gauge("audit_owed", "Entries that are kept until the database is back.", status.owed)


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"portoser_{name}", help_text, value=value)


def _gauges(name: str, help_text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"portoser_{name}", help_text, labels=[label])
    for word, value in sorted(values.items()):
        family.add_metric([word], value)
    return family
