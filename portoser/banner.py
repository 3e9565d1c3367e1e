"""What the server tells whoever starts it."""

from collections.abc import Sequence

from portoser import __version__
from portoser.api.services import Services
from portoser.settings import Sandbox, Settings


def banner(settings: Settings, services: Services, url: str, registry_problems: Sequence[str] = ()) -> str:
    """Where the server is, what it serves, and what is open: a few lines for a person at a terminal."""
    snapshot = services.follower.snapshot
    served = sum(1 for tool in snapshot.tools.values() if tool.enabled)
    database = f"embedded, in {settings.data_path}" if services.embedded_database else "as DATABASE_URL says"
    lines = [
        f"Portoser {__version__} serves {_count(served, 'tool')} of {settings.tools}",
        f"  SSE              {url}/mcp/sse",
        f"  Streamable HTTP  {url}/mcp",
        f"  REST             {url}/docs",
        f"  database         {database}",
    ]
    problems = services.reconciler.status.problems
    if problems:
        lines.append(f"  NOT SERVED AS COMMITTED: {_count(len(problems), 'problem')}; `portoser status` tells")
    if registry_problems:
        lines.append(
            f"  THE REGISTRY CANNOT BE READ: {_count(len(registry_problems), 'problem')}; `portoser doctor` tells. "
            f"First: {registry_problems[0]}"
        )
    if not settings.auth_enabled:
        lines.append("  AUTH IS OFF: everybody who reaches this address may do everything. See docs/identity.md")
    if settings.sandbox is Sandbox.OFF:
        lines.append(
            "  SANDBOX IS OFF: tools run in processes of their own, but with this user's rights on this machine"
        )
    else:
        off = [name for name, state in services.runtime.status().layers.items() if state.startswith("off")]
        without = f", without {', '.join(off)}: `portoser doctor` says why" if off else ""
        lines.insert(5, f"  sandbox          strict{without}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
