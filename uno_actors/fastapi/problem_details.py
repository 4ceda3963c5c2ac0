"""Errors of path operations as problem details (RFC 9457), and the same in OpenAPI. See `uno_actors.problems`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import fastapi.routing
from fastapi import FastAPI, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse, Response

from uno_actors.errors import UnoError, describe, shown
from uno_actors.fastapi import dependencies
from uno_actors.fastapi.positions import IN_SCOPE
from uno_actors.logs import get_logger
from uno_actors.printable import bounded
from uno_actors.problems import LONGEST_DETAIL, MEDIA_TYPE, body_of, headers_of, problem_of

STATUSES = (409, 422, 503, 504)
"""What every path operation may answer that depends on the system; one that looks for an aggregate also 404."""

PLACE = "#/components/schemas/"

MOST_ERRORS = 100
"""Errors of one request that an answer lists."""

MOST_IN_DETAIL = 5
"""Errors that its ``detail`` repeats for people."""

SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "Problem details (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Names the kind of problem."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "idempotency_key": {
            "type": "string",
            "description": "Send the request again with this Idempotency-Key: it takes effect once.",
        },
        "errors": {
            "type": "array",
            "description": "What is wrong with the request.",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "detail": {"type": "string"},
                    "pointer": {"type": "string", "description": "Place in the body, as a JSON pointer."},
                    "parameter": {"type": "string"},
                    "in": {"type": "string", "enum": ["path", "query", "header", "cookie"]},
                },
            },
        },
    },
}


def add_problem_details(app: FastAPI, also: Mapping[type[Exception], int] | None = None) -> None:
    """Answer the errors of uno_actors, and requests that do not fit, with ``application/problem+json``.

    `uno_actors.problems` has the table of errors and answers. Errors that are not in it stay a 500. An exception
    handler of the application's own for one of these classes goes first. OpenAPI shows the answers at the path
    operations that depend on `System`, `aggregate` or `command`.

    Args:
        app: The application, before it starts. A mounted application needs the call for itself.
        also: Status codes for exceptions of your own. Their text is sent to the client.
    """
    app.exception_handlers.setdefault(UnoError, _answer)
    if app.exception_handlers.get(RequestValidationError) is request_validation_exception_handler:
        app.add_exception_handler(RequestValidationError, _answer_invalid)
    for kind, status in (also or {}).items():
        app.add_exception_handler(kind, _own(status))
    _show_in_openapi(app)


async def _answer(request: Request, error: Exception) -> Response:
    """The answer to an error of uno_actors.

    Raises:
        Exception: The error itself, where it is to become a 500 or the end of a websocket.
    """
    problem = problem_of(error)
    if problem is None or request.scope["type"] != "http":
        raise error
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        get_logger().warning(
            "request failed", method=request.method, path=request.url.path, error=describe(error)
        )
    key = request.scope.get(dependencies.KEY_IN_SCOPE)
    positions = request.scope.get(IN_SCOPE)
    recorded = {} if positions is None else positions.headers()
    return _problem(body_of(error, problem, key), headers_of(problem) | recorded)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    """The answer to a request that does not fit the path operation. It repeats no value of the request."""
    assert isinstance(error, RequestValidationError)
    found = [_place(each["loc"]) | {"detail": str(each["msg"])} for each in error.errors()[:MOST_ERRORS]]
    first = (
        f"{each.get('pointer') or each['parameter']}: {each['detail']}" for each in found[:MOST_IN_DETAIL]
    )
    return _problem(
        {
            "type": "urn:uno-actors:invalid-request",
            "title": "Invalid request",
            "status": 422,
            "detail": bounded("; ".join(first), LONGEST_DETAIL),
            "errors": found,
        }
    )


def _place(location: Iterable[str | int]) -> dict[str, str]:
    where, *path = location
    if where == "body":
        return {"pointer": "#" + "".join(f"/{_token(part)}" for part in path)}
    return {"in": str(where), "parameter": ".".join(map(str, path))}


def _token(part: str | int) -> str:
    """A token of a JSON pointer, as the fragment of a URI (RFC 6901)."""
    return quote(str(part).replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@")


def _own(status: int) -> Callable[[Request, Exception], Any]:
    async def answer(_: Request, error: Exception) -> Response:
        title = HTTPStatus(status).phrase
        detail = bounded(shown(error), LONGEST_DETAIL)
        return _problem({"type": "about:blank", "title": title, "status": status, "detail": detail})

    return answer


def _problem(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(body, body["status"], headers, MEDIA_TYPE)


# --- OpenAPI -----------------------------------------------------------------------------------------------


def _show_in_openapi(app: FastAPI) -> None:
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        replaced = ["HTTPValidationError", "ValidationError"]
        for route, operation in _operations(app, schema):
            calls = [*_calls(route.dependant)]
            _add_answers(operation, _statuses(calls))
            replaced += [call.command_type.__name__ for call in calls if hasattr(call, dependencies.COMMAND)]
        _without_unused(schema, replaced)
        schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = SCHEMA
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def _operations(app: FastAPI, schema: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each path operation that OpenAPI shows, with its description there."""
    nested = getattr(
        fastapi.routing, "iter_route_contexts", iter
    )  # later versions include routers as they are
    for route in nested(app.routes):
        paths = schema["paths"].get(getattr(route, "path_format", None), {})
        for method in getattr(route, "methods", None) or ():
            if method.lower() in paths and hasattr(route, "dependant"):
                yield route, paths[method.lower()]


def _statuses(calls: Sequence[Any]) -> tuple[int, ...]:
    if dependencies.needs_system not in calls:
        return ()
    may_be_missing = any(getattr(call, dependencies.MAY_BE_MISSING, False) for call in calls)
    return (404, *STATUSES) if may_be_missing else STATUSES


def _calls(dependant: Any) -> Iterator[Any]:
    """The functions that a path operation depends on, directly or not."""
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)


def _add_answers(operation: dict[str, Any], statuses: tuple[int, ...]) -> None:
    responses = operation.setdefault("responses", {})
    if "HTTPValidationError" in str(responses.get("422")):
        responses["422"] = _described(422)
    for status in statuses:
        responses.setdefault(str(status), _described(status))


def _without_unused(schema: dict[str, Any], names: Iterable[str]) -> None:
    """Remove the schemas of these names that nothing refers to any longer."""
    schemas = schema.get("components", {}).get("schemas", {})
    for name in names:
        content = schemas.pop(name, None)
        if content is not None and f"'{PLACE}{name}'" in str(schema):
            schemas[name] = content


def _described(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"{PLACE}Problem"}}},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        described["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        }
    return described
