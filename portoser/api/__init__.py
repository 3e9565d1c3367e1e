"""The REST interface: one router for each subject, over the same rooms that MCP clients reach.

Routes translate and nothing more: who may call what is decided in `registry.access`, a changed tool goes
through `admission` and one transaction of `registry.changes`, and a call is an `invocation`. Every error
is a problem document.
"""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import Lifespan

from portoser.api import audit, calls, config, groups, health, reference, sync, tools, versions
from portoser.api.context import bind
from portoser.api.documents import complete
from portoser.api.problems import add_problem_handlers
from portoser.api.services import Services

DESCRIPTION = """\
A GitOps registry of MCP tools. Errors are `application/problem+json` with everything that is wrong in `errors`;
lists take `skip` and `limit` and return `total`, the audit log takes a `cursor` instead. Bodies are JSON of 1.5 MiB at
most. What answers GET answers HEAD too. `?groups=a,b` narrows any request to the tools of these groups.
"""

TAGS = [
    {"name": "tools", "description": "What is registered; adding, changing and deleting tools that git does not own."},
    {"name": "calls", "description": "Calling tools, and why a caller may or may not."},
    {"name": "groups", "description": "What is switched on and off together."},
    {"name": "audit", "description": "Who did what, from which commit, with what result."},
    {"name": "sync", "description": "How the registry stands to its source, and the runs that brought it there."},
    {"name": "connect", "description": "How clients connect, and who the server takes them for."},
    {"name": "server", "description": "Whether the server lives, is ready, and how it fares."},
]


class _Api(FastAPI):
    auth_enabled = False

    def openapi(self) -> dict[str, Any]:
        """FastAPI's document, with what it cannot know: refusals, examples, and how one signs in."""
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi(), auth_enabled=self.auth_enabled)
        return self.openapi_schema


def api_router(services: Services) -> APIRouter:
    """Every route of REST, at work with ``services``."""
    services.metrics.watch(services)
    router = APIRouter(dependencies=[Depends(bind(services))])
    for subject in (health, config, tools, versions, calls, groups, audit, sync):
        router.include_router(subject.router)
    return router


def build_api(services: Services, *, lifespan: Lifespan[Any] | None = None) -> FastAPI:
    """The FastAPI application of REST: routes, problem documents, OpenAPI at ``/openapi.json`` and ``/docs``.

    It expects a caller in each request's scope, as `identity.middleware` puts it there.
    """
    app = _Api(
        title="Portoser",
        version=services.version,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.auth_enabled = services.auth_enabled
    add_problem_handlers(app)
    app.include_router(api_router(services))
    app.include_router(reference.router)
    return app
