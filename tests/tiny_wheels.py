"""Wheels of a few lines, written by hand, in a folder that uv is told to look in: no registry is asked."""

import base64
import hashlib
import zipfile
from pathlib import Path


class TinyIndex:
    """A folder of wheels. ``environ`` is what an operator would set for it to be the only place to look in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def environ(self) -> dict[str, str]:
        return {"UV_FIND_LINKS": str(self.folder), "PIP_NO_INDEX": "1"}

    def add(self, name: str, version: str, *, needs: tuple[str, ...] = (), **modules: str) -> Path:
        """A wheel with these modules; without any, one that is named like the package and knows its version."""
        stem = name.replace("-", "_")
        files = {f"{module}.py": text for module, text in modules.items()} or {
            f"{stem}.py": f'VERSION = "{version}"\n\n\ndef twice(text: str) -> str:\n    return text * 2\n'
        }
        info = f"{stem}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files[f"{info}/METADATA"] = metadata + "".join(f"Requires-Dist: {each}\n" for each in needs)
        files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        record = "".join(f"{path},sha256={_hash(text)},{len(text.encode())}\n" for path, text in files.items())
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        wheel = self.folder / f"{stem}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        return wheel


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
