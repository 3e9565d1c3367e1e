"""The page at ``/docs``: the OpenAPI document to read and to try out, by Swagger UI, from this server alone."""

from importlib import resources

from fastapi import APIRouter
from starlette.responses import Response

from portoser.api.problems import Refused
from portoser.api.route import BoundedRoute

router = APIRouter(include_in_schema=False, route_class=BoundedRoute)

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Portoser: REST</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="reference"><noscript>This page needs JavaScript; /openapi.json is the same for programs.</noscript></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({url: "/openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: null,
  displayRequestDuration: true, tryItOutEnabled: true});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_KINDS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


@router.get("/docs")
async def page() -> Response:
    """The page itself; all that it loads comes from here."""
    return Response(_PAGE, media_type="text/html", headers=_HEADERS)


@router.get("/docs/start.js")
async def start() -> Response:
    """What the page begins with; a file of its own, as the policy lets no script stand in the page."""
    return Response(_START, media_type="text/javascript", headers=_HEADERS)


@router.get("/docs/{asset}")
def asset(asset: str) -> Response:
    """A file of Swagger UI, as its package brings it."""
    if asset not in _KINDS:
        raise Refused(404, f"There is nothing at /docs/{asset}.", code="not_found")
    content = resources.files("fastapi_standalone_docs").joinpath("static", "swagger", asset).read_bytes()
    return Response(content, media_type=_KINDS[asset], headers={**_HEADERS, "Cache-Control": "max-age=86400"})
