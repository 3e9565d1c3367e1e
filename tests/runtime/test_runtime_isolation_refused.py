"""Where too little isolation is to be had, no tool is run, and what is told says what to do."""

from pathlib import Path

import psutil
import pytest
from runtime_bench import Bench

from portoser.catalog.errors import PortoserError
from portoser.runtime import runtime as runtime_module
from portoser.runtime.isolation.layers import TESTING_VARIABLE, Layer, Layers, Name, probe
from portoser.runtime.runtime import Runtime


@pytest.mark.parametrize("off", ["seccomp", "namespaces,landlock"])
async def test_too_little_is_refused_with_what_is_missing(
    off: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TESTING_VARIABLE, off)
    runtime = Runtime(workers=1, scratch=tmp_path / "scratch")
    with pytest.raises(PortoserError) as refused:
        await runtime.start()
    await runtime.aclose()
    for told in ("Tools cannot be isolated on this machine", *off.split(","), "Linux 6.2", "PORTOSER_SANDBOX=off"):
        assert told in str(refused.value)
    assert not psutil.Process().children(recursive=True)
    assert probe().refusal == str(refused.value)


@pytest.mark.parametrize(("version", "namespaces", "enough"), [(2, False, False), (3, False, True), (1, True, True)])
def test_landlock_alone_must_keep_files_from_being_cut(version: int, namespaces: bool, enough: bool) -> None:
    holding = {Name.SECCOMP: True, Name.NAMESPACES: namespaces, Name.LANDLOCK: True}
    layers = Layers({name: Layer(holds, "as tried") for name, holds in holding.items()}, landlock=version)
    assert (layers.refusal is None) == enough
    if layers.refusal is not None:
        assert "namespaces: as tried; landlock: version 2 lets files be cut" in layers.refusal
        assert "Linux 6.2" in layers.refusal


async def test_another_system_is_told_what_runs_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "IS_LINUX", False)
    with pytest.raises(PortoserError, match="Tools run on Linux alone"):
        Runtime(workers=1, scratch=tmp_path).begin()


async def test_without_a_sandbox_it_says_so(tmp_path: Path) -> None:
    runtime = Runtime(workers=1, scratch=tmp_path, sandbox="off")
    await runtime.start()
    try:
        layers = runtime.status().layers
        assert {layers[name] for name in ("namespaces", "landlock", "seccomp")} == {"off: PORTOSER_SANDBOX=off"}
        assert (await Bench(runtime).run("import socket\ndef tool(): socket.socket()")).outcome == "ok"
    finally:
        await runtime.aclose()


def test_what_a_container_has_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    if probe().refusal is not None:
        pytest.skip(str(probe().refusal))
    monkeypatch.setenv(TESTING_VARIABLE, "namespaces, uid")
    layers = probe()
    assert layers.refusal is None
    assert layers.words["namespaces"] == f"off: {TESTING_VARIABLE} leaves it out"
    assert layers.words["uid"].startswith("off: ")
    assert layers.words["landlock"].startswith("on: version ")
