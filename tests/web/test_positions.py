"""The header ``Uno-Position``: a client that sends it back reads what it has recorded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI

from tests.waiting import turns, until
from tests.web.theatre import SeatsSold, SellSeats, Theatre
from uno_actors import ActorSystem, AggregateRef, InvalidNumber, Projection, WaitTimeout
from uno_actors.fastapi import (
    System,
    add_problem_details,
    aggregate,
    command,
    lifespan,
    running_system,
    wait_for,
)
from uno_actors.handlers.spec import HandlerSpec


class Sold(Projection[SeatsSold, str]):
    """Seats sold by theatre; the seats of a closed theatre cannot be counted, and those of a slow one wait."""

    def __init__(self, gate: asyncio.Event) -> None:
        super().__init__(SeatsSold)
        self.gate = gate
        self.began = 0

    async def handle(self, event: SeatsSold) -> None:
        key = event.aggregate_id or ""
        if key == "slow":
            self.began += 1
            await self.gate.wait()
        if key == "closed":
            raise ValueError("no seats there")
        self.view.put(key, await self.view.get(key, 0) + event.seats)


class Site:
    """The application, and a client of it."""

    def __init__(self, seconds: float) -> None:
        self.gate = asyncio.Event()
        self.sold = Sold(self.gate)
        self.spec = spec = HandlerSpec("sold", self.sold, max_attempts=1)
        self.app = FastAPI(
            lifespan=lifespan(lambda: ActorSystem("memory:", aggregates=[Theatre], handlers=[spec]))
        )
        add_problem_details(self.app)
        self._add_routes(seconds)

    def _add_routes(self, seconds: float) -> None:
        a_theatre = aggregate(Theatre)

        @self.app.post("/theatres/{id}/sales")
        async def sell(
            theatre: Annotated[AggregateRef, a_theatre], sale: Annotated[SellSeats, command(SellSeats)]
        ) -> int:
            return await theatre.ask(sale)

        @self.app.post("/theatres/{id}/threads")
        def sell_on_a_thread(theatre: Annotated[AggregateRef, a_theatre]) -> int:
            return theatre.ask(SellSeats(seats=1)).get(timeout=20)

        @self.app.post("/theatres/{id}/shown")
        async def sell_and_show(theatre: Annotated[AggregateRef, a_theatre]) -> int:
            return await theatre.ask(SellSeats(seats=1), wait_for="sold", wait_timeout=seconds)

        @self.app.post("/pairs/{one}/{other}")
        async def sell_both(
            one: Annotated[AggregateRef, aggregate(Theatre, "one")],
            other: Annotated[AggregateRef, aggregate(Theatre, "other")],
        ) -> None:
            for theatre in (one, other, one):
                await theatre.ask(SellSeats(seats=1))

        @self.app.get("/sold/{name}", dependencies=[wait_for(self.sold, timeout=seconds)])
        async def sold(name: str, system: System) -> int:
            return int(await system.view(self.spec).get(name, 0))


@asynccontextmanager
async def site(seconds: float = 20.0) -> AsyncIterator[tuple[Site, httpx.AsyncClient]]:
    its = Site(seconds)
    transport = httpx.ASGITransport(its.app)
    async with (
        its.app.router.lifespan_context(its.app),
        httpx.AsyncClient(transport=transport, base_url="http://t") as client,
    ):
        yield its, client
        its.gate.set()


async def sale(client: httpx.AsyncClient, name: str, seats: int = 1, **headers: str) -> httpx.Response:
    return await client.post(f"/theatres/{name}/sales", json={"seats": seats}, headers=headers)


def position(answer: httpx.Response) -> dict[str, str]:
    return {"Uno-Position": answer.headers["Uno-Position"]}


async def test_a_client_that_sends_the_position_back_reads_what_it_has_recorded() -> None:
    async with site() as (_, client):
        for number in range(1, 20):
            sold = await sale(client, "hamlet")
            shown = await client.get("/sold/hamlet", headers=position(sold))
            assert (sold.status_code, shown.status_code, shown.json()) == (200, 200, number)


async def test_a_read_waits_for_the_view_and_one_without_the_header_does_not() -> None:
    async with site() as (its, client):
        sold = await sale(client, "slow")
        await until(lambda: its.sold.began)
        assert (await client.get("/sold/slow")).json() == 0
        reading = asyncio.ensure_future(client.get("/sold/slow", headers=position(sold)))
        await turns()
        assert not reading.done()
        its.gate.set()
        assert (await reading).json() == 1


async def test_plain_functions_and_repeated_requests_say_the_position_too() -> None:
    async with site() as (_, client):
        thread = await client.post("/theatres/hamlet/threads")
        first, again = [await sale(client, "hamlet", **{"Idempotency-Key": "k"}) for _ in range(2)]
        assert position(thread) != position(first) == position(again)
        assert (await client.get("/sold/hamlet", headers=position(again))).json() == 2


async def test_a_request_that_records_nothing_has_no_position() -> None:
    async with site() as (_, client):
        refused = await sale(client, "hamlet", 1000)
        assert refused.status_code == 409
        assert "Uno-Position" not in refused.headers


async def test_a_request_that_records_in_several_places_names_the_last_in_each() -> None:
    async with site() as (_, client):
        both = await client.post("/pairs/hamlet/faust")
        assert [each.partition(".")[0] for each in both.headers["Uno-Position"].split(", ")] == ["2", "3"]
        assert (await client.get("/sold/faust", headers=position(both))).json() == 1
        twice = [("Uno-Position", each) for each in both.headers["Uno-Position"].split(", ")]
        assert (await client.get("/sold/hamlet", headers=twice)).json() == 2


@pytest.mark.parametrize("text", ["", "garbage", "1", "7.0123456789ab", "1.0123456789ab", "-1.0", "1.2, x"])
async def test_a_position_that_is_not_of_this_store_is_a_clear_answer(text: str) -> None:
    async with site() as (_, client):
        await sale(client, "hamlet")
        refused = await client.get("/sold/hamlet", headers={"Uno-Position": text})
        assert refused.status_code == 422
        (error,) = refused.json()["errors"]
        assert error["parameter"] == "uno-position"
        assert "is not a position in this store" in error["detail"]


async def test_a_position_of_another_store_is_a_clear_answer() -> None:
    async with site() as (_, one), site() as (_, other):
        await sale(one, "hamlet")
        refused = await one.get("/sold/hamlet", headers=position(await sale(other, "hamlet")))
        assert refused.status_code == 422
        assert "another store" in refused.text


async def test_a_read_that_takes_too_long_says_that_the_client_may_read_again() -> None:
    async with site(0.02) as (its, client):
        sold = await sale(client, "slow")
        late = await client.get("/sold/slow", headers=position(sold))
        assert (late.status_code, late.headers["Retry-After"]) == (504, "1")
        assert "not shown here yet" in late.json()["detail"]
        its.gate.set()
        await running_system(its.app).settled()
        assert (await client.get("/sold/slow", headers=position(sold))).json() == 1


async def test_a_command_whose_view_takes_too_long_is_recorded_and_the_answer_has_its_position() -> None:
    async with site(0.02) as (its, client):
        late = await client.post("/theatres/slow/shown")
        assert late.status_code == 504
        assert late.json()["type"] == "urn:uno-actors:wait-timeout"
        its.gate.set()
        await running_system(its.app).settled()
        assert (await client.get("/sold/slow", headers=position(late))).json() == 1


async def test_a_read_does_not_wait_for_an_event_among_the_dead_letters() -> None:
    async with site() as (its, client):
        sold = await sale(client, "closed")
        await until(running_system(its.app).store.dead_letters)
        assert (await client.get("/sold/closed", headers=position(sold))).json() == 0


async def test_the_header_is_in_openapi() -> None:
    async with site() as (its, _):
        operation = its.app.openapi()["paths"]["/sold/{name}"]["get"]
        assert "uno-position" in [each["name"] for each in operation["parameters"]]


@pytest.mark.parametrize("seconds", [-1, "5", None])
def test_a_wait_without_a_valid_limit_is_refused_where_it_is_written(seconds: Any) -> None:
    with pytest.raises(InvalidNumber):
        wait_for("sold", timeout=seconds)


def test_the_error_of_a_wait_says_that_the_command_need_not_be_sent_again() -> None:
    assert "Do not send the command again" in str(WaitTimeout(["sold"], 1, 5, "sold is live at position 0"))
