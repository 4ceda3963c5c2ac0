"""An application that the tests start in real servers. Environment variables say which system it has."""

import os
from typing import Annotated

from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response

from tests.web.theatre import CountSeats, SellSeats, Theatre, failing_system
from uno_actors import ActorSystem, AggregateRef
from uno_actors.fastapi import (
    GAVE_UP,
    EventStream,
    System,
    add_page,
    add_problem_details,
    aggregate,
    command,
    events,
    lifespan,
)

STORE = os.environ.get("STORE", "memory:")
BREAKS = "BREAKS" in os.environ
BIG = "x" * 1_000_000


def make() -> ActorSystem:
    if BREAKS:
        return failing_system(STORE)
    return ActorSystem(STORE, aggregates=[Theatre], handlers=[], cluster=STORE != "memory:")


async def untouched(request: Request, call_next: object) -> Response:
    answer: Response = await call_next(request)  # type: ignore[operator]
    return answer


app = FastAPI(lifespan=lifespan(make, exit_code=None if "STAYS" in os.environ else GAVE_UP))
add_problem_details(app)
add_page(app, token="a token of the test")  # noqa: S106
if "MIDDLEWARE" in os.environ:
    app.add_middleware(BaseHTTPMiddleware, dispatch=untouched)


@app.get("/process")
async def process(system: System) -> int:
    return os.getpid()


@app.post("/theatres/{id}/sales")
async def sell(
    theatre: Annotated[AggregateRef, aggregate(Theatre)], sale: Annotated[SellSeats, command(SellSeats)]
) -> int:
    return await theatre.ask(sale)


@app.get("/theatres/{id}")
async def look(theatre: Annotated[AggregateRef, aggregate(Theatre)]) -> int:
    return await theatre.ask(CountSeats())


@app.get("/events", response_class=EventStream)
async def feed(request: Request) -> EventStream:
    return await events(request, heartbeat=60)


@app.get("/flood", response_class=EventStream)
async def flood(request: Request) -> EventStream:
    """Far more than the buffers of a connection hold."""
    return await events(request, after=0, show=lambda recorded: BIG)
