"""Asking the user behind an MCP client: how depends on the era that the client speaks."""

from typing import Any, Final

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    CallToolRequestParams,
    ClientCapabilities,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError
from starlette.requests import Request

from portoser.catalog.question import Action, Answer, Question
from portoser.invocation import CallResult
from portoser.invocation.asks import Asks, CannotAsk, Later, Live, Nobody

LEFT: Final = "portoser.left"
"""The key of a request's scope under which an event is set once the request's answer can no more be read."""

_HELP: Final = (
    "MCP clients that declare the elicitation capability can; so can `portoser call`, and REST's "
    "POST /api/mcp/tools/{name}/call."
)


def asks_of(ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> Asks:
    """How the user behind a call can be asked."""
    if not _shows_forms(ctx.session.client_capabilities):
        client = ctx.session.client_params
        name = f" ({client.client_info.name})" if client is not None else ""
        return Nobody(f"The client of this call{name} cannot ask its user. {_HELP}")
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return Live(_Session(ctx).ask)
    answers = {
        key: Answer(Action(given.action), given.content)
        for key, given in (params.input_responses or {}).items()
        if isinstance(given, ElicitResult)
    }
    return Later(state=params.request_state, answers=answers)


def wire_questions(result: CallResult) -> dict[str, Any]:
    """The wire form of a call that asks before it goes on, on 2026-07-28."""
    requests = {
        key: {
            "method": "elicitation/create",
            "params": {"mode": "form", "message": question.message, "requestedSchema": question.schema},
        }
        for key, question in (result.questions or {}).items()
    }
    return {"resultType": "input_required", "inputRequests": requests, "requestState": result.state}


class _Session:
    """A client of the handshake era, asked while its call waits."""

    def __init__(self, ctx: ServerRequestContext[Any, Any]) -> None:
        self._ctx = ctx

    async def ask(self, question: Question) -> Answer:
        """Put a question; it ends with the answer, or when the client has left.

        Raises:
            CannotAsk: there is no answer.
        """
        answers: list[Answer] = []
        left = self._left()
        async with anyio.create_task_group() as group:

            async def watch(event: anyio.Event) -> None:
                await event.wait()
                group.cancel_scope.cancel()

            if left is not None:
                group.start_soon(watch, left)
            try:
                answers.append(await self._elicit(question))
            except _NoAnswer as error:
                problem = str(error)
            else:
                problem = ""
            group.cancel_scope.cancel()
        if answers:
            return answers[0]
        raise CannotAsk(problem or "The client has left, and nobody can be asked any more.")

    async def _elicit(self, question: Question) -> Answer:
        params = ElicitRequestFormParams(message=question.message, requested_schema=question.schema)
        try:
            result = await self._ctx.session.send_request(
                ElicitRequest(params=params),
                ElicitResult,
                metadata=ServerMessageMetadata(related_request_id=self._ctx.request_id),
            )
        except NoBackChannelError:
            raise _NoAnswer(f"This client's connection takes no questions. {_HELP}") from None
        except MCPError as error:
            raise _NoAnswer(f"The client did not put the question to its user: {error.error.message[:300]}") from None
        except ValidationError:
            raise _NoAnswer("The client's answer to the question is none that MCP knows.") from None
        return Answer(Action(result.action), result.content)

    def _left(self) -> anyio.Event | None:
        request = self._ctx.request
        return request.scope.get(LEFT) if isinstance(request, Request) else None


class _NoAnswer(Exception):
    """There is no answer; the message says why."""


def _shows_forms(capabilities: ClientCapabilities | None) -> bool:
    """Whether a client shows forms to its user. One that names no mode shows forms: there was no other at first."""
    elicitation = capabilities.elicitation if capabilities is not None else None
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)
