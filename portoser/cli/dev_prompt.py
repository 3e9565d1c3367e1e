"""The prompt of `portoser dev`: completion, a line of hints, and a history that outlives the session."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.styles import Style

from portoser.catalog.question import Answer, Question
from portoser.cli.dev_lines import candidates, hint
from portoser.cli.forms import filled

Schemas = Callable[[], Mapping[str, Mapping[str, Any]]]

_STYLE = Style.from_dict({"bottom-toolbar": "noreverse"})


class Prompt:
    """Reads lines at a terminal. What is printed meanwhile appears above the line that is being typed.

    ``schemas`` gives the input schemas of the tools as they are now, ``caller`` who calls.
    """

    def __init__(self, schemas: Schemas, caller: Callable[[], str]) -> None:
        self._schemas = schemas
        self._caller = caller
        self._session: PromptSession[str] = PromptSession(
            history=_history(),
            completer=_Tools(schemas),
            complete_while_typing=False,
            bottom_toolbar=self._hint if os.environ.get("TERM") != "dumb" else None,
            style=_STYLE,
            reserve_space_for_menu=6,
            enable_suspend=True,
        )

    async def read(self) -> str | None:
        """The next line, None where Ctrl-D ends them; Ctrl-C forgets the line."""
        while True:
            try:
                with patch_stdout(raw=True):
                    return await self._session.prompt_async(f"{self._caller()}> ", handle_sigint=False)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    def _hint(self) -> str:
        text = self._session.default_buffer.text
        told = hint(text, self._schemas()) or "TAB completes, 'help' tells the commands, Ctrl-D ends."
        width = self._session.output.get_size().columns - 1
        return told if len(told) <= width else f"{told[: width - 1]}…"


async def answers(question: Question) -> Answer:
    """Ask a person what a tool asks; Ctrl-D and Ctrl-C decline."""
    session: PromptSession[str] = PromptSession()
    filling = filled(question)
    shown = next(filling)
    while True:
        line: str | None
        try:
            with patch_stdout(raw=True):
                line = await session.prompt_async(shown, handle_sigint=False)
        except (KeyboardInterrupt, EOFError):
            line = None
        try:
            shown = filling.send(line)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


class _Tools(Completer):
    """Completes commands, tools, arguments and their values."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        start = len(text) - len(text.rsplit(" ", 1)[-1])
        for candidate in candidates(text, self._schemas()):
            end = " " if candidate.ends_word else ""
            yield Completion(candidate.text + end, start - len(text), candidate.text, display_meta=candidate.meaning)


def _history() -> History:
    """Lines of earlier sessions. They may hold arguments, so that only their owner may read the file."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        file = state / "portoser" / "dev-history"
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        with file.open("ab"):
            return FileHistory(file)
    except (OSError, RuntimeError):  # a user without a home is none of the system's errors
        return InMemoryHistory()
