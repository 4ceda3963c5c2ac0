"""The watchdog names code that holds the event loop or a worker thread for too long."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bank import BankStore, Credited, Debited
from tests.waiting import until
from uno_actors import Actor, ActorSystem
from uno_actors.actors import watchdog as watchdog_module
from uno_actors.actors.watchdog import watchdog
from uno_actors.actors.worker_pool import MAX_WORKERS
from uno_actors.handlers.spec import HandlerSpec


class Named(logging.Handler):
    """Sets its event when the watchdog has named code in this file, and keeps what it said.

    On a busy machine it may name others as well, who only wait for a processor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "code holds" in record.getMessage() and __file__ in getattr(record, "uno_at", ""):
            self.records.append(record)
            self.heard.set()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Iterator[Named]:
    monkeypatch.setattr(watchdog_module, "HELD_SECONDS", 0.02)
    monkeypatch.setattr(watchdog_module, "LOOK_SECONDS", 0.002)
    handler = Named()
    logging.getLogger("uno_actors").addHandler(handler)
    yield handler
    logging.getLogger("uno_actors").removeHandler(handler)


async def long_enough_to_be_named() -> None:
    """Wait until the watchdog has looked so often that it would have named what is held since now."""
    looks = watchdog_module.HELD_SECONDS / watchdog_module.LOOK_SECONDS + 3
    begun = watchdog.looks
    await until(lambda: watchdog.looks >= begun + looks)


class HoldsTheLoop(Actor):
    async def on_receive(self, heard: threading.Event) -> bool:
        return heard.wait(20)  # what a careless handler does with a lock, a socket or a long computation


class HoldsAWorker(Actor):
    def on_receive(self, heard: threading.Event) -> bool:
        return heard.wait(20)


class AsksForever(Actor):
    def on_receive(self, message: Any) -> Any:
        return message.ask("?").get()


class Answers(Actor):
    async def on_receive(self, gate: Any) -> str:
        return "answered"


@pytest.mark.parametrize(
    ("kind", "what"), [(HoldsTheLoop, "the event loop"), (HoldsAWorker, "a worker thread")]
)
async def test_code_that_holds_a_loop_or_a_worker_is_named_with_its_line_and_stack(
    named: Named, kind: type[Actor], what: str
) -> None:
    async with ActorSystem(handlers=[]) as system:
        assert await (await system.spawn(kind)).ask(named.heard)
    record = named.records[0]
    assert f"code holds {what}" in record.getMessage()
    assert "test_watchdog.py" in record.uno_at
    assert record.uno_at.endswith("in on_receive")
    assert "return heard.wait(20)" in record.uno_stack
    assert record.uno_seconds >= 0.02


async def test_code_that_keeps_holding_is_named_again_after_twice_the_time(named: Named) -> None:
    class HoldsLong(Actor):
        def on_receive(self, message: Any) -> None:
            while len(named.records) < 3:
                named.heard.wait(20)
                named.heard.clear()

    async with ActorSystem(handlers=[]) as system:
        await (await system.spawn(HoldsLong)).ask("go")
    first, second, third = (record.uno_seconds for record in named.records[:3])
    assert second >= 1.9 * first
    assert third >= 1.9 * second


async def test_a_worker_that_waits_for_a_reply_holds_nothing(named: Named) -> None:
    """A spare thread takes its place."""
    gate = asyncio.Event()

    class Slow(Actor):
        async def on_receive(self, message: Any) -> str:
            await gate.wait()
            return "at last"

    async with ActorSystem(handlers=[]) as system:
        slow, asks = await system.spawn(Slow), await system.spawn(AsksForever)
        reply = asks.ask(slow)
        await until(lambda: system.statistics().dispatcher.workers.blocked == 1)
        await long_enough_to_be_named()
        gate.set()
        assert await reply == "at last"
    assert named.records == []


async def test_an_idle_system_is_never_named_and_the_watch_ends_with_it(named: Named) -> None:
    async with ActorSystem(handlers=[]) as system:
        actor = await system.spawn(HoldsAWorker)
        dispatcher = actor.actor_inbox.cell.dispatcher
        assert watchdog.watches(dispatcher)
        await long_enough_to_be_named()
    assert not watchdog.watches(dispatcher)
    assert named.records == []


async def test_stuck_plain_handlers_leave_threads_for_others(named: Named) -> None:
    go_on, seen = threading.Event(), list[int]()
    store = BankStore()
    stuck = HandlerSpec("stuck", lambda event: go_on.wait(), Credited, concurrency=2 * MAX_WORKERS)
    other = HandlerSpec("other", lambda event: seen.append(event.amount), Debited)
    async with ActorSystem(store, aggregates=[], handlers=[stuck, other]) as system:
        await store.append(*(Credited(amount=n, aggregate_id=f"a{n}") for n in range(2 * MAX_WORKERS)))
        await until(lambda: system.statistics().dispatcher.workers.busy >= MAX_WORKERS)
        await store.append(Debited(amount=1))
        await until(lambda: seen == [1])
        go_on.set()
