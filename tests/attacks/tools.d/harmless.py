"""What everybody else does while there are attacks."""

from pathlib import Path

KEPT: list[str] = []


def harmless(n: int, word: str = "") -> dict[str, int]:
    """Adds one, and keeps a word in its memory and in its scratch folder."""
    if word:
        KEPT.append(word)
        Path("private.txt").write_text(word)
    ctx.info("adding")  # type: ignore[name-defined]  # noqa: F821
    return {"n": n + 1, "services": len(registry.services())}  # type: ignore[name-defined]  # noqa: F821
