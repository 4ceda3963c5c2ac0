"""The API of the live page: what it shows of a system and of a store, and what it changes."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from pydantic import BaseModel

from tests.bank import EVENTS, Account, BankStore, Credit, Credited, Debited, Noted
from tests.faults import handler_falls_behind, lease_is_lost
from tests.ops.client import Asking, asking
from tests.waiting import until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Backoff,
    Command,
    DomainEvent,
    EventRegistry,
    Supervisor,
    handles,
)
from uno_actors.flight_recorder.files import of_lines
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.ops.api.dead_letters import reason_of
from uno_actors.ops.api.openapi import description
from uno_actors.ops.api.records import LARGEST
from uno_actors.ops.api.states import MOST_ITEMS, bounded_items, changed, plain
from uno_actors.ops.api.table import ENDPOINTS
from uno_actors.ops.sampling import pause_after
from uno_actors.ops.sources import StoreSource, SystemSource
from uno_actors.system.control_socket import ControlServer
from uno_actors.system.state import answer as answer_of
from uno_stores import InMemoryEventStore, LmdbEventStore

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "../../../etc/passwd",
    "%2e%2e%2f",
    "a/b?c=d&e=f#g",
    "\x1b[31mred\x1b[0m",
    "line\nforged line",
    "\u202eright to left",
    "\u2028separator",
    "'; DROP TABLE events; --",
    '"quoted"',
    " spaces ",
    "ünïcödé 🎉",
]


class Mail:
    """A handler that fails at chosen amounts."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.handled: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, event: Credited) -> None:
        await self.gate.wait()
        if event.amount in self.bad:
            raise ValueError(f"no letter for {event.amount} <b>bold</b>\x1b[31m")
        self.handled.append(event.amount)

    def spec(self, **options: Any) -> HandlerSpec:
        return HandlerSpec(
            "mail", self.handle, Credited, **{"start": "earliest", "max_attempts": 2, **options}
        )


def bank(mail: Mail, store: Any = None, **options: Any) -> ActorSystem:
    rules = Supervisor("post", [mail.spec()], max_restarts=None, backoff=Backoff(initial=0.0, max=0.0))
    return ActorSystem(
        store or BankStore(), aggregates=[Account], handlers=[], supervisors=[rules], **options
    )


@asynccontextmanager
async def running(mail: Mail | None = None, **options: Any) -> AsyncIterator[tuple[ActorSystem, Asking]]:
    async with bank(mail or Mail(), **options) as system, asking(system) as ask:
        yield system, ask


async def credit(system: ActorSystem, name: str, *amounts: int) -> None:
    for amount in amounts:
        await system.aggregate(Account, name).ask(Credit(amount=amount))


# --- the description -----------------------------------------------------------------------------------------


def test_the_description_is_valid() -> None:
    validate(description())


def test_the_description_has_every_endpoint() -> None:
    described = {(method.upper(), path) for path, item in description()["paths"].items() for method in item}
    streams = {("GET", f"{each.path}/events") for each in ENDPOINTS if each.every is not None}
    assert described == {(each.method, each.path) for each in ENDPOINTS} | streams | {
        ("GET", "/api/recording")
    }


async def test_every_answer_is_as_described() -> None:
    mail = Mail(2)
    async with running(mail) as (system, ask):
        await credit(system, "alice", 1, 2, 3)
        await system.settled()
        found = await ask.get("openapi.json")
        (event, *_) = (await ask.get("events"))["events"]
        given: dict[str, dict[str, Any]] = {
            "/api/dead-letter": {"handler": "mail", "position": 2},
            "/api/event": {"position": 1},
            "/api/stream": {"type": "Account", "id": "alice"},
            "/api/state": {"type": "Account", "id": "alice"},
            "/api/trace": {"correlation": event["correlation_id"]},
            "/api/why": {"id": "mail"},
        }
        for endpoint in ENDPOINTS:
            if endpoint.method == "GET":
                answer = await ask.get(endpoint.path.removeprefix("/api/"), **given.get(endpoint.path, {}))
                schema = found["paths"][endpoint.path]["get"]["responses"]["200"]["content"][
                    "application/json"
                ]["schema"]
                jsonschema.validate(answer, {**schema, "components": found["components"]})


# --- hostile text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_any_id_is_found_and_comes_back_as_it_is(text: str) -> None:
    async with running() as (system, ask):
        await credit(system, text, 1)
        found = await ask.get("events", id=text)
        assert [(each["id"], each["version"]) for each in found["streams"]] == [(text, 1)]
        assert [each["aggregate_id"] for each in found["events"]] == [text]
        assert (await ask.get("stream", type="Account", id=text))["stream"]["id"] == text
        assert (await ask.get("state", type="Account", id=text))["state"] == {"balance": 1}
        assert (await ask.get("events", id=f"{text}x"))["events"] == []


@pytest.mark.parametrize("what", ["events", "stream", "state"])
async def test_an_id_that_none_can_have_is_refused(what: str) -> None:
    async with running() as (_, ask):
        problem = await ask.get(what, 422, type="Account", id="a\0b")
        assert "NUL" in problem["detail"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_answers_are_json_in_ascii_without_anything_that_a_terminal_obeys(text: str) -> None:
    store = BankStore()
    await store.append(Noted(text=text))
    async with running(store=store) as (_, ask):
        answer = await ask.client.get("/api/events")
        assert answer.content.isascii()
        assert answer.text.isprintable()
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["events"][0]["payload"] == {"text": text}


async def test_errors_and_tracebacks_come_as_they_are_in_json_alone() -> None:
    async with running(Mail(1)) as (system, ask):
        await credit(system, "alice", 1)
        await system.settled()
        answer = await ask.client.get("/api/dead-letter", params={"handler": "mail", "position": 1})
        assert answer.text.isprintable()
        assert "<b>bold</b>\x1b[31m" in answer.json()["error"]
        assert "Traceback (most recent call last)" in answer.json()["traceback"]


class Everything(DomainEvent):
    data: bytes
    number: float
    big: int
    when: datetime
    amount: Decimal


async def test_any_value_of_a_payload_is_shown() -> None:
    store = InMemoryEventStore(EventRegistry([Everything]))
    value = Everything(
        data=b"\xff\0",
        number=float("inf"),
        big=2**63,
        when=datetime(2026, 1, 1, tzinfo=UTC),
        amount=Decimal("1.50"),
    )
    await store.append(value)
    async with asking(StoreSource(store, "memory:")) as ask:
        (event,) = (await ask.get("events"))["events"]
        assert event["payload"]["data"] == "/wA="
        assert event["payload"]["number"] == "Infinity"
        assert "1.50" in str(event["payload"]["amount"])


async def test_a_large_payload_is_shown_alone() -> None:
    store = BankStore()
    await store.append(Noted(text="x" * (LARGEST + 1)))
    async with asking(StoreSource(store, "memory:")) as ask:
        (event,) = (await ask.get("events"))["events"]
        assert event["payload"] is None
        assert event["left_out"] == f"the payload has {event['bytes']:,} bytes"
        assert (await ask.get("event", position=1))["payload"] == {"text": "x" * (LARGEST + 1)}


async def test_an_event_that_does_not_exist_is_not_found() -> None:
    async with running() as (_, ask):
        assert "position 1" in (await ask.get("event", 404, position=1))["detail"]


# --- finding -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def with_events() -> AsyncIterator[tuple[Asking, list[dict[str, Any]]]]:
    """A store with events of all kinds, and all of them, the newest first."""
    store = BankStore()
    for number in range(40):
        name = f"a{number % 3}"
        version = number // 3 + 1
        kind = Credited if number % 2 else Debited
        await store.append(
            kind(
                amount=number,
                aggregate_type="Account",
                aggregate_id=name,
                aggregate_version=version,
                correlation_id=f"c{number % 5}",
            )
        )
    async with asking(StoreSource(store, "memory:")) as ask:
        yield ask, (await ask.get("events", limit=200))["events"]


FILTERS = [
    ({"type": "Account"}, {}),
    ({"type": "User"}, None),
    ({"event": "Credited"}, {"event_type": "Credited"}),
    ({"topic": "bank.*"}, {}),
    ({"topic": "bank.debited"}, {"event_type": "Debited"}),
    ({"correlation": "c2"}, {"correlation_id": "c2"}),
    ({"id": "a1"}, {"aggregate_id": "a1"}),
    ({"id": "a1", "event": "Credited"}, {"aggregate_id": "a1", "event_type": "Credited"}),
    ({"correlation": "c2", "event": "Debited"}, {"correlation_id": "c2", "event_type": "Debited"}),
    ({"until": "2001-01-01T00:00"}, None),
    ({"since": "2001-01-01T00:00"}, {}),
]
"""Filters, and what the events have that are found: ``None`` if none is."""


@pytest.mark.parametrize("limit", [1, 7, 50])
@pytest.mark.parametrize(
    ("asked", "wanted"), FILTERS, ids=lambda each: "-".join(each) if isinstance(each, dict) else ""
)
async def test_a_search_in_parts_finds_each_event_once_the_newest_first(
    asked: dict[str, str], wanted: dict[str, str] | None, limit: int
) -> None:
    async with with_events() as (ask, every):
        found: list[dict[str, Any]] = []
        before = None
        while True:
            part = await ask.get(
                "events", **asked, limit=limit, **({} if before is None else {"before": before})
            )
            found += part["events"]
            assert len(part["events"]) <= limit
            before = part["before"]
            if before is None:
                break
        assert found == [
            each
            for each in every
            if wanted is not None and all(each[name] == value for name, value in wanted.items())
        ]


async def test_a_search_of_a_long_log_is_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.ops.api.streams.SEARCH_SECONDS", -1)
    monkeypatch.setattr("uno_actors.ops.api.streams.PAGE", 10)
    async with with_events() as (ask, _):
        first = await ask.get("events", correlation="none")
        assert (first["events"], first["searched"], first["before"]) == ([], 10, "31")
        second = await ask.get("events", correlation="none", before="31")
        assert (second["searched"], second["before"]) == (10, "21")


@pytest.mark.parametrize("before", ["x", "1,2", "-1", "9" * 30])
async def test_a_place_that_no_answer_had_is_refused(before: str) -> None:
    async with running() as (_, ask):
        assert "before" in (await ask.get("events", 422, before=before))["detail"]


async def test_a_wrong_topic_is_refused_with_the_reason() -> None:
    async with running() as (_, ask):
        assert "a..b" in (await ask.get("events", 422, topic="a..b"))["detail"]


async def test_a_stream_is_read_from_its_end() -> None:
    async with running() as (system, ask):
        await credit(system, "alice", *range(1, 8))
        part = await ask.get("stream", type="Account", id="alice", limit=3)
        assert part["stream"] == {"type": "Account", "id": "alice", "version": 7, "state": True}
        assert [event["aggregate_version"] for event in part["events"]] == [7, 6, 5]
        part = await ask.get("stream", type="Account", id="alice", limit=3, before=5)
        assert [event["aggregate_version"] for event in part["events"]] == [4, 3, 2]
        assert "no stream Account<bob>" in (await ask.get("stream", 404, type="Account", id="bob"))["detail"]


# --- states --------------------------------------------------------------------------------------------------


async def test_the_state_at_each_version_is_what_the_events_up_to_it_make() -> None:
    async with running(snapshot_every=3) as (system, ask):
        amounts = [5, 7, 1, 20, 3, 4]
        await credit(system, "alice", *amounts)
        await until(lambda: system.statistics().snapshots)
        for version in (3, 6, 1, 5, 2, 4):
            found = await ask.get("state", type="Account", id="alice", version=version)
            assert found["state"] == {"balance": sum(amounts[:version])}
            assert (found["version"], found["last"]) == (version, 6)
            assert found["event"]["payload"] == {"amount": amounts[version - 1]}
            before = sum(amounts[: version - 1])
            assert found["changes"] == [
                {
                    "path": ["balance"],
                    "kind": "changed",
                    "before": before,
                    "after": before + amounts[version - 1],
                }
            ]


@pytest.mark.parametrize("version", [3, 10**9])
async def test_a_version_that_does_not_exist_is_not_found(version: int) -> None:
    async with running() as (system, ask):
        await credit(system, "alice", 1, 2)
        problem = await ask.get("state", 404, type="Account", id="alice", version=version)
        assert problem["detail"] == f"the stream Account<alice> has 2 events: there is no version {version}"


async def test_the_class_of_an_aggregate_may_be_unknown() -> None:
    store = BankStore()
    await store.append(Credited(amount=1, aggregate_type="Unheard of", aggregate_id="x"))
    async with asking(StoreSource(store, "memory:")) as ask:
        assert (await ask.get("stream", type="Unheard of", id="x"))["stream"]["state"] is False
        problem = await ask.get("state", 409, type="Unheard of", id="x")
        assert "uno-actors dashboard FILE" in problem["detail"]


class Broke(Command):
    pass


class Broken(DomainEvent):
    pass


class Fragile(AggregateRoot):
    @handles
    def take(self, command: Broke) -> None:
        self.register_event(Broken())

    def apply_broken(self, event: Broken) -> None:
        if self.version > 1:
            raise ValueError("cannot be applied any more")


async def test_a_stream_that_cannot_be_replayed_says_where() -> None:
    store = InMemoryEventStore(EventRegistry([Broken]))
    for version in (1, 2):
        await store.append(Broken(aggregate_type="Fragile", aggregate_id="x", aggregate_version=version))
    async with ActorSystem(store, aggregates=[Fragile], handlers=[]) as system, asking(system) as ask:
        await ask.get("state", type="Fragile", id="x", version=1)
        problem = await ask.get("state", 409, type="Fragile", id="x", version=2)
        assert problem["detail"].startswith("version 2 of Fragile<x> cannot be replayed: ApplyFailed")


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    text: str


@dataclass
class Part:
    size: int


class Pair(NamedTuple):
    left: int
    right: Any


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, 1),
        (None, None),
        (float("nan"), "NaN"),
        (b"\0", "AA=="),
        (Decimal("1.5"), "1.5"),
        (Colour.RED, "red"),
        (Line(text="a"), {"text": "a"}),
        (Part(3), {"size": 3}),
        (Pair(1, Part(2)), {"left": 1, "right": {"size": 2}}),
        ({"a": [Line(text="b")], 2: (Colour.RED,)}, {"a": [{"text": "b"}], "2": ["red"]}),
        ({3, 1, 2}, [1, 2, 3]),
        ({Pair(1, 2): 1}, {'{"left": 1, "right": 2}': 1}),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        ("\ud800", "\\ud800"),
        (object, "<class 'object'>"),
    ],
)
def test_values_of_a_state_are_shown_by_their_fields(value: Any, shown: Any) -> None:
    assert plain(value) == shown


def test_a_state_that_contains_itself_ends() -> None:
    value: list[Any] = []
    value.append(value)
    assert "..." in json.dumps(plain(value))


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [(["a"], "changed", 1, 2)]),
        ({}, {"a": 1}, [(["a"], "added", None, 1)]),
        ({"a": 1}, {}, [(["a"], "removed", 1, None)]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, [(["a", "b", 1], "changed", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [(["a", 1], "added", None, 2)]),
        ({"a": [1, 2]}, {"a": [1]}, [(["a", 1], "removed", 2, None)]),
        ({"a": 1}, {"a": True}, [(["a"], "changed", 1, True)]),  # equal, and of another type
        ({"a": 1}, {"a": 1.0}, [(["a"], "changed", 1, 1.0)]),
        ({"a": {}}, {"a": []}, [(["a"], "changed", {}, [])]),
    ],
)
def test_changes_are_told_where_they_are(before: Any, after: Any, changes: list[Any]) -> None:
    assert [(each.path, each.kind, each.before, each.after) for each in changed(before, after)] == changes


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
STATES = st.dictionaries(st.text(max_size=2), VALUES, max_size=4)


def _applied(state: Any, change: Any) -> None:
    *way, last = change.path
    for step in way:
        state = state[step]
    if change.kind == "removed":
        del state[last]
    elif isinstance(state, list) and change.kind == "added":
        state.insert(last, change.after)
    else:
        state[last] = change.after


@given(STATES, STATES)
def test_the_changes_applied_to_the_state_before_make_the_state_after(before: Any, after: Any) -> None:
    state = json.loads(json.dumps(before))
    found = list(changed(before, after))
    removed = [each for each in found if each.kind == "removed"]
    for change in [*(each for each in found if each.kind != "removed"), *reversed(removed)]:
        _applied(state, change)
    assert json.dumps(state, sort_keys=True) == json.dumps(after, sort_keys=True)


def test_a_long_list_is_shown_by_its_last_entries() -> None:
    shown = bounded_items({"a": list(range(MOST_ITEMS + 5))})
    assert shown["a"][:2] == ["… 5 more", 5]
    assert len(shown["a"]) == MOST_ITEMS + 1


# --- handlers ------------------------------------------------------------------------------------------------


async def test_a_handler_is_paused_resumed_and_reset() -> None:
    mail = Mail()
    async with running(mail) as (system, ask):
        await credit(system, "alice", 1, 2)
        await system.settled()
        await ask.post("handlers/pause", name="mail")
        (info,) = (await ask.get("handlers"))["handlers"]
        assert (info["state"], info["paused"], info["lag"]) == ("paused", True, 0)
        await credit(system, "alice", 3)
        (info,) = (await ask.get("handlers"))["handlers"]
        assert (info["position"], info["lag"]) == (2, 1)
        assert await ask.post("handlers/reset", name="mail", to="earliest", confirm="mail") == {"position": 0}
        await ask.post("handlers/resume", name="mail")
        await until(lambda: mail.handled == [1, 2, 1, 2, 3])


@pytest.mark.parametrize("confirm", ["", "Mail", "mail ", "other"])
async def test_a_reset_must_be_confirmed_by_the_name(confirm: str) -> None:
    async with running() as (system, ask):
        await credit(system, "alice", 1)
        await system.settled()
        problem = await ask.post("handlers/reset", 422, name="mail", to="earliest", confirm=confirm)
        assert problem["detail"] == f"to confirm, give the name 'mail' once more; found {confirm!r}"
        assert (await ask.get("handlers"))["handlers"][0]["position"] == 1


@pytest.mark.parametrize(
    ("to", "status", "detail"),
    [
        ("nowhere", 422, "'nowhere' is none of: earliest, latest, a position, a time"),
        ("99", 422, "mail cannot continue after position 99"),
        ("latest", 200, None),
        ("0", 200, None),
        ("2001-01-01", 200, None),
    ],
)
async def test_a_reset_takes_the_places_of_the_command_line(to: str, status: int, detail: str | None) -> None:
    async with running() as (system, ask):
        await credit(system, "alice", 1)
        await system.settled()
        answer = await ask.post("handlers/reset", status, name="mail", to=to, confirm="mail")
        assert detail is None or answer["detail"].startswith(detail)


@pytest.mark.parametrize("what", ["pause", "resume", "reset"])
async def test_an_unknown_handler_is_not_found(what: str) -> None:
    more = {"to": "earliest", "confirm": "male"} if what == "reset" else {}
    async with running() as (_, ask):
        assert "male" in (await ask.post(f"handlers/{what}", 404, name="male", **more))["detail"]


# --- dead letters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ValueError: no", "ValueError: no"),
        ("ValueError: order 17 of 'bob' failed", "ValueError: order … of … failed"),
        ("KeyError: 'a'", "KeyError: …"),
        ("ValueError: MQ4525 2013-01-01T20:30Z has no delay", "ValueError: … has no delay"),
        ("E: first\nsecond 2", "E: first"),
        ("", ""),
    ],
)
def test_the_reason_of_an_error_leaves_out_what_differs(error: str, reason: str) -> None:
    assert reason_of(error) == reason


async def test_dead_letters_are_grouped_retried_and_dropped() -> None:
    mail = Mail(2, 3, 5)
    async with running(mail) as (system, ask):
        await credit(system, "alice", 1, 2, 3, 4, 5)
        await system.settled()
        found = await ask.get("dead-letters")
        (group,) = found["groups"]
        assert (group["handler"], group["positions"], found["total"]) == ("mail", [2, 3, 5], 3)
        assert {letter["reason"] for letter in found["letters"]} == {group["reason"]}
        assert [letter["position"] for letter in found["letters"]] == [5, 3, 2]
        for asked in ({"handler": "other"}, {"reason": "other"}):
            other = await ask.get("dead-letters", **asked)
            assert (other["letters"], len(other["groups"]), other["total"]) == ([], 1, 3)
        same = await ask.get("dead-letters", handler="mail", reason=group["reason"], limit=2)
        assert [letter["position"] for letter in same["letters"]] == [5, 3]
        mail.bad = {5}
        assert await ask.post("dead-letters/retry", handler="mail", positions=[3]) == {"count": 1}
        await until(lambda: mail.handled == [1, 4, 3])
        assert await ask.post("dead-letters/retry", handler="mail", positions=None) == {"count": 2}
        await until(lambda: mail.handled == [1, 4, 3, 2])

        async def attempts() -> list[int]:
            return [letter["attempts"] for letter in (await ask.get("dead-letters"))["letters"]]

        async def is_tried_again() -> bool:
            return await attempts() == [3]

        await until(is_tried_again)
        assert await ask.post("dead-letters/drop", handler="mail", positions=[5]) == {"count": 1}
        assert (await ask.get("dead-letters"))["total"] == 0


@pytest.mark.parametrize("what", ["retry", "drop"])
async def test_a_letter_that_is_not_there_is_not_found_and_nothing_is_done(what: str) -> None:
    async with running(Mail(1)) as (system, ask):
        await credit(system, "alice", 1)
        await system.settled()
        problem = await ask.post(f"dead-letters/{what}", 404, handler="mail", positions=[1, 9])
        assert "9" in problem["detail"]
        assert (await ask.get("dead-letters"))["letters"][0]["is_retried"] is False


# --- traces --------------------------------------------------------------------------------------------------


async def test_a_trace_shows_what_caused_what_and_where_it_waits() -> None:
    mail = Mail(2)
    async with running(mail) as (system, ask):
        account = system.aggregate(Account, "alice")
        for amount in (1, 2):
            await account.ask(Credit(amount=amount, correlation_id="chain"))
        await system.settled()
        mail.gate.clear()
        await account.ask(Credit(amount=3, correlation_id="chain"))
        trace = await ask.get("trace", correlation="chain")
        assert [event["position"] for event in trace["events"]] == [1, 2, 3]
        assert (trace["total"], trace["knows_handlers"]) == (3, True)
        first, second, third = (event["deliveries"] for event in trace["events"])
        assert first == []
        assert [(each["handler"], each["state"], each["attempts"]) for each in second] == [
            ("mail", "dead letter", 2)
        ]
        assert [(each["handler"], each["state"], each["behind"]) for each in third] == [
            ("mail", "waiting", 1)
        ]
        mail.gate.set()
        await system.settled()
        assert (await ask.get("trace", correlation="chain"))["events"][2]["deliveries"] == []


async def test_a_trace_counts_the_attempts_at_an_event_that_fails() -> None:
    mail = Mail(1)
    rules = Supervisor(
        "post", [mail.spec(max_attempts=9)], max_restarts=None, backoff=Backoff(initial=60.0, max=60.0)
    )
    async with (
        ActorSystem(BankStore(), aggregates=[Account], handlers=[], supervisors=[rules]) as system,
        asking(system) as ask,
    ):
        await system.aggregate(Account, "alice").ask(Credit(amount=1, correlation_id="chain"))
        await until(lambda: system.statistics().handlers["mail"].failures)
        (event,) = (await ask.get("trace", correlation="chain"))["events"]
        assert [(each["state"], each["attempts"], each["handler_state"]) for each in event["deliveries"]] == [
            ("failing", 1, "restarting")
        ]


async def test_events_are_below_the_one_that_caused_them() -> None:
    store = BankStore()
    await store.append(Credited(event_id="root", amount=1, correlation_id="chain"))
    await store.append(Credited(event_id="below", amount=2, correlation_id="chain", causation_id="root"))
    await store.append(Credited(event_id="deepest", amount=3, correlation_id="chain", causation_id="below"))
    await store.append(Credited(event_id="other", amount=4, correlation_id="chain", causation_id="root"))
    async with asking(StoreSource(store, "memory:")) as ask:
        trace = await ask.get("trace", correlation="chain")
        assert [(event["position"], event["parent"]) for event in trace["events"]] == [
            (1, None),
            (2, 1),
            (3, 2),
            (4, 1),
        ]
        assert trace["knows_handlers"] is False


async def test_an_unknown_correlation_id_is_not_found() -> None:
    async with running() as (_, ask):
        assert "'none'" in (await ask.get("trace", 404, correlation="none"))["detail"]


# --- now and tree --------------------------------------------------------------------------------------------


async def test_figures_are_what_the_system_does_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.ops.sampling.EVERY", 0.05)
    async with running() as (system, ask):
        first = await ask.get("now")
        assert first["figures"]["commands"] == [None]
        await credit(system, "alice", *range(1, 11))
        await system.settled()

        async def is_seen() -> bool:
            now = await ask.get("now")
            return bool(
                sum(rate or 0 for rate in now["figures"]["handled"]) > 0 and now["totals"]["commands"] == 10
            )

        await until(is_seen)
        now = await ask.get("now")
        times = now["times"]
        spans = [after - before for before, after in pairwise(times)]
        counted = sum(rate * span for rate, span in zip(now["figures"]["commands"][1:], spans, strict=True))
        assert counted == pytest.approx(10, rel=0.2)
        assert {len(values) for values in now["figures"].values()} == {len(times)}


async def test_the_page_shows_who_is_slow_and_at_which_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.system.state.SLOW", 0.02)
    monkeypatch.setattr("uno_actors.ops.sampling.EVERY", 0.02)
    mail = Mail()
    mail.gate.clear()
    async with running(mail) as (system, ask):
        await credit(system, "alice", 1)

        async def slow() -> list[dict[str, Any]]:
            return [each for each in (await ask.get("now", last=1))["busy"] if each["who"] == "mail"]

        await until(slow)
        (found,) = await slow()
        assert found["what"] == "the event at position 1"
        assert found["seconds"] > 0.02
        mail.gate.set()


async def test_a_function_that_blocks_a_thread_is_shown_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uno_actors.system.state.SLOW", 0.02)
    monkeypatch.setattr("uno_actors.ops.sampling.EVERY", 0.02)
    gate = threading.Event()

    def wait_for_post(event: Credited) -> None:
        gate.wait(30)

    slow = HandlerSpec("post", wait_for_post, Credited, start="earliest")
    async with (
        ActorSystem(BankStore(), aggregates=[Account], handlers=[slow]) as system,
        asking(system) as ask,
    ):
        await credit(system, "alice", 1)

        async def lines(what: str) -> list[str]:
            busy = (await ask.get("now", last=1))["busy"]
            return [each["line"] for each in busy if (each["who"], each["what"]) == ("post", what)]

        await until(lambda: lines("the event at position 1"))
        (line,) = await lines("the event at position 1")
        assert line.startswith(f"{__file__}:")
        assert line.endswith(" in wait_for_post")
        handler_falls_behind(system, "post")  # as if its turn was taken away while the call is under way
        assert await lines("the event at position 1") == [line]
        lease_is_lost(system, "post")
        await until(lambda: lines("a call that it no longer waits for"))
        gate.set()

        async def is_over() -> bool:
            return not await lines("a call that it no longer waits for")

        await until(is_over)


async def test_the_page_shows_the_command_that_has_waited_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uno_actors.system.state.SLOW", 0.02)
    monkeypatch.setattr("uno_actors.ops.sampling.EVERY", 0.02)
    store = BankStore()
    async with running(store=store) as (system, ask):
        store.gate.clear()
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1))

        async def slow() -> list[tuple[str, str]]:
            return [(each["who"], each["what"]) for each in (await ask.get("now", last=1))["busy"]]

        async def is_shown() -> bool:
            return ("Account<alice@1>", "Credit") in await slow()

        await until(is_shown)
        store.gate.set()
        await reply


async def test_the_tree_shows_budgets_and_back_offs() -> None:
    mail = Mail(1)
    rules = Supervisor(
        "post",
        [mail.spec(max_attempts=9)],
        max_restarts=4,
        within=60.0,
        backoff=Backoff(initial=30.0, max=30.0, jitter=0),
    )
    async with (
        ActorSystem(BankStore(), aggregates=[Account], handlers=[], supervisors=[rules]) as system,
        asking(system) as ask,
    ):
        await credit(system, "alice", 1)
        await until(lambda: system.statistics().handlers["mail"].failures)

        async def post() -> dict[str, Any]:
            (process,) = (await ask.get("tree"))["processes"]
            return next(each for each in process["children"] if each["name"] == "post")

        async def waits() -> bool:
            return (await post())["children"][0]["restart_in"] is not None

        await until(waits)
        found = await post()
        assert (found["restarts_left"], found["max_restarts"], found["within"]) == (3, 4, 60.0)
        assert 25 < found["children"][0]["restart_in"] <= 30


# --- a store that other processes use ------------------------------------------------------------------------


async def test_a_store_that_no_system_has_open_is_shown(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path / 'bank'}"
    async with bank(Mail(2), LmdbEventStore(tmp_path / "bank", EVENTS)) as system:
        await credit(system, "alice", 1, 2)
        await system.settled()
        store = system.store
    await store.close()
    async with LmdbEventStore(tmp_path / "bank", EVENTS) as store, asking(StoreSource(store, url)) as ask:
        assert (await ask.get("about"))["store"] == url
        assert (await ask.get("now"))["processes"] == []
        assert (await ask.get("tree"))["processes"] == []
        (info,) = (await ask.get("handlers"))["handlers"]
        assert (info["name"], info["state"], info["position"], info["dead_letters"]) == (
            "mail",
            "not running",
            2,
            1,
        )
        assert len((await ask.get("events"))["events"]) == 2
        await ask.post("dead-letters/retry", handler="mail", positions=None)
        assert (await ask.get("dead-letters"))["letters"][0]["is_retried"] is True


async def test_the_figures_of_a_process_that_has_the_store_open_are_shown(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}"
    async with LmdbEventStore(tmp_path, EVENTS) as store, bank(Mail(), store, name="bank") as system:
        await credit(system, "alice", 1, 2, 3)
        runtime = SystemSource(system)
        control = ControlServer(
            tmp_path, lambda want: answer_of(want, "bank", runtime.runtime, 0.0, system.recording)
        )
        async with control, asking(StoreSource(store, url)) as ask:
            now = await ask.get("now")
            assert [process["system"] for process in now["processes"]] == ["bank"]
            assert now["totals"]["commands"] == 3
            (process,) = (await ask.get("tree"))["processes"]
            assert [child["name"] for child in process["children"]] == ["handlers", "post"]


async def test_a_process_that_knows_no_figures_is_shown_with_its_tree(tmp_path: Path) -> None:
    """Such as the supervisor of workers, or a process of an earlier version."""

    def answer(want: str) -> Any:
        if want != "tree":
            raise ValueError(f"{want!r} is not known here")
        worker = {"name": "worker 1", "kind": "process", "state": "running", "restart": "permanent"}
        children = [{**worker, "restarts": 2, "waiting": 0, "children": []}]
        return {"system": "shop", "pid": 7, "uptime": 1.5, "tree": {"children": children}}

    async with (
        LmdbEventStore(tmp_path, EVENTS) as store,
        ControlServer(tmp_path, answer),
        asking(StoreSource(store, f"lmdb:{tmp_path}")) as ask,
    ):
        (process,) = (await ask.get("tree"))["processes"]
        assert (process["system"], process["process"], process["unanswered"]) == ("shop", 7, None)
        assert [(child["name"], child["restarts"]) for child in process["children"]] == [("worker 1", 2)]
        assert (await ask.get("now"))["totals"]["commands"] == 0


async def test_a_process_that_cannot_answer_says_why(tmp_path: Path) -> None:
    def answer(want: str) -> Any:
        raise ZeroDivisionError(want)

    async with (
        LmdbEventStore(tmp_path, EVENTS) as store,
        ControlServer(tmp_path, answer),
        asking(StoreSource(store, f"lmdb:{tmp_path}")) as ask,
    ):
        (process,) = (await ask.get("now"))["processes"]
        assert "ZeroDivisionError: figures" in process["unanswered"]


@pytest.mark.parametrize(("cost", "pause"), [(0.0, 1.0), (0.02, 1.0), (0.1, 5.0), (2.0, 100.0)])
def test_samples_take_two_hundredths_of_the_time_at_most(cost: float, pause: float) -> None:
    assert pause_after(cost) == pytest.approx(pause)


async def test_the_nodes_of_a_store_are_shown(tmp_path: Path) -> None:
    async with (
        LmdbEventStore(tmp_path, EVENTS) as store,
        bank(Mail(), store, name="bank", cluster=True),
        asking(StoreSource(store, f"lmdb:{tmp_path}")) as ask,
    ):
        (node,) = (await ask.get("cluster"))["nodes"]
        assert node["name"].startswith("bank@")
        assert node["shards"]["Account"] > 0
        assert node["counters"]["local"] == 0


async def test_a_stopped_system_is_answered_with_503() -> None:
    async with bank(Mail()) as system:
        pass
    async with asking(system) as ask:
        for what in ("now", "tree", "handlers", "events"):
            assert "stopped" in (await ask.get(what, 503))["detail"]


def test_a_system_of_another_thread_is_asked_on_its_own_loop() -> None:
    with ActorSystem(BankStore(), aggregates=[Account], handlers=[]) as system:
        system.aggregate(Account, "alice").ask(Credit(amount=1)).get(timeout=10)

        async def ask_it() -> Any:
            async with asking(system) as ask:
                return await ask.get("events"), await ask.get("now")

        events, now = asyncio.run(ask_it())
        assert len(events["events"]) == 1
        assert now["totals"]["commands"] == 1


async def test_the_latest_steps_are_downloaded_as_a_file(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}"
    async with LmdbEventStore(tmp_path, EVENTS) as store, bank(Mail(), store, name="bank") as system:
        await credit(system, "alice", 1)
        control = ControlServer(
            tmp_path,
            lambda want: answer_of(want, "bank", SystemSource(system).runtime, 0.0, system.recording),
        )
        async with asking(StoreSource(store, url)) as ask:
            assert "no process" in (await ask.get("recording", 404))["detail"]
        for source in (SystemSource(system), StoreSource(store, url)):
            async with control, asking(source) as ask:
                answer = await ask.client.get("/api/recording")
            assert answer.headers["content-disposition"].endswith('.recording"')
            (found,) = of_lines(answer.text.splitlines(), "answer")
            assert next(step.kind for step in found.steps if step.aggregate_id == "alice") == "sent"
            assert found.system == "bank"
