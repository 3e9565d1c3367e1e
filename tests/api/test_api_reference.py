"""The page at /docs reads the OpenAPI document with nothing but what this server has."""

import re

import pytest
from live_server import Guarded, LiveServer


def test_all_that_the_page_loads_comes_from_here(server: LiveServer) -> None:
    page = server.api("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in re.sub(r"<!doctype.*?>", "", page.text)
    loaded = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(loaded) == 3
    for path in loaded:
        asset = server.api("GET", path)
        assert asset.status_code == 200
        kind = "text/css" if path.endswith(".css") else "text/javascript"
        assert asset.headers["content-type"].startswith(kind)
        assert asset.headers["x-content-type-options"] == "nosniff"
    assert "SwaggerUIBundle(" in server.api("GET", "/docs/start.js").text
    assert '"/openapi.json"' in server.api("GET", "/docs/start.js").text


def test_who_asks_for_nothing_is_told_where_all_is(server: LiveServer) -> None:
    assert "/docs" in server.api("GET", "/").json()["detail"]
    assert server.api("HEAD", "/docs").status_code == 200


def test_the_page_may_load_and_run_nothing_else(server: LiveServer) -> None:
    page = server.api("GET", "/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script>|\son\w+=|style=", page.text)


@pytest.mark.parametrize("path", ["/docs/nothing.js", "/docs/swagger-ui.css.map", "/redoc", "/docs/"])
def test_nothing_else_is_served_beside_it(server: LiveServer, path: str) -> None:
    assert server.api("GET", path).status_code in {404, 307}


def test_a_stranger_may_read_it_where_auth_is_on_and_is_told_how_to_sign_in(guarded: Guarded) -> None:
    assert guarded.server.api("GET", "/docs").status_code == 200
    document = guarded.server.api("GET", "/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/health"]["get"]["security"] == []
    assert guarded.server.api("GET", "/docs", headers={"Host": "evil.example"}).status_code == 421


def test_where_auth_is_off_nothing_asks_for_a_token(server: LiveServer) -> None:
    document = server.api("GET", "/openapi.json").json()
    assert "security" not in document
