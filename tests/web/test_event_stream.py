"""Server-sent events: what a client gets, and that streams end when they should."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.types import Message

from tests.faults import record_changes
from tests.waiting import until
from tests.web.theatre import SellSeats, Theatre
from uno_actors import ActorSystem, DomainEvent
from uno_actors.fastapi import EventStream, add_problem_details, events, lifespan, running_system
from uno_stores.memory import InMemoryEventStore


class CurtainFell(DomainEvent):
    topic: str = "theatre.fell"


class Client:
    """A connection to an application in this process, as a server would make it."""

    def __init__(self, app: FastAPI, path: str, headers: dict[str, str] | None = None) -> None:
        where, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": where,
            "raw_path": where.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (b"host", b"test"),
                *((k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
            "app": app,
        }
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self._asked = False
        self.request = asyncio.create_task(app(self._scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent[1:]).decode()

    @property
    def is_complete(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1]["more_body"]

    @property
    def events(self) -> list[dict[str, str]]:
        """The events as a browser parses them, without the comments."""
        found = []
        for block in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "data" in fields:
                found.append(fields)
        return found

    @property
    def last_id(self) -> str:
        return [line for line in self.text.split("\n") if line.startswith("id: ")][-1][4:]

    async def has(self, count: int) -> list[dict[str, str]]:
        await until(lambda: len(self.events) >= count or self.request.done())
        return self.events


@asynccontextmanager
async def application(
    store: Any = "memory:", **options: Any
) -> AsyncIterator[tuple[FastAPI, ActorSystem, Callable[..., Client]]]:
    """An application whose ``/feed`` streams events with these options."""
    app = FastAPI(lifespan=lifespan(lambda: ActorSystem(store, aggregates=[Theatre], handlers=[])))
    add_problem_details(app)

    @app.get("/feed", response_class=EventStream)
    async def feed(request: Request, of: str | None = None) -> EventStream:
        given = dict(options)
        if of is not None:
            given["aggregate"] = running_system(app).aggregate(Theatre, of)
        return await events(request, **given)

    clients: list[Client] = []

    def connect(path: str = "/feed", **headers: str) -> Client:
        clients.append(Client(app, path, {name.replace("_", "-"): value for name, value in headers.items()}))
        return clients[-1]

    try:
        async with app.router.lifespan_context(app):
            yield app, running_system(app), connect
        await until(lambda: all(client.request.done() for client in clients))  # although no client has left
    finally:
        for client in clients:
            client.left.set()


async def sell(system: ActorSystem, *houses: str, note: Any = None) -> None:
    for house in houses:
        await system.aggregate(Theatre, house).ask(SellSeats(seats=1, note=note))


async def test_a_client_gets_the_events_from_now_on() -> None:
    async with application() as (_, system, connect):
        await sell(system, "a")
        client = connect()
        await until(lambda: client.text)
        await sell(system, "b")
        (event,) = await client.has(1)
        assert (event["id"], event["event"]) == ("2", "SeatsSold")
        data = json.loads(event["data"])
        assert (data["aggregate_id"], data["seats"], data["aggregate_version"]) == ("b", 1, 1)
        head = dict(client.sent[0]["headers"])
        assert head[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert head[b"cache-control"] == b"no-store"


async def test_a_client_that_reconnects_gets_what_it_has_missed() -> None:
    async with application() as (_, system, connect):
        await sell(system, "a", "b", "c")
        assert [each["id"] for each in await connect(Last_Event_ID="1").has(2)] == ["2", "3"]


async def test_a_new_client_may_begin_anywhere_and_its_last_event_id_wins() -> None:
    async with application(after=1) as (_, system, connect):
        await sell(system, "a", "b", "c")
        assert [each["id"] for each in await connect().has(2)] == ["2", "3"]
        assert [each["id"] for each in await connect(Last_Event_ID="2").has(1)] == ["3"]


@pytest.mark.parametrize("text", ["4", "-1", "x", "1.0", "9" * 40, "\xb2"])
async def test_a_last_event_id_that_is_no_position_of_this_log_is_refused(text: str) -> None:
    """A browser then stops to reconnect. To begin at the end would lose events silently."""
    async with application() as (_, system, connect):
        await sell(system, "a", "b", "c")
        client = connect(Last_Event_ID=text)
        await client.request
        assert client.status == 422
        assert b"from 0 to 3" in client.sent[1]["body"]


@pytest.mark.parametrize(
    ("options", "path", "wanted"),
    [
        ({"topic_pattern": "theatre.sold"}, "/feed", ["1", "2", "4"]),
        ({"event_type": CurtainFell}, "/feed", ["3"]),
        ({"event_type": "SeatsSold"}, "/feed", ["1", "2", "4"]),
        ({"aggregate_type": Theatre}, "/feed", ["1", "2", "4"]),
        ({"aggregate_type": "Cinema"}, "/feed", []),
        ({"correlation_id": "c"}, "/feed", ["3"]),
        ({}, "/feed?of=a", ["1", "4"]),
        ({"event_type": CurtainFell}, "/feed?of=a", []),
        ({}, "/feed", ["1", "2", "3", "4"]),
    ],
)
async def test_a_stream_has_only_what_its_filters_select(
    options: dict[str, Any], path: str, wanted: list[str]
) -> None:
    async with application(after=0, **options) as (_, system, connect):
        await sell(system, "a", "b")
        await system.publisher.publish(CurtainFell(correlation_id="c"))
        await sell(system, "a")
        client = connect(path)
        found = await client.has(len(wanted))
        await sell(system, "z")
        assert [each["id"] for each in found if each["id"] != "5"] == wanted


async def test_a_topic_that_is_none_is_a_problem_and_no_stream() -> None:
    async with application(topic_pattern="a..b") as (_, _system, connect):
        client = connect()
        await client.request
        assert client.status == 422


async def test_what_the_client_gets_can_be_chosen_for_each_event() -> None:
    def show(recorded: Any) -> Any:
        return None if recorded.event.aggregate_id == "b" else {"house": recorded.event.aggregate_id}

    async with application(after=0, show=show) as (_, system, connect):
        await sell(system, "a", "b", "c")
        assert [each["data"] for each in await connect().has(2)] == ['{"house":"a"}', '{"house":"c"}']


@pytest.mark.parametrize(
    "note", ["line\nbreak\r\u2028", "ünï😀", "\x00", {"deep": ["\n\n"]}, float("inf"), b"\xff"]
)
async def test_no_value_breaks_the_frame_of_its_event(note: Any) -> None:
    async with application(after=0) as (_, system, connect):
        await sell(system, "a", note=note)
        await sell(system, "a", note="next")
        found = await connect().has(2)
        assert [sorted(each) for each in found] == [["data", "event", "id"]] * 2
        assert all("note" in strictly(each["data"]) for each in found)


def strictly(text: str) -> Any:
    """JSON as browsers read it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


async def test_an_event_that_cannot_be_shown_is_announced_and_the_stream_continues() -> None:
    def show(recorded: Any) -> Any:
        return 1 // (recorded.position - 1)

    async with application(after=0, show=show) as (_, system, connect):
        await sell(system, "a", "b")
        assert [each["event"] for each in await connect().has(2)] == ["unreadable", "SeatsSold"]


async def test_an_event_that_cannot_be_decoded_is_announced_and_the_stream_continues() -> None:
    store = InMemoryEventStore()
    async with application(store, after=0) as (_, system, connect):
        await sell(system, "a", "b")
        record_changes(store, 1, event_type="Forgotten")
        first, second = await connect().has(2)
        assert (first["event"], json.loads(first["data"])) == (
            "unreadable", {"position": 1, "event_type": "Forgotten"},
        )  # fmt: skip
        assert second["event"] == "SeatsSold"


async def test_a_heartbeat_carries_the_position_that_the_stream_has_reached() -> None:
    """A client whose filter selects little need not read all again when it reconnects."""
    async with application(after=0, heartbeat=0.01, event_type=CurtainFell) as (_, system, connect):
        await sell(system, "a", "b")
        client = connect()
        await until(lambda: client.text and client.last_id == "2")
        await sell(system, "c")
        await until(lambda: client.last_id == "3")
        assert client.events == []


async def test_a_stream_ends_after_its_limit() -> None:
    async with application(after=0, limit=2) as (_, system, connect):
        await sell(system, "a", "b", "c")
        client = connect()
        await client.request
        assert ([each["id"] for each in client.events], client.is_complete) == (["1", "2"], True)
        assert system.store.subscriptions == 0


async def test_a_client_that_leaves_ends_its_stream_and_nothing_else() -> None:
    async with application() as (_, system, connect):
        stays, leaves = connect(), connect()
        await until(lambda: stays.text and leaves.text and system.store.subscriptions == 2)
        leaves.left.set()
        await leaves.request
        assert system.store.subscriptions == 1
        await sell(system, "a")
        assert len(await stays.has(1)) == 1


async def test_streams_end_when_the_application_stops() -> None:
    async with application() as (_, system, connect):
        client = connect()
        await until(lambda: system.store.subscriptions == 1)
    assert client.is_complete


async def test_streams_end_when_the_system_stops() -> None:
    async with application() as (_, system, connect):
        client = connect()
        await until(lambda: system.store.subscriptions == 1)
        await system.stop()
        await client.request
        assert client.is_complete


async def test_a_client_that_does_not_read_is_left_when_the_application_stops() -> None:
    async with application(after=0) as (_, system, connect):
        client = connect()
        await until(lambda: client.text)
        client.reads.clear()
        await sell(system, "a")
    assert client.request.done()
    assert not client.is_complete


async def test_a_slow_client_takes_no_memory_for_what_it_has_not_read() -> None:
    async with application(after=0) as (_, system, connect):
        client = connect()
        await until(lambda: client.text)
        client.reads.clear()
        for _number in range(90):
            await sell(system, "a")
        client.reads.set()
        assert [each["id"] for each in await client.has(90)] == [str(n) for n in range(1, 91)]
