"""Every attack, as its tool's file declares it: a function whose docstring says what is tried.

Lines ``key: value`` of a docstring say what is not as usual:

* ``ends``: the words one of which the call must end with: ``ok``, or a reason of the runtime's; by default ``ok``, with
  nothing in the result's ``got``;
* ``limits``: as in a manifest;
* ``keeps: yes``: a reused worker may keep what the attack leaves, for the same caller of the same tool;
* ``real``: what the attack comes to without a sandbox, where that is neither a result that got something nor what
  ``ends`` says: a reason, or ``no`` where it needs more than this machine has;
* ``harmless: no``: it is not tried without a sandbox;
* ``where``: the only kind of machine that it runs on;
* ``open in PROFILE, PROFILE``: why it is not contained there.
"""

import ast
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TOOLS = Path(__file__).parent / "tools.d"
SUBJECTS = {
    "files": "Files of the host",
    "processes": "Processes and programs",
    "kernel": "The kernel's doors",
    "network": "Sockets",
    "resources": "Memory, disk, time and output",
    "protocol": "The channel and the powers",
    "results": "Exceptions and results",
    "left_behind": "What is left for later calls",
}
SHARED = "trying.py"


class Attack(NamedTuple):
    """One attack. ``open`` says for which profiles it is not contained, and why."""

    subject: str
    function: str
    tried: str
    ends: tuple[str, ...]
    limits: str
    keeps: bool
    looks: bool
    real: str
    harmless: bool
    where: str
    open: dict[str, str]

    @property
    def name(self) -> str:
        """The tool's name; the one that has a new worker for each call adds ``.fresh``."""
        return f"{self.subject}.{self.function}"

    @property
    def file(self) -> str:
        return f"{self.subject}.py"


def attacks_of(subject: str) -> list[Attack]:
    """The attacks of one file, in its order. The file is read, never run."""
    body = ast.parse((TOOLS / f"{subject}.py").read_text(encoding="utf-8")).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [_attack(subject, node) for node in functions if not node.name.startswith("_")]


def _attack(subject: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Attack:
    text = ast.get_docstring(node)
    assert text is not None, f"{subject}.{node.name} does not say what it tries"
    tried, _, rest = text.partition("\n\n")
    keys = {key: value for key, _, value in (line.partition(": ") for line in rest.splitlines() if line)}
    opened = {key: keys.pop(key) for key in list(keys) if key.startswith("open in ")}
    attack = Attack(
        subject=subject,
        function=node.name,
        tried=" ".join(tried.split()),
        ends=tuple(word.strip() for word in keys.pop("ends", "ok").split(",")),
        limits=keys.pop("limits", ""),
        keeps=keys.pop("keeps", "no") == "yes",
        looks="look" in [argument.arg for argument in node.args.args],
        real=keys.pop("real", ""),
        harmless=keys.pop("harmless", "yes") != "no",
        where=keys.pop("where", ""),
        open={
            profile.strip(): why for key, why in opened.items() for profile in key.removeprefix("open in ").split(",")
        },
    )
    assert not keys, f"{attack.name}: {keys}"
    return attack


EVERY = [attack for subject in SUBJECTS for attack in attacks_of(subject)]
ATTACKS = [attack for attack in EVERY if attack.where in ("", os.uname().machine)]
"""Those that run on a machine like this one."""


def manifests(attacks: Iterable[Attack] = ATTACKS) -> dict[str, str]:
    """What stands in the attacked server's ``tools.d``: paths and texts."""
    files = {path.name: path.read_text(encoding="utf-8") for path in TOOLS.glob("*.py")}
    files["harmless.yaml"] = "kind: Tool\npermissions: [admins]\nannotations: {readOnly: true}\n"
    for function in ("stubborn", "fills"):
        files[f"{function}.yaml"] = (
            f"kind: Tool\npermissions: [admins]\nfiles: [{SHARED}, stubborn.py]\n"
            f"entrypoint: stubborn.py:{function}\nlimits: {{timeout: 100s}}\n"
        )
    for attack in attacks:
        files[f"{attack.name}.yaml"] = "---\n".join(
            f"kind: Tool\nname: {attack.name}{suffix}\nentrypoint: {attack.file}:{attack.function}\n"
            f"files: [{SHARED}, {attack.file}]\npermissions: [admins]\nisolation: {isolation}\n"
            f"limits: {attack.limits or '{timeout: 20s}'}\n"
            for isolation, suffix in (("reuse", ""), ("fresh", ".fresh"))
        )
    return files
