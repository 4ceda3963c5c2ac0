"""The description of the API by OpenAPI 3.1, made from the table of endpoints."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from uno_actors.ops.api.endpoint import Asked, Endpoint
from uno_actors.ops.api.table import ENDPOINTS

PROBLEM = {
    "type": "object",
    "description": "Why there is no answer, by RFC 9457.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
STATUSES = {
    "401": "Log in first, or send a token.",
    "403": "The request comes from another site, or lacks the header `X-Uno-Actors`.",
    "404": "There is nothing of this name.",
    "409": "It cannot be shown or done here.",
    "422": "The request is wrong.",
    "503": "Not now.",
}


def description() -> dict[str, Any]:
    """The whole description."""
    models = {each for endpoint in ENDPOINTS for each in (endpoint.asked, endpoint.answered)}
    ordered = sorted(models, key=lambda model: (model.__name__, model.__module__))
    references, definitions = models_json_schema(
        [(model, "serialization") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    schemas = {model: references[model, "serialization"] for model in ordered}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "uno_actors: live page",
            "version": version("uno-actors"),
            "description": "What the live page of a system shows, and what it can request.",
        },
        "paths": _paths(schemas, definitions.get("$defs", {})),
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Problem": PROBLEM},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "uno-actors-…"},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _paths(schemas: Mapping[type, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        operation = _operation(endpoint, schemas, definitions)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
        if endpoint.every is not None:
            paths[f"{endpoint.path}/events"] = {"get": _stream(endpoint, operation)}
    paths["/api/recording"] = {"get": _RECORDING}
    return paths


def _operation(
    endpoint: Endpoint, schemas: Mapping[type, Any], definitions: Mapping[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.path.removeprefix("/api/").replace("/", "_").replace("-", "_"),
        "summary": endpoint.summary,
        "description": (endpoint.call.__doc__ or "").strip(),
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {"application/json": {"schema": schemas[endpoint.answered]}},
            },
            **{status: _problem(why) for status, why in STATUSES.items()},
        },
    }
    if endpoint.method == "GET":
        operation["parameters"] = _parameters(endpoint.asked, definitions)
    else:
        operation["parameters"] = [
            {
                "name": "X-Uno-Actors",
                "in": "header",
                "required": True,
                "description": "Any value: a form of another site cannot send it.",
                "schema": {"type": "string"},
            }
        ]
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[endpoint.asked]}},
        }
    return operation


def _problem(why: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": why, "content": {"application/problem+json": {"schema": schema}}}


_RECORDING = {
    "operationId": "recording",
    "summary": "The latest steps of all processes, as a file",
    "description": "JSON lines for `uno-actors recording FILE`: ids, names of types and times, no payloads.",
    "responses": {
        "200": {
            "description": "The file.",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **{status: _problem(STATUSES[status]) for status in ("401", "404", "503")},
    },
}


def _parameters(asked: type[Asked], definitions: Mapping[str, Any]) -> list[dict[str, Any]]:
    schema = definitions[asked.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": {key: value for key, value in each.items() if key != "title"},
        }
        for name, each in schema.get("properties", {}).items()
    ]


def _stream(endpoint: Endpoint, operation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "operationId": f"{operation['operationId']}_events",
        "summary": f"{endpoint.summary}, as server-sent events",
        "description": (
            f"The same answer as `{endpoint.path}`, now and each time it has changed: a server-sent event whose data"
            f" is the JSON. It is looked at every {endpoint.every:g} s."
        ),
        "parameters": operation["parameters"],
        "responses": {
            "200": {
                "description": "The stream.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **{status: operation["responses"][status] for status in ("401", "422", "503")},
        },
    }
