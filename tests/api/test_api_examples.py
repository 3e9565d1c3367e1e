"""The examples of the OpenAPI document are what the server takes and answers."""

from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from live_server import LiveServer

from portoser.api.documents import EXAMPLES

METHODS = {"get", "put", "post", "delete"}


@pytest.fixture(scope="module")
def document(server: LiveServer) -> dict[str, Any]:
    return server.api("GET", "/openapi.json").json()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    return {
        operation["operationId"]: (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }


Operations = dict[str, tuple[str, str, dict[str, Any]]]


def shape(value: Any) -> Any:
    """What an answer is made of; lists by their first item."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(value[0])] if value else []
        case bool() | str():
            return type(value).__name__
        case int() | float():
            return "number"
    return None


def same(told: Any, found: Any) -> bool:
    """Whether two shapes agree: null and the empty list agree with whatever could stand there."""
    if isinstance(told, dict) and isinstance(found, dict):
        return told.keys() == found.keys() and all(same(told[key], found[key]) for key in told)
    if isinstance(told, list) and isinstance(found, list):
        return not (told and found) or same(told[0], found[0])
    return told is None or found is None or told == found


def test_the_requests_of_the_document_are_answered_as_it_says(server: LiveServer, operations: Operations) -> None:
    run = ""
    for example in EXAMPLES:
        method, path, _ = operations[example["operation"]]
        given = {**example["parameters"], **({"run_id": run} if "{run_id}" in path else {})}
        query = {name: value for name, value in given.items() if f"{{{name}}}" not in path}
        body = {} if example["body"] is None else {"json": example["body"]}
        answer = server.api(method.upper(), path.format(**given), params=query, **body)
        assert answer.status_code == example["status"], (example["name"], answer.text)
        for media_type, told in example["answers"].items():
            assert answer.headers["content-type"].startswith(media_type)
            if media_type == "application/json":
                assert same(shape(told), shape(answer.json())), (example["name"], answer.json())
        if example["operation"] == "list_sync_runs":
            run = answer.json()["runs"][0]["id"]


def test_every_operation_has_an_example_of_its_body_and_its_answers(operations: Operations) -> None:
    for name, (_, _, operation) in operations.items():
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                if media_type != "text/csv":
                    assert "example" in content or content.get("examples"), (name, status, media_type)
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            assert content.get("examples"), (name, media_type)
        required = [parameter for parameter in operation.get("parameters", ()) if parameter["required"]]
        assert all(parameter.get("examples") for parameter in required), name


def test_every_example_is_what_its_schema_says(document: dict[str, Any], operations: Operations) -> None:
    def check(content: dict[str, Any]) -> int:
        schema = {**content["schema"], "components": document["components"]}
        validator = Draft202012Validator(schema)
        values = [example["value"] for example in content.get("examples", {}).values()]
        values += [content["example"]] if "example" in content else []
        for value in values:
            validator.validate(value)
        return len(values)

    checked = 0
    for _, _, operation in operations.values():
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        contents = [content for part in parts for content in part.get("content", {}).values()]
        checked += sum(check(content) for content in [*contents, *operation.get("parameters", ())])
    assert checked > 150
