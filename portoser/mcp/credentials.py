"""Streams that stand open end when their token is taken back, and not only when it expires."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import structlog
from starlette.types import Scope

from portoser.catalog.caller import Caller
from portoser.identity.authenticate import credential_of
from portoser.identity.tokens import TokenFile
from portoser.mcp.callers import same_principal

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 2.0
"""How often the token file is looked at while nobody asks anything."""


class _Stream:
    def __init__(self, credential: str, caller: Caller, end: Callable[[], None]) -> None:
        self.credential = credential
        self.caller = caller
        self.end = end


class OpenStreams:
    """What stands open, each with the credential that opened it. Without ``tokens`` nothing can be taken back."""

    def __init__(self, tokens: TokenFile | None, *, expiry_grace: float, look_seconds: float = LOOK_SECONDS) -> None:
        self._tokens = tokens
        self._expiry_grace = expiry_grace
        self._look_seconds = look_seconds
        self._streams: set[_Stream] = set()

    @contextmanager
    def ending(self, scope: Scope, caller: Caller, end: Callable[[], None]) -> Iterator[None]:
        """While in the block, call ``end`` once the token that came with the request is no longer good."""
        credential = credential_of(scope) if self._tokens is not None else None
        if credential is None:
            yield
            return
        stream = _Stream(credential, caller, end)
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)

    async def watch(self, on_change: Callable[[Callable[[Caller], Caller]], None]) -> None:
        """Look at the token file until cancelled; end what has to end.

        ``on_change`` is called when the file was read anew, with what tells a caller's present groups.
        """
        tokens = self._tokens
        if tokens is None:
            return
        seen = tokens.generation
        while True:
            await anyio.sleep(self._look_seconds)
            tokens.look()
            for stream in [stream for stream in self._streams if not self._is_good(tokens, stream)]:
                log.info("mcp.token_taken_back", subject=stream.caller.subject, client=stream.caller.client)
                self._streams.discard(stream)
                stream.end()
            if tokens.generation != seen:
                seen = tokens.generation
                on_change(tokens.present)

    def _is_good(self, tokens: TokenFile, stream: _Stream) -> bool:
        holder = tokens.holder(stream.credential)
        if holder is None or not same_principal(holder, stream.caller):
            return False
        return holder.expires_at is None or time.time() < holder.expires_at + self._expiry_grace
