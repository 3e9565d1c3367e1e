"""The terminal recording in the README: what its commands really print. ``make recording`` writes it anew."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from e2e_server import Server, new_folder, new_home

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- Made by `make recording`; a test plays it again. -->\n```console\n", "```\n"

GREET = '''\
def greet(name: str, loud: bool = False) -> str:
    """Greet somebody by name."""
    text = f"Hello, {name}!"
    return text.upper() if loud else text
'''
STEPS = (
    "portoser call examples.hello name=Ada",
    "portoser call greet name=Ada loud=true",
    'git add tools.d && git commit -qm "A greeting"',
    "echo 'def greet(name: str)' > tools.d/greet.py    # a slip of the hand",
    "portoser tool show greet | head -4",
    "portoser call greet name=Ada",
    "git checkout -q tools.d",
    "portoser history -n 4",
    "portoser audit tail -n 3",
)
SAVES = ("git add", "echo", "git checkout")
"""Steps that the server notices by itself; the recording waits until it did."""


def record(server: Server) -> str:
    """Plays the steps in the server's folder, and returns each with what it printed."""
    server.write("greet.py", GREET)
    server.write("greet.yaml", "kind: Tool\n")
    _runs(server, more_than=1)
    lines: list[str] = []
    for step in STEPS:
        before = _runs(server)
        said = _run(server, step)
        lines += [f"$ {step}", *said.rstrip("\n").split("\n")] if said else [f"$ {step}"]
        if step.startswith(SAVES):
            _runs(server, more_than=before)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def recorded() -> str:
    """What the README shows."""
    return README.read_text(encoding="utf-8").split(BEGIN, 1)[1].split(END, 1)[0]


def told_apart(text: str) -> str:
    """The recording without what differs each time: times, durations, commits, ids, and the width of columns."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "TIME", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID", text)
    text = re.sub(r"\b[0-9a-f]{10,40}\b", "COMMIT", text)
    text = re.sub(r"\d+(\.\d+)? ms", "N ms", text)
    return re.sub(r" +", " ", text)


def _run(server: Server, step: str) -> str:
    env = {
        **server.env,
        "PORTOSER_URL": server.url,
        "COLUMNS": "100",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **{f"GIT_{who}_{what}": told for who in ("AUTHOR", "COMMITTER") for what, told in _ADA.items()},
    }
    done = subprocess.run(
        ["bash", "-c", step],
        cwd=server.home,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (step, done.stdout)
    return done.stdout


_ADA = {"NAME": "Ada", "EMAIL": "ada@example.com"}


def _runs(server: Server, *, more_than: int = 0) -> int:
    """How many sync runs changed something; waits until there are more than so many."""
    deadline = time.monotonic() + 20
    while True:
        total = int(server.api("GET", "/api/mcp/sync/runs", params={"limit": 1}).json()["total"])
        if total > more_than:
            return total
        assert time.monotonic() < deadline, "the server did not notice a saved file"
        time.sleep(0.05)


if __name__ == "__main__":
    with new_folder() as folder:
        server = Server(new_home(folder / "home"))
        server.start()
        try:
            before, _, after = README.read_text(encoding="utf-8").partition(BEGIN)
            text = record(server)
            README.write_text(f"{before}{BEGIN}{text}{END}{after.split(END, 1)[1]}", encoding="utf-8")
        finally:
            server.stop()
