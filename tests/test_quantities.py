"""Numbers are checked where they enter, all by the same rule, in code as in files."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors import (
    Actor,
    ActorSystem,
    AggregateRoot,
    Backoff,
    CallerError,
    ChildSpec,
    Command,
    EventRegistry,
    EventSourcedRepository,
    Future,
    InvalidConfig,
    InvalidNumber,
    MailboxPolicy,
    Supervisor,
    get_all,
    handles,
    open_store,
    subscribe,
)
from uno_actors.config.reader import load
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.quantities import LONGEST, MOST, is_count, is_duration, is_number

NO_NUMBERS: list[Any] = [True, False, "1", b"1", Decimal(1), 1j, [], object()]
NO_TIMES: list[Any] = [math.nan, math.inf, -math.inf, -1, -0.001, LONGEST * 1.01, 10**400, *NO_NUMBERS]
NO_COUNTS: list[Any] = [math.nan, math.inf, 2.5, 2.0, -1, MOST + 1, *NO_NUMBERS]
NO_SHARES: list[Any] = [math.nan, math.inf, -0.1, 1.1, *NO_NUMBERS]


def nothing(_: object) -> None: ...


class Idle(Actor):
    pass


class Ask(Command[None]):
    pass


class Box(AggregateRoot):
    @handles
    def ask(self, command: Ask) -> None: ...


def system(**options: Any) -> ActorSystem:
    return ActorSystem(handlers=[], **options)


TIMES: dict[str, Callable[[Any], object]] = {
    "ActorSystem(ask_timeout)": lambda found: system(ask_timeout=found),
    "ActorSystem(passivate_after)": lambda found: system(passivate_after=found),
    "ActorSystem(stop_timeout)": lambda found: system(stop_timeout=found),
    "Supervisor(within)": lambda found: Supervisor("s", within=found),
    "ChildSpec(shutdown)": lambda found: ChildSpec(Idle, shutdown=found),
    "Backoff(initial)": lambda found: Backoff(initial=found),
    "Backoff(max)": lambda found: Backoff(max=found, initial=0),
    "Backoff(reset_after)": lambda found: Backoff(reset_after=found),
    "HandlerSpec(timeout)": lambda found: HandlerSpec("h", nothing, timeout=found),
    "subscribe(timeout)": lambda found: subscribe(timeout=found)(lambda event: None),
    "Future.get": lambda found: Future[int]().get(timeout=found),
    "get_all": lambda found: get_all([], timeout=found),
    "SQL patience": lambda found: _sql(patience=found),
}
COUNTS: dict[str, Callable[[Any], object]] = {
    "ActorSystem(max_active)": lambda found: system(max_active=found),
    "ActorSystem(snapshot_every)": lambda found: system(snapshot_every=found),
    "ActorSystem(remember_commands)": lambda found: system(remember_commands=found),
    "EventSourcedRepository": lambda found: EventSourcedRepository(Box, open_store("memory:"), found),
    "Supervisor(max_restarts)": lambda found: Supervisor("s", max_restarts=found),
    "ChildSpec(max_attempts)": lambda found: ChildSpec(Idle, max_attempts=found),
    "MailboxPolicy(capacity)": lambda found: MailboxPolicy(capacity=found),
    "HandlerSpec(max_attempts)": lambda found: HandlerSpec("h", nothing, max_attempts=found),
    "HandlerSpec(concurrency)": lambda found: HandlerSpec("h", nothing, concurrency=found),
    "HandlerSpec(batch)": lambda found: HandlerSpec("h", nothing, batch=found),
    "HandlerSpec(start)": lambda found: HandlerSpec("h", nothing, start=found),
    "EventRegistry.add_upcast": lambda found: EventRegistry([]).add_upcast("E", found, dict),
    "SQL max_event_size": lambda found: _sql(max_event_size=found),
    "LMDB max_event_size": lambda found: _lmdb(max_event_size=found),
    "LMDB max_size": lambda found: _lmdb(max_size=found),
    "LMDB map_size": lambda found: _lmdb(map_size=found),
}
SHARES: dict[str, Callable[[Any], object]] = {"Backoff(jitter)": lambda found: Backoff(jitter=found)}


def _sql(**options: Any) -> object:
    from uno_stores.sql.options import check_options

    return check_options(**options)


def _lmdb(**options: Any) -> object:
    from uno_stores.lmdb import LmdbEventStore

    return LmdbEventStore("/nonexistent/never/made", **options)


def _refused(entries: dict[str, Callable[[Any], object]], values: list[Any]) -> list[Any]:
    return [
        pytest.param(entry, value, id=f"{name} {type(value).__name__} {str(value)[:12]}")
        for name, entry in entries.items()
        for value in values
    ]


@pytest.mark.parametrize(
    ("entry", "found"),
    [*_refused(TIMES, NO_TIMES), *_refused(COUNTS, NO_COUNTS), *_refused(SHARES, NO_SHARES)],
)
def test_an_invalid_number_is_refused_where_it_enters(entry: Callable[[Any], object], found: Any) -> None:
    with pytest.raises(
        (CallerError, ValueError), match="must be|found|not"
    ):  # of the same kind, by other words
        entry(found)


@pytest.mark.parametrize("found", [math.nan, math.inf, -1, True, "1", 10**400], ids=repr)
async def test_the_times_of_asks_stops_and_timers_are_checked_before_a_timer_of_the_loop_sees_them(
    found: Any,
) -> None:
    class Sets(Actor):
        async def on_receive(self, message: str) -> None:
            getattr(self.timers, message)(found, "x")

    async with system() as running:
        actor = await running.spawn(Sets)
        with pytest.raises(InvalidNumber):
            actor.ask("once", timeout=found)
        with pytest.raises(InvalidNumber):
            running.aggregate(Box, "b").ask(Ask(), timeout=found)
        for timer in ("once", "periodic"):
            with pytest.raises(InvalidNumber):
                await actor.ask(timer)
        with pytest.raises(InvalidNumber):
            await running.settled(found)
        with pytest.raises(InvalidNumber):
            await running.stop(found)
        assert actor.is_alive()


async def test_a_priority_that_is_not_a_number_is_refused_and_the_mailbox_keeps_its_order() -> None:
    handled: list[Any] = []

    class Sorted(Actor):
        mailbox = MailboxPolicy(priority=lambda message: message)

        async def on_receive(self, message: Any) -> None:
            handled.append(message)

    async with system() as running:
        actor = await running.spawn(Sorted)
        for message in (3, math.nan, 1, "no number", 2):
            if message in (1, 2, 3):
                actor.tell(message)
            else:
                with pytest.raises(InvalidNumber, match="priority"):
                    actor.tell(message)
        assert await actor.ask(4) is None
    assert handled == [1, 2, 3, 4]


@given(st.floats() | st.integers() | st.booleans() | st.text() | st.none())
def test_only_finite_numbers_within_the_limits_pass_and_no_bool_does(found: Any) -> None:
    for passes in (is_duration(found), is_duration(found, zero=True), is_count(found), is_number(found)):
        if passes:
            assert not isinstance(found, bool)
            assert math.isfinite(found) or isinstance(found, int)
    assert not is_duration(0)
    assert is_count(found) == (type(found) is int and 0 <= found <= MOST)
    if is_duration(found):
        assert 0 < found <= LONGEST


@given(st.floats(min_value=0.001, max_value=LONGEST), st.integers(min_value=0, max_value=10**6))
def test_every_number_allowed_in_code_is_allowed_in_a_file(within: float, restarts: int) -> None:
    from uno_actors.units import as_duration, duration

    assert Supervisor("s", within=within, max_restarts=restarts).within == within
    assert duration(as_duration(within)) == pytest.approx(within, rel=1e-12)


@pytest.mark.parametrize(
    "line",
    [
        "max_restarts = 2.5",
        "max_restarts = true",
        "max_restarts = inf",
        'within = "nan"',
        "within = inf",
        "within = true",
    ],
)
def test_a_file_has_the_same_limits(line: str, tmp_path: Any) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[[supervisors]]\nname = "a"\n{line}\n')
    with pytest.raises(InvalidConfig):
        load(path)
