"""The picture of a soak, as an SVG that reads on light and on dark pages, and is the same for the same record."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.record import Record, Sample

_INK = "#808890"
"""Between black and white: seen on both."""

_BLUE, _ORANGE, _GREEN, _RED, _PURPLE = "#3b8eea", "#e0823d", "#3fa45b", "#e5534b", "#a371d9"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, sharp, searchable
    "svg.hashsalt": "portoser",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.3,
    "path.simplify_threshold": 0.2,
}
_WARM_UP = 1 / 3


def draw(record: Record, path: Path) -> None:
    """Write the picture of ``record`` to ``path``."""
    text = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 9.5), layout="constrained")
        memory, things, latency, traffic = figure.subplots(4, 1, sharex=True, height_ratios=(3, 2.4, 2.6, 2))
        _memory(memory, record.samples)
        _things(things, record.samples)
        _latency(latency, record.samples)
        _traffic(traffic, record)
        until = record.samples[-1].at / 60
        for axes in (memory, things, latency, traffic):
            axes.axvspan(0, until * _WARM_UP, color=_INK, alpha=0.08, linewidth=0)
            axes.set_xlim(0, until)
        where = memory.get_xaxis_transform()
        memory.text(
            until * _WARM_UP / 2, 0.97, "warming up, not judged", transform=where, ha="center", va="top", fontsize=8
        )
        traffic.set_xlabel("minutes")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    path.write_text("\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")


def _memory(axes: Axes, samples: Sequence[Sample]) -> None:
    axes.set_title("Memory, MiB (proportional set size)")
    _line(axes, samples, "server", _BLUE, "server")
    _line(axes, samples, "workers", _ORANGE, "workers")
    _line(axes, samples, "zygotes", _PURPLE, "zygotes")
    _line(axes, samples, "postgres", _GREEN, "Postgres")
    _line(axes, samples, "postgres_cache", _GREEN, "its cache, not judged", style=":")
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    _legend(axes)


def _things(axes: Axes, samples: Sequence[Sample]) -> None:
    axes.set_title("Descriptors and processes")
    _line(axes, samples, "descriptors", _ORANGE, "descriptors, all processes")
    _line(axes, samples, "server_descriptors", _BLUE, "descriptors, server")
    _line(axes, samples, "processes", _PURPLE, "processes")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _legend(axes)


def _latency(axes: Axes, samples: Sequence[Sample]) -> None:
    axes.set_title("Latency of calls, ms, from when they were due")
    _line(axes, samples, "p99", _RED, "p99")
    _line(axes, samples, "p50", _BLUE, "p50")
    _line(axes, samples, "loop_lag", _GREEN, "/health: the event loop", width=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    _legend(axes)


def _traffic(axes: Axes, record: Record) -> None:
    axes.set_title("Answers a second, and edits of a tool (ticks)")
    _line(axes, record.samples, "rate", _BLUE, "answers/s")
    top = 1.35 * max((sample.rate for sample in record.samples), default=1) or 1
    marks = [each for at in record.edits for each in (at / 60, at / 60, math.nan)]
    axes.plot(marks, [0, 0.06 * top, math.nan] * len(record.edits), color=_INK, linewidth=0.7, label="edit")
    wrong = [sample for sample in record.samples if sample.wrong]
    axes.plot(
        [each.at / 60 for each in wrong],
        [each.wrong for each in wrong],
        "x",
        color=_RED,
        label=f"wrong answers: {sum(record.wrong.values())}",
    )
    axes.set_ylim(0, top)
    _legend(axes)


def _line(
    axes: Axes,
    samples: Sequence[Sample],
    attribute: str,
    colour: str,
    label: str,
    *,
    style: str = "-",
    width: float = 1.3,
) -> None:
    points = [(sample.at / 60, getattr(sample, attribute)) for sample in samples]
    values = [math.nan if y is None else y for _, y in points]
    axes.plot([x for x, _ in points], values, style, color=colour, label=label, linewidth=width)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
