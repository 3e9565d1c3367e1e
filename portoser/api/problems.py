"""Every error as application/problem+json (RFC 9457), with a list of what is wrong and what would be right."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from portoser.catalog.errors import Conflict, Denied, Invalid, NotFound, PortoserError, Problem, Unavailable

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


class Refused(PortoserError):
    """An answer that is no success, with the status it goes out by.

    ``code`` is a word for programs; ``extra`` are members of the problem document besides RFC 9457's.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        errors: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})
        super().__init__(message)


def problem_response(
    status: int,
    detail: str,
    *,
    code: str,
    instance: str = "",
    errors: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """A problem document. ``errors`` is always there; it is empty where ``detail`` says it all."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": detail,
        "code": code,
        **({"instance": instance} if instance else {}),
        "errors": [problem_item(problem) for problem in errors],
        **(extra or {}),
    }
    return Response(msgspec.json.encode(body), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error by a problem document."""
    app.add_exception_handler(PortoserError, _portoser_error)
    app.add_exception_handler(RequestValidationError, _request_invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _portoser_error(request: Request, error: Exception) -> Response:
    path = request.url.path
    match error:
        case Refused():
            return problem_response(
                error.status,
                str(error),
                code=error.code,
                instance=path,
                errors=error.errors,
                headers=error.headers,
                extra=error.extra,
            )
        case Invalid():
            errors = [problem for problem in error.problems if problem.is_error]
            detail = f"What was sent cannot be taken: {len(errors)} problems."
            if len(errors) == 1:
                detail = str(errors[0])
            return problem_response(422, detail, code="invalid", instance=path, errors=error.problems)
        case Denied():
            return problem_response(403, str(error), code="forbidden", instance=path)
        case NotFound():
            return problem_response(404, str(error), code="not_found", instance=path)
        case Conflict():
            return problem_response(409, str(error), code="conflict", instance=path)
        case Unavailable():
            headers = {"Retry-After": str(max(1, round(error.retry_after)))}
            return problem_response(503, str(error), code="unavailable", instance=path, headers=headers)
        case _:
            return await _unexpected(request, error)


async def _request_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - Starlette dispatches by type
    problems = [_from_pydantic(detail) for detail in error.errors()]
    detail = str(problems[0]) if len(problems) == 1 else f"The request has {len(problems)} problems."
    return problem_response(422, detail, code="invalid_request", instance=request.url.path, errors=problems)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette dispatches by type
    detail, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND and detail == "Not Found":
        detail = f"There is nothing at {request.url.path}."
        if request.url.path == "/":
            detail += " MCP is at /mcp and /mcp/sse, REST is told at /docs."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods_at(request))
        detail = f"{request.url.path} does not take {request.method}; it takes {allowed}."
        headers["Allow"] = allowed
    code = _title(error.status_code).lower().replace(" ", "_")
    return problem_response(error.status_code, detail, code=code, instance=request.url.path, headers=headers)


def _methods_at(request: Request) -> list[str]:
    """Every method that some route takes at this address; the route that answered knows only its own."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.router.routes
        )
    ]


async def _unexpected(request: Request, error: Exception) -> Response:
    # The traceback goes to the log, by the server that runs this; nothing of it to the client.
    log.error("request_failed", path=request.url.path, method=request.method, error=type(error).__name__)
    return problem_response(
        500,
        "Something went wrong on the server's side; its log says what.",
        code="internal_error",
        instance=request.url.path,
    )


def problem_item(problem: Problem) -> dict[str, Any]:
    """A problem as REST tells it."""
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "advice": problem.advice,
        "severity": problem.severity.value,
        "tool": problem.tool,
    }


def _from_pydantic(detail: Mapping[str, Any]) -> Problem:
    location = [str(part) for part in detail.get("loc", ())]
    if location[:1] in (["body"], ["query"], ["path"], ["header"]) and len(location) > 1:
        location = location[1:]
    told = _WORDS.get(str(detail.get("type")), str(detail.get("msg", "")))
    message = told.removeprefix("Value error, ").rstrip(".")
    return Problem(path=".".join(location), message=f"{message}.")


_WORDS = {"missing": "This is missing", "extra_forbidden": "This is not known here"}
"""What we say where pydantic has words of its own trade."""

_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's names where Python's older versions have older ones."""


def _title(status: int) -> str:
    if status in _TITLES:
        return _TITLES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
