"""What Prometheus reads. Calls are counted as they end; everything else is looked up when it is asked for."""

import time
from collections.abc import Iterable
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
        self._calls = {outcome: calls.labels(outcome.value) for outcome in Outcome}
        self._durations = durations

    def observe_call(self, outcome: Outcome, seconds: float) -> None:
        """Count one call that ended."""
        self._calls[outcome].inc()
        self._durations.observe(seconds)

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
        services = self._services
        snapshot = services.follower.snapshot
        yield GaugeMetricFamily(
            "portoser_generation", "The generation of the registry that is served.", value=snapshot.generation
        )
        yield GaugeMetricFamily(
            "portoser_snapshot_age_seconds",
            "Since when nobody has confirmed that the served generation is the newest.",
            value=max(0.0, time.monotonic() - services.follower.last_read_at),
        )
        tools = GaugeMetricFamily("portoser_tools", "Living tools, by whether and how they stand.", labels=["status"])
        counts: dict[str, int] = {}
        disabled = 0
        for tool in snapshot.tools.values():
            counts[tool.registered.status.value] = counts.get(tool.registered.status.value, 0) + 1
            disabled += not tool.enabled
        for status, count in sorted(counts.items()):
            tools.add_metric([status], count)
        yield tools
        yield GaugeMetricFamily(
            "portoser_tools_disabled", "Living tools whose group is switched off.", value=disabled
        )
        status = services.runtime.status()
        workers = GaugeMetricFamily("portoser_workers", "Worker processes.", labels=["state"])
        workers.add_metric(["busy"], status.busy)
        workers.add_metric(["idle"], max(0, status.workers - status.busy))
        yield workers
        yield GaugeMetricFamily("portoser_calls_queued", "Calls that wait for a worker.", value=status.queued)
