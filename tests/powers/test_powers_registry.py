"""The registry power, over real files."""

import os
from pathlib import Path
from typing import Any

import pytest

from portoser.catalog.caller import ANONYMOUS
from portoser.catalog.errors import PowerError
from portoser.powers.base import PowerContext, Use
from portoser.powers.registry import EXAMPLE, RegistryPower, RegistryProblems, read_registry

CONTEXT = PowerContext(tool="t", owner="git:main", caller=ANONYMOUS)


async def ask(power: RegistryPower, method: str, *args: Any, **kwargs: Any) -> Any:
    return await power.call(method, list(args), kwargs, Use(power, CONTEXT))


async def test_the_shipped_example_is_served_and_sound() -> None:
    power = RegistryPower()
    services = await ask(power, "services")
    assert [service["name"] for service in services] == ["web", "api", "keycloak", "postgres", "embeddings"]
    assert (await ask(power, "service", "web"))["port"] == 8080
    machines = await ask(power, "machines")
    assert machines[0]["services"] == ["web", "api"]
    assert await ask(power, "read", "services.web.port") == 8080
    assert await ask(power, "read", path="services.api.depends_on.1") == "keycloak"
    assert set(await ask(power, "read")) == {"hosts", "services"}
    assert read_registry(EXAMPLE).services == services


@pytest.mark.parametrize(
    ("method", "args", "message"),
    [
        ("service", ["wbe"], "There is no service 'wbe' in the registry. Did you mean 'web'?"),
        ("service", [], "wrong arguments: missing a required argument: 'name'"),
        ("services", [1], "wrong arguments"),
        ("servces", [], "Did you mean services?"),
        ("read", ["services.web.prot"], "no entry 'prot' in services.web. Did you mean 'port'?"),
        ("read", [5], "takes a dotted path"),
        ("read", ["." * 1_000_000], "has 1,000,000 characters; at most 1,000 are read"),
        ("read", ["services.web.port.x"], "no entry 'x' in services.web.port"),
        ("_current", [], "has no function"),
    ],
)
async def test_wrong_questions_are_told_what_would_be_right(method: str, args: list[Any], message: str) -> None:
    with pytest.raises(PowerError) as raised:
        await ask(RegistryPower(), method, *args)
    assert message in str(raised.value)


async def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "registry.yml"
    path.write_text("hosts: {a: {address: 10.0.0.1}}\nservices: {web: {host: a, since: 2026-01-02}}\n")
    power = RegistryPower(path)
    assert await ask(power, "services") == [{"name": "web", "host": "a", "since": "2026-01-02"}]
    path.write_text("services: {web: {host: b}}\n")
    with pytest.raises(PowerError, match=r"services\.web\.host: There is no host 'b'"):
        await ask(power, "services")
    path.write_text("")
    os.utime(path, ns=(1, 1))
    assert await ask(power, "services") == []
    path.unlink()
    with pytest.raises(PowerError, match=r"registry\.yml cannot be read: No such file"):
        await ask(power, "services")


async def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.yml"
    path.write_text("""
hosts:
  alpha: {address: 5}
  beta: [1]
  7: {address: x}
services:
  web: {host: alhpa, port: 70000}
  api: {port: 80}
""")
    with pytest.raises(PowerError) as raised:
        await ask(RegistryPower(path), "services")
    for problem in (
        "registry.yml:3:20: hosts.alpha.address: 5 is not text. Write for example: address: 10.0.0.11",
        "registry.yml:4:3: hosts.beta: must be a mapping",
        "registry.yml:5:3: hosts: the name 7 must be text; write it in quotes",
        "registry.yml:7:15: services.web.host: There is no host 'alhpa' in hosts. Did you mean 'alpha'?",
        "registry.yml:7:28: services.web.port: 70000 is not a port; ports are 1 to 65535",
        "registry.yml:8:3: services.api.host: is missing. Write for example: host: alpha",
    ):
        assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n- [", "registry.yml:3:1: This is not YAML: did not find expected node content."),
        ("- 1", "registry.yml:1:1: It must hold the sections hosts and services"),
        ("hosts: 5", "registry.yml:1:1: hosts: must be a mapping of names"),
        ("a: 1\na: 2", "registry.yml:2:1: This is not YAML: the key 'a' stands there twice; keep one of them."),
        ("\x00", "registry.yml: This is not YAML"),
        (
            "hosts: !!python/object:os.system {}",
            "registry.yml:1:8: This is not YAML: could not determine a constructor",
        ),
        ("hots: {a: {address: x}}", "registry.yml:1:1: 'hots' is not known. Did you mean 'hosts'?"),
    ],
)
async def test_what_is_no_registry_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "registry.yml"
    path.write_text(text)
    with pytest.raises(RegistryProblems) as raised:
        await ask(RegistryPower(path), "services")
    assert message in str(raised.value)
    assert len(raised.value.problems) == 1
