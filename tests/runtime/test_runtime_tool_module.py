"""``portoser.tool`` outside Portoser: importable anywhere, and clear about what needs Portoser."""

import asyncio
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from portoser.tool import Audio, EmbeddedResource, Image, PowerError, ctx, registry, vault

ROOT = Path(__file__).parents[2]


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1]); import portoser.tool; "
        "print([m for m in sys.modules if 'site-packages' in str(getattr(sys.modules[m], '__file__', ''))])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_a_power_says_that_it_needs_portoser() -> None:
    with pytest.raises(PowerError, match=r"registry\.services\(\) is answered by Portoser"):
        registry.services()
    with pytest.raises(PowerError, match=r"vault\.get_secret\(\)"):
        vault.get_secret("x")
    with pytest.raises(TypeError, match="cannot be copied"):
        pickle.dumps(vault)


def test_ctx_logs_to_logging_and_has_an_anonymous_caller(caplog: pytest.LogCaptureFixture) -> None:
    async def tool() -> None:
        await ctx.warning("careful", why="test")
        await ctx.report_progress(1, 2)

    with caplog.at_level(logging.DEBUG, "portoser.tool"):
        asyncio.run(tool())
    assert caplog.messages == ["careful {'why': 'test'}"]
    assert ctx.caller.subject == "anonymous"
    assert ctx.request_id == ""


def test_media_take_either_a_path_or_data(tmp_path: Path) -> None:
    (tmp_path / "a.jpeg").write_bytes(b"x")
    assert Image(tmp_path / "a.jpeg").to_block() == {"type": "image", "data": "eA==", "mimeType": "image/jpeg"}
    assert Audio(data=b"x", format="ogg").to_block()["mimeType"] == "audio/ogg"
    block = Image(data=b"x", annotations={"audience": ["user"]}).to_block()
    assert block["annotations"] == {"audience": ["user"]}
    for wrong in ({}, {"path": "a", "data": b"x"}):
        with pytest.raises(ValueError, match="either a path or data"):
            Image(**wrong)
    with pytest.raises(ValueError, match="either text or data"):
        EmbeddedResource("a")
