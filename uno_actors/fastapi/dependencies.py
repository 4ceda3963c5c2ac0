"""What path operations depend on: the system, an aggregate, a command, and the key that makes requests repeatable."""

from typing import Annotated, Any, TypeVar

from fastapi import Body, Depends, Header, Path, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError
from starlette.requests import HTTPConnection

from uno_actors.aggregates.ref import AggregateRef
from uno_actors.causality import new_id
from uno_actors.domain.aggregate import AggregateRoot, check_is_aggregate
from uno_actors.domain.commands import Command
from uno_actors.errors import AggregateNotFound
from uno_actors.fastapi.positions import positions_of
from uno_actors.fastapi.system import System, needs_system

C = TypeVar("C", bound=Command[Any])

__all__ = ["IdempotencyKey", "System", "aggregate", "command", "needs_system"]

KEY_IN_SCOPE = "uno_actors.idempotency_key"
"""Where the key of a request is kept, for the answer to an error."""

LONGEST_KEY = 255

MAY_BE_MISSING = "may_be_missing"
"""Attribute of the dependencies that may end a request with 404."""

COMMAND = "command_type"
"""Attribute of the dependencies on a command: its class."""


async def _idempotency_key(
    connection: HTTPConnection,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=LONGEST_KEY,
            description="Names this request. Sent again with the same key and body, it takes effect once.",
        ),
    ] = None,
) -> str:
    key = new_id() if idempotency_key is None else _unquoted(idempotency_key)
    connection.scope[KEY_IN_SCOPE] = key
    return key


def _unquoted(text: str) -> str:
    """The key of a header, which may be a quoted string (RFC 9651) or the bare key: both name the same request.

    Raises:
        RequestValidationError: The quoted string is empty.
    """
    if len(text) < 2 or not text.startswith('"') or not text.endswith('"'):
        return text
    key = text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not key:
        place = ("header", "idempotency-key")
        raise RequestValidationError(
            [{"type": "empty", "loc": place, "msg": "The key is empty", "input": text}]
        )
    return key


IdempotencyKey = Annotated[str, Depends(_idempotency_key)]
"""The header ``Idempotency-Key``, or a new id. Make it the ``command_id``, so that the command takes effect once."""


def aggregate(aggregate_type: type[AggregateRoot], path: str = "id", *, must_exist: bool = False) -> Any:
    """The aggregate that a path parameter names, as a dependency.

    Write ``Annotated[AggregateRef, aggregate(Account)]``. The answer says in the header ``Uno-Position`` where the
    commands were recorded that were asked through it; see `wait_for`.

    Args:
        aggregate_type: Its class.
        path: Name of the path parameter.
        must_exist: Whether to answer 404 if no event of the aggregate is recorded, which takes one read of the store.
            Without it, the aggregate decides what a command to a new id means.

    Raises:
        InvalidAggregate: ``aggregate_type`` is not an aggregate class.
    """
    check_is_aggregate(aggregate_type)

    async def reference(
        system: System,
        aggregate_id: Annotated[str, Path(alias=path)],
        connection: HTTPConnection,
        response: Response,
    ) -> AggregateRef:
        found = system.aggregate(aggregate_type, aggregate_id)
        found.noting(positions_of(connection, response).note)
        if must_exist and await system.store.last_version(found.stream) == 0:
            raise AggregateNotFound(str(found.stream))
        return found

    setattr(reference, MAY_BE_MISSING, must_exist)
    return Depends(reference)


def command(command_type: type[C]) -> Any:
    """The command in the body of a request, as a dependency.

    Write ``Annotated[Deposit, command(Deposit)]``. The body has the fields of the command without the ids: the
    ``command_id`` is the `IdempotencyKey`. A body that does not fit is answered with 422.
    """
    body: Any = Annotated[
        command_type, BeforeValidator(_without_ids), _ShownWithoutIds(), Body(title=command_type.__name__)
    ]

    async def from_body(sent: body, key: IdempotencyKey) -> C:
        made: C = sent.model_copy(update={"command_id": key})
        return made

    setattr(from_body, COMMAND, command_type)
    return Depends(from_body)


IDS = frozenset(Command.model_fields)


def _without_ids(body: object) -> object:
    if isinstance(body, dict) and (given := IDS & body.keys()):
        raise PydanticCustomError(
            "ids_forbidden",
            "{names} cannot be in the body: send the header Idempotency-Key",
            {"names": ", ".join(sorted(given))},
        )
    return body


class _ShownWithoutIds:
    """Leaves the ids out of the schema of a command in OpenAPI."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        shown = dict(handler.resolve_ref_schema(handler(schema)))
        shown["properties"] = {
            name: each for name, each in shown.get("properties", {}).items() if name not in IDS
        }
        return shown
