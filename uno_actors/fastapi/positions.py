"""Read your own writes over HTTP: the header ``Uno-Position`` says where a request was recorded.

The answer to a request with commands has it. A client that sends it with a later request reads no view that does not
show yet what it has recorded.
"""

from typing import Annotated, Any

from fastapi import Depends, Header, Response
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

from uno_actors.aggregates.envelope import CommandReply
from uno_actors.errors import EventSetAside, InvalidPosition
from uno_actors.fastapi.system import System
from uno_actors.position_tokens import MOST_TOKENS
from uno_actors.quantities import check_duration

POSITION = "Uno-Position"
"""Name of the header."""

IN_SCOPE = "uno_actors.positions"
"""Where the positions of a request are kept, for the answer to an error."""


class Positions:
    """The places in which one request has recorded events: one for each aggregate.

    Args:
        response: Gets the header.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self._tokens: dict[str, tuple[int, str]] = {}

    def note(self, reply: CommandReply[Any]) -> None:
        """Note where a command was recorded. With too many places the answer has no header, as it would be too long."""
        position, token = reply.position, reply.token
        if position is None or token is None:
            return
        name = str(reply.stream)
        if name not in self._tokens or self._tokens[name][0] < position:
            self._tokens[name] = position, token
            del self._response.headers[POSITION]
            for key, value in self.headers().items():
                self._response.headers[key] = value

    def headers(self) -> dict[str, str]:
        """The header with all places; nothing without any."""
        if not 0 < len(self._tokens) <= MOST_TOKENS:
            return {}
        return {POSITION: ", ".join(token for _, token in sorted(self._tokens.values()))}


def positions_of(connection: HTTPConnection, response: Response) -> Positions:
    """The positions of one request, made with the first aggregate that it depends on."""
    found = connection.scope.get(IN_SCOPE)
    if found is None:
        found = connection.scope[IN_SCOPE] = Positions(response)
    positions: Positions = found
    return positions


def wait_for(*handlers: object, timeout: float = 5.0) -> Any:
    """Wait until views show what the client has recorded, as a dependency of a path operation that reads them.

    Write ``@app.get("/orders", dependencies=[wait_for(Orders)])``. A request without the header ``Uno-Position`` waits
    for nothing. A header that is not from this store is answered with 422, and a view that does not come so far in time
    with 504. An event that the handler has among its dead letters is not waited for: it is not shown before an operator
    has it tried again.

    Args:
        *handlers: Projections and other handlers, as ``wait_for`` of `AggregateRef.ask`.
        timeout: Maximum wait, in seconds.

    Raises:
        InvalidNumber: ``timeout`` is not a number of seconds.
    """
    check_duration("timeout", timeout, zero=True)

    async def until_shown(
        connection: HTTPConnection,
        system: System,
        uno_position: Annotated[
            str | None,
            Header(
                description="Where an earlier request was recorded, by its answer: what it recorded is shown."
            ),
        ] = None,
    ) -> None:
        if uno_position is None:
            return
        token = ", ".join(connection.headers.getlist(POSITION))
        try:
            await system.wait_for(handlers, token, timeout)
        except InvalidPosition as error:
            place = ("header", POSITION.lower())
            raise RequestValidationError(
                [{"type": "position", "loc": place, "msg": str(error), "input": token}]
            ) from error
        except EventSetAside:
            return

    return Depends(until_shown)
