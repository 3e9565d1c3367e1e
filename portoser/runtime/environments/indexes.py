"""Where packages come from: what the operator has told uv or pip of indexes, proxies and certificates.

uv is run with an environment of its own. It gets what is said here and nothing else of the server's, so that no
secret of the server reaches it. pip's words are translated where uv's say nothing: who has configured pip on a machine
has configured Portoser.
"""

import configparser
import os
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

_TAKEN = frozenset(
    (
        "UV_CONFIG_FILE",
        "UV_DEFAULT_INDEX",
        "UV_EXCLUDE_NEWER",
        "UV_EXTRA_INDEX_URL",
        "UV_FIND_LINKS",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INDEX",
        "UV_INDEX_STRATEGY",
        "UV_INDEX_URL",
        "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER",
        "UV_NATIVE_TLS",
        "UV_OFFLINE",
        "UV_PRERELEASE",
        "UV_SYSTEM_CERTS",
        "ALL_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "NETRC",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "SSL_CLIENT_CERT",
        "HOME",
        "XDG_CONFIG_HOME",
    )
)
_TAKEN_LIKE = re.compile(r"UV_INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)")
"""The credentials of named indexes."""

_OF_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
"""pip's options, and the variables by which uv is told the same."""

_WHERE = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")
"""Who has said one of these has told uv where to look, and pip's words do not count for that."""

_YES = frozenset(("1", "on", "true", "yes"))

_SECRET_IN_URL = re.compile(r"(?<=://)[^/\s@'\"`]+@")


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv is given: those of the operator's that are meant for it, and pip's in uv's words."""
    taken = {
        name: value
        for name, value in environ.items()
        if value and (name.upper() in _TAKEN or _TAKEN_LIKE.fullmatch(name))
    }
    told = {name.upper() for name in taken}
    knows_where = any(name in told for name in _WHERE) or config_file(environ) is not None
    for option, value in _pip_options(environ).items():
        variable = _OF_PIP[option]
        if variable in told or (knows_where and option == "index-url"):
            continue
        if option == "find-links":
            taken[variable] = ",".join(value.split())  # uv's form of a list
        else:
            taken[variable] = " ".join(value.split())
    return taken


def options(environ: Mapping[str, str]) -> list[str]:
    """The options of uv for what it takes from no variable: to look in no index, but where wheels lie."""
    said = environ.get("PIP_NO_INDEX") or _in_files(environ, ("no-index",)).get("no-index", "")
    return ["--no-index"] if said.lower() in _YES else []


def config_file(environ: Mapping[str, str]) -> Path | None:
    """The operator's own uv.toml. One in the working directory does not count: tools' repositories lie around there."""
    named = environ.get("UV_CONFIG_FILE")
    if named:
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else "")
    places = [Path(home, "uv/uv.toml")] if home else []
    return next((place for place in (*places, Path("/etc/uv/uv.toml")) if place.is_file()), None)


def _pip_options(environ: Mapping[str, str]) -> dict[str, str]:
    options = _in_files(environ, _OF_PIP)
    for option in _OF_PIP:
        value = environ.get("PIP_" + option.upper().replace("-", "_"))
        if value:
            options[option] = value
    return options


def _in_files(environ: Mapping[str, str], known: Container[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip says so itself to whoever uses it
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {name: value for name, value in parser.items(section) if name in known and value.strip()}
    return found


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """pip's configuration files, the one that counts most last."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    yield Path("/etc/pip.conf")
    home = environ.get("HOME")
    if home:
        yield Path(home, ".pip/pip.conf")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    if config:
        yield Path(config, "pip/pip.conf")
    if named:
        yield Path(named)


def secrets_in(given: Mapping[str, str]) -> frozenset[str]:
    """The secrets among variables: passwords, and what stands before the ``@`` of URLs."""
    found: set[str] = set()
    for name, value in given.items():
        if name.endswith("_PASSWORD"):
            found.add(value)
        for part in _SECRET_IN_URL.findall(value):
            found.update(word for word in part[:-1].split(":") if len(word) > 3)
    return frozenset(found)


def without_secrets(text: str, secrets: frozenset[str]) -> str:
    """A text that may be shown: without the credentials of URLs, and without ``secrets``."""
    text = _SECRET_IN_URL.sub("", text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "****")
    return text
