"""What every link promises: one suite over all of them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from uno_actors import LinkUnavailable
from uno_actors.clock import SystemClock
from uno_actors.cluster.addresses import TcpPlace
from uno_actors.cluster.links.certificates import Certificates
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.cluster.links.nats import NatsLink
from uno_actors.cluster.links.port import LARGEST, WINDOW, WINDOW_BYTES, Answer, Delivery, Link, LinkFailure
from uno_actors.cluster.links.tcp import TcpLink
from uno_actors.cluster.links.unix import UnixLink

TTL = 30.0
Outcome = bytes | LinkFailure


class Node:
    """A node with a link: it answers each request with its reverse, or as `serve` says."""

    def __init__(self, link: Link, name: str) -> None:
        self.link = link
        self.name = name
        self.address = ""
        self.served: list[bytes] = []
        self.serve: Callable[[bytes, Answer], None] = lambda body, answer: answer(body[::-1])

    async def start(self) -> "Node":
        self.address = await self.link.start(self.name, self._served)
        return self

    def _served(self, body: bytes, answer: Answer) -> None:
        self.served.append(body)
        self.serve(body, answer)

    def send(self, to: "Node | str", body: bytes, seconds: float = 60.0) -> "Sent":
        sent = Sent()
        self.link.request(to if isinstance(to, str) else to.address, body, seconds, sent.done)
        assert not sent.outcomes, "ended before the call returned"
        return sent

    async def ask(self, to: "Node | str", body: bytes, seconds: float = 60.0) -> Outcome:
        return await self.send(to, body, seconds).end()


class Sent:
    """A request and how it ended."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._ended = asyncio.Event()

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._ended.set()

    async def end(self) -> Outcome:
        await self._ended.wait()
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        (outcome,) = self.outcomes
        return outcome

    @property
    def failure(self) -> LinkFailure:
        assert isinstance(self.outcome, LinkFailure), self.outcome
        return self.outcome


class Place:
    """Makes nodes that reach each other by one kind of link."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.stack = AsyncExitStack()
        self.network = MemoryNetwork()
        self.nats = ""
        self.certificates: Certificates | None = None

    @property
    def largest(self) -> int:
        """Bytes of the largest body: the default server of NATS has a limit of its own."""
        return 1024 * 1024 - 1024 if self.kind == "nats" else LARGEST

    def link(self, ttl: float = TTL, **options: Any) -> Link:
        settings: dict[str, Any] = {
            "cluster": "bank",
            "secret": None,
            "ttl": ttl,
            "clock": SystemClock(),
        } | options
        match self.kind:
            case "memory":
                return self.network.link()
            case "nats":
                return NatsLink(self.nats, **settings)
            case "tls":
                return TcpLink(TcpPlace("127.0.0.1", 0), certificates=self.certificates, **settings)
            case "unix":
                return UnixLink(self.directory, **settings)
            case _:
                return TcpLink(TcpPlace("127.0.0.1", 0), **settings)

    async def node(self, name: str, **options: Any) -> Node:
        link = self.link(**options)
        self.stack.push_async_callback(link.close)
        return await Node(link, name).start()


@asynccontextmanager
async def place_of(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Place]:
    """The place of the kind that a fixture was asked for; closed with all its nodes."""
    here = Place(request.param, directory)
    if here.kind == "nats":
        here.nats = request.getfixturevalue("nats_server").url
    if here.kind == "tls":
        here.certificates = request.getfixturevalue("authority").certificates("node")
    async with here.stack:
        yield here


@pytest.fixture(params=["memory", "unix", "tcp", "tls", "nats"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(request, tmp_path) as here:
        yield here


def never(failure: Outcome) -> str:
    assert isinstance(failure, LinkFailure), failure
    assert failure.delivery is Delivery.NEVER, failure
    return failure.reason


def unknown(failure: Outcome) -> str:
    assert isinstance(failure, LinkFailure), failure
    assert failure.delivery is Delivery.UNKNOWN, failure
    return failure.reason


async def test_a_request_is_answered_by_the_node_at_the_address(place: Place) -> None:
    a, b, c = [await place.node(name) for name in "abc"]
    assert await a.ask(b, b"one") == b"eno"
    assert await b.ask(a, b"two") == b"owt"
    assert await c.ask(c, b"self") == b"fles"
    assert (a.served, b.served, c.served) == ([b"two"], [b"one"], [b"self"])


async def test_many_requests_at_once_each_get_their_own_answer_once(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    bodies = [f"request {n}".encode() for n in range(3000)]
    sent = [a.send(b, body) for body in bodies]
    back = [b.send(a, body) for body in bodies]
    for each in sent + back:
        await each.end()
    assert (
        [each.outcome for each in sent] == [each.outcome for each in back] == [body[::-1] for body in bodies]
    )
    assert sorted(b.served) == sorted(bodies)


async def test_answers_may_come_in_any_order_and_later(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    waiting: list[tuple[bytes, Answer]] = []
    b.serve = lambda body, answer: waiting.append((body, answer))
    sent = [a.send(b, body) for body in (b"1", b"2", b"3")]
    await until(lambda: len(waiting) == 3)
    for body, answer in sorted(waiting, reverse=True):
        answer(body * 2)
        answer(b"a second answer has no effect")
    assert [await each.end() for each in sent] == [b"11", b"22", b"33"]
    b.serve = lambda body, answer: answer(body)
    assert await a.ask(b, b"next") == b"next"


async def test_bodies_may_be_empty_or_large(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    large = os.urandom(min(20_000_000, place.largest))
    small = [a.send(b, b"") for _ in range(10)]
    assert await a.ask(b, large) == large[::-1]
    assert [await each.end() for each in small] == [b""] * 10


async def test_the_largest_request_and_answer_pass_and_larger_ones_are_refused(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    largest = place.largest
    assert await a.ask(b, bytes(largest)) == bytes(largest)
    assert f"at most {largest:,} are allowed" in never(await a.ask(b, bytes(largest + 1)))
    b.serve = lambda body, answer: answer(bytes(largest + 1))
    assert f"at most {largest:,} are allowed" in unknown(await a.ask(b, b"small"))
    assert len(b.served) == 2


async def test_a_request_to_an_address_where_no_node_is_never_arrives(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    await b.link.close()
    assert never(await a.ask(b, b"gone"))
    assert b.served == []


async def test_a_request_that_waits_for_its_answer_when_the_node_goes_may_have_arrived(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    b.serve = lambda body, answer: None
    sent = [a.send(b, body) for body in (b"1", b"2")]
    await until(lambda: len(b.served) == 2)
    await b.link.close()
    assert all([unknown(await each.end()) for each in sent])


async def test_an_answer_that_was_given_before_the_node_closed_arrives(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    answers: list[Answer] = []
    b.serve = lambda body, answer: answers.append(answer)
    sent = a.send(b, b"1")
    await until(lambda: answers)
    answers[0](b"in time")
    await b.link.close()
    assert await sent.end() == b"in time"


async def test_closing_ends_the_own_requests_before_it_returns(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    b.serve = lambda body, answer: None
    sent = a.send(b, b"1")
    await until(lambda: b.served)
    unsent = a.send(b, b"2")
    await a.link.close()
    unknown(sent.outcome)
    assert unsent.failure.delivery is Delivery.NEVER or place.kind == "memory"
    never(await a.ask(b, b"3"))
    await a.link.close()
    assert b"3" not in b.served


async def test_a_link_that_was_not_started_sends_nothing(place: Place) -> None:
    b = await place.node("b")
    a = Node(place.link(), "a")
    never(await a.ask(b, b"1"))
    await a.link.close()


async def test_a_forgotten_node_is_connected_to_again_on_demand(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    waiting: list[Answer] = []
    b.serve = lambda body, answer: waiting.append(answer)
    sent = a.send(b, b"1")
    await until(lambda: waiting)
    a.link.forget(b.address)
    a.link.forget(b.address)
    assert not sent.outcomes
    unknown(await sent.end())
    waiting[0](b"too late")
    b.serve = lambda body, answer: answer(b"again")
    assert await a.ask(b, b"2") == b"again"
    assert len(sent.outcomes) == 1


async def test_a_request_ends_at_its_deadline_and_a_late_answer_is_ignored(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    waiting: list[Answer] = []
    b.serve = lambda body, answer: waiting.append(answer)
    long, other = a.send(b, b"1", 60.0), a.send(b, b"2", 60.0)
    await until(lambda: len(waiting) == 2)
    short = a.send(b, b"3", 0.05)
    assert "0.05 s" in unknown(await short.end())
    await until(lambda: len(waiting) == 3)
    for answer in waiting:
        answer(b"late")
    assert await long.end() == await other.end() == b"late"
    assert len(short.outcomes) == 1


async def test_more_requests_than_the_window_are_refused_and_not_served(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    waiting: list[Answer] = []
    b.serve = lambda body, answer: waiting.append(answer)
    sent = [a.send(b, b"x") for _ in range(WINDOW)]
    more = [a.send(b, b"y") for _ in range(3)]
    for each in more:
        assert "under way" in never(await each.end())
        assert each.failure.full
    await until(lambda: len(waiting) == WINDOW)
    for answer in waiting:
        answer(b"z")
    assert {await each.end() for each in sent} == {b"z"}
    b.serve = lambda body, answer: answer(b"free again")
    assert await a.ask(b, b"x") == b"free again"
    assert b"y" not in b.served


async def test_more_bytes_than_the_window_are_refused(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    sent = [a.send(b, bytes(place.largest)) for _ in range(WINDOW_BYTES // place.largest)]
    more = a.send(b, bytes(place.largest))
    assert never(await more.end())
    assert more.failure.full
    assert all([isinstance(await each.end(), bytes) for each in sent])


async def test_an_error_in_serving_ends_its_request_alone(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await place.node("a"), await place.node("b")

    def serve(body: bytes, answer: Answer) -> None:
        if body == b"bad":
            raise RuntimeError("a bug")
        answer(body)

    b.serve = serve
    sent = [a.send(b, body) for body in (b"1", b"bad", b"2")]
    outcomes = [await each.end() for each in sent]
    assert (outcomes[0], outcomes[2]) == (b"1", b"2")
    assert "a bug" in unknown(outcomes[1])
    assert "could not be served" in caplog.text


async def test_an_error_in_what_is_done_with_an_answer_does_not_end_the_others(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await place.node("a"), await place.node("b")

    def fail(outcome: Outcome) -> None:
        raise RuntimeError("a bug")

    a.link.request(b.address, b"1", 60.0, fail)
    assert await a.ask(b, b"12") == b"21"
    assert "could not be handled" in caplog.text


async def test_an_address_that_another_kind_of_link_has_announced_is_refused(place: Place) -> None:
    a = await place.node("a")
    for address in (
        "",
        "nonsense",
        "unix:node-b.sock#",
        "tcp://:x#b",
        "tcp://127.0.0.1#b",
        "memory:b",
        "nats:b",
    ):
        never(await a.ask(address, b"1"))


@pytest.mark.parametrize("place", ["memory"], indirect=True)
async def test_two_nodes_of_one_id_are_refused(place: Place) -> None:
    await place.node("a")
    with pytest.raises(LinkUnavailable):
        await place.node("a")
