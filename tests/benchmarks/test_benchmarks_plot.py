import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from benchmarks.plot import draw
from benchmarks.record import Record, Sample
from benchmarks.trend import Verdict


def recorded(*, leak: float = 0.0) -> Record:
    """Half an hour as a soak records it; ``leak`` is what the server gains, in MiB an hour."""
    samples = []
    for number in range(1, 361):
        at, wave = 5.0 * number, math.sin(number)
        samples.append(
            Sample(
                at=at,
                server=150.0,
                zygotes=70.0,
                workers=310 + 5 * wave,
                postgres=35.0,
                postgres_cache=min(128.0, 30 + at / 20),
                server_resident=200 + leak * at / 3600 + wave,
                server_descriptors=290,
                descriptors=1100 + number % 7,
                processes=80 + number % 3,
                server_threads=7,
                p50=None if number == 200 else 6 + wave,
                p99=None if number == 200 else 40 + 10 * wave,
                loop_lag=1.2,
                told=90.0,
                rate=150.0 + wave,
                wrong=0,
                sessions=48,
                disk=100 + at / 10,
                recorded=150 * number,
                server_cpu=80.0,
                harness_cpu=9.0,
            )
        )
    return Record({"commit": "abc"}, 300.0, 150.0, samples, [6.0 * n for n in range(290)], {"add": 50_000})


def verdicts(record: Record) -> dict[str, Verdict]:
    return {finding.judged.attribute: finding.verdict for finding in record.findings()}


def test_a_steady_run_passes_though_postgres_fills_its_cache() -> None:
    record = recorded()
    assert verdicts(record)["server_resident"] is Verdict.STEADY
    assert Verdict.GROWS not in verdicts(record).values()
    assert record.passed


def test_a_leak_of_the_server_is_told_as_that_alone() -> None:
    record = recorded(leak=40)
    found = verdicts(record)
    assert found.pop("server_resident") is Verdict.GROWS
    assert Verdict.GROWS not in found.values()
    assert not record.passed


def test_one_wrong_answer_fails_a_run() -> None:
    assert not replace(recorded(), wrong={"add, SSE: WrongAnswer: 5 is not 4": 1}).passed


def test_a_record_survives_its_json_and_its_csv_has_a_line_for_each_sample() -> None:
    record = recorded()
    told = json.loads(json.dumps(record.told()))
    assert told["passed"] is True
    assert Record.read(told) == record
    rows = list(csv.DictReader(io.StringIO(record.as_csv())))
    assert len(rows) == 360
    assert (rows[-1]["at"], rows[199]["p50"], rows[-1]["server_descriptors"]) == ("1800.0", "", "290")


def test_the_picture_is_small_reads_on_any_page_and_is_the_same_again(tmp_path: Path) -> None:
    record = recorded()
    for name in ("a.svg", "b.svg"):
        draw(record, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert len(text) < 150_000
    words = " ".join(ET.fromstring(text).itertext())
    for word in ("Memory", "workers", "Descriptors", "p99", "edit", "wrong answers: 0", "warming up", "minutes"):
        assert word in words
    painted = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text))
    assert painted
    for colour in painted - {"#000000", "#ffffff"}:  # of defaults that nothing uses
        channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        light = sum(weight * channel for weight, channel in zip((0.2126, 0.7152, 0.0722), channels, strict=True))
        assert 0.25 < light < 0.75, colour


def test_a_run_that_ended_at_once_can_be_drawn(tmp_path: Path) -> None:
    record = recorded()
    record.samples, record.edits = record.samples[:1], []
    draw(record, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 1000
    assert {finding.verdict for finding in record.findings()} == {Verdict.SHORT}
