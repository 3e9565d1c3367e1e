"""Static API tokens: a YAML file of names, hashes and groups. The tokens themselves are kept nowhere."""

import difflib
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import structlog
import yaml

from portoser.catalog.caller import Caller, CallerKind
from portoser.catalog.errors import PortoserError

log = structlog.get_logger(__name__)

PREFIX = "ptk_"

_KEYS = ("name", "hash", "groups", "subject", "expires")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_TOKEN = 512
_LONGEST_NAME = 128
_LARGEST_FILE = 4 * 1024 * 1024
_LOOK_SECONDS = 1.0
"""How often, at most, the file is looked at for changes."""


def new_token() -> tuple[str, str]:
    """A new token, for its holder, and its hash, for the token file."""
    token = PREFIX + secrets.token_urlsafe(32)
    return token, hash_of(token)


def hash_of(token: str) -> str:
    """What the token file holds of a token. Tokens are random, so a plain hash cannot be searched backwards."""
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'replace')).hexdigest()}"


class Expired(PortoserError):
    """The token was good once, and is no longer: ask for a new one."""


class TokenFile:
    """The tokens of a file, read anew when it changes. A change that cannot be read leaves the tokens as they were.

    Raises:
        PortoserError: the file cannot be read, or is wrong; the message names each entry and what is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = self._stamp_now()
        self._callers = _read(path)
        self._by_name = _by_name(self._callers)
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self.generation = 1
        """Counts how often the file was read, so that others notice a change."""

    def __len__(self) -> int:
        return len(self._callers)

    def verify(self, token: str) -> Caller | None:
        """The caller that holds ``token``, or None where nobody does.

        Raises:
            Expired: somebody held it, until a day that is past.
        """
        if time.monotonic() >= self._look_at:
            self.look()
        if not token or len(token) > _LONGEST_TOKEN:
            return None
        presented = hash_of(token)
        # The lookup compares hashes of what was presented: its timing tells nothing of any token.
        known = self._callers.get(presented)
        if known is None or not hmac.compare_digest(known[0], presented):
            return None
        caller = known[1]
        if caller.expires_at is not None and caller.expires_at <= time.time():
            raise Expired(f"The token {caller.client!r} has expired.")
        return caller

    def holder(self, digest: str) -> Caller | None:
        """The caller whose token has the hash ``digest``, by what was read last; expired or not."""
        known = self._callers.get(digest)
        return known[1] if known is not None else None

    def named(self, name: str) -> Caller | None:
        """The caller whose token, or who itself, is called ``name``."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        return next((caller for _, caller in self._callers.values() if caller.subject == name), None)

    def present(self, caller: Caller) -> Caller:
        """``caller`` with the groups that its token has now; as it is where its token is gone."""
        holder = self._by_name.get(caller.client)
        if holder is None or (holder.kind, holder.subject) != (caller.kind, caller.subject):
            return caller
        return msgspec.structs.replace(caller, groups=holder.groups, expires_at=holder.expires_at)

    def look(self) -> None:
        """Read the file again if it has changed. Requests do so by themselves, at most once a second."""
        self._look_at = time.monotonic() + _LOOK_SECONDS
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._callers = _read(self.path)
        except PortoserError as error:
            log.error("identity.token_file_refused", path=str(self.path), error=str(error), kept=len(self._callers))
        else:
            self._by_name = _by_name(self._callers)
            self.generation += 1
            log.info("identity.token_file_read", path=str(self.path), tokens=len(self._callers))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


_Known = Mapping[str, tuple[str, Caller]]


def _read(path: Path) -> _Known:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PortoserError(f"The token file {path} cannot be read: {error.strerror or error}.") from None
    if len(content) > _LARGEST_FILE:
        raise PortoserError(f"The token file {path} is larger than 4 MiB.")
    try:
        document = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a day that is none is a ValueError
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark is not None else ""
        raise PortoserError(f"The token file {path} is not valid YAML{place}.") from None
    if document is None:
        document = []
    if not isinstance(document, list):
        raise PortoserError(f"The token file {path} must hold a list of tokens, each with name, hash and groups.")
    problems = list(_problems(document))
    if problems:
        raise PortoserError("\n".join(f"{path}: {problem}" for problem in problems))
    return {entry["hash"]: (entry["hash"], _caller(entry)) for entry in document}


def _by_name(callers: _Known) -> dict[str | None, Caller]:
    return {caller.client: caller for _, caller in callers.values()}


def _problems(document: list[Any]) -> Iterator[str]:
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for number, entry in enumerate(document, 1):
        if not isinstance(entry, dict):
            yield f"entry {number}: must be a mapping with name, hash and groups."
            continue
        name = entry.get("name")
        label = (
            f"entry {number} ({name})" if isinstance(name, str) and not name.startswith(PREFIX) else f"entry {number}"
        )
        for problem in _entry_problems(entry):
            yield f"{label}: {problem}"
        for field, seen in (("name", names), ("hash", hashes)):
            value = entry.get(field)
            if isinstance(value, str) and seen.setdefault(value, number) != number:
                yield f"{label}: has the {field} of entry {seen[value]}; each token needs its own."


def _entry_problems(entry: dict[Any, Any]) -> Iterator[str]:
    for key in entry:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            yield f"unknown key {str(key)[:40]!r}." + (
                f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(_KEYS)}."
            )
    for key in ("name", "subject"):
        value = entry.get(key)
        if key == "subject" and value is None:
            continue
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
            yield f"{key} must be a text of 1 to {_LONGEST_NAME} printable characters."
    digest = entry.get("hash")
    if isinstance(digest, str) and digest.startswith(PREFIX):
        yield "hash holds a token itself. Put its hash there (portoser token new shows it), and replace the token."
    elif not isinstance(digest, str) or not _HASH.fullmatch(digest):
        yield "hash must be 'sha256:' and 64 hexadecimal digits; portoser token new makes one."
    groups = entry.get("groups", [])
    if not isinstance(groups, list) or not all(isinstance(group, str) and group for group in groups):
        yield "groups must be a list of names, for example [operator]."
    if "expires" in entry and _expiry(entry["expires"]) is None:
        yield "expires must be a day such as 2027-01-31, or a moment such as 2027-01-31T12:00:00Z."


def _expiry(value: object) -> float | None:
    """Seconds since the epoch. A day counts to its end, in UTC; a moment without a zone is UTC too."""
    try:
        if isinstance(value, str):
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, date):
            return (datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        return None
    return None


def _caller(entry: Mapping[str, Any]) -> Caller:
    return Caller(
        subject=entry.get("subject") or entry["name"],
        name=entry["name"],
        groups=frozenset(entry.get("groups", [])),
        client=entry["name"],
        kind=CallerKind.TOKEN,
        expires_at=_expiry(entry["expires"]) if "expires" in entry else None,
    )
