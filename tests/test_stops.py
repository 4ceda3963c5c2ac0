"""A system that stops, fails or is abandoned at awkward moments: no caller keeps waiting, nothing is stuck."""

import asyncio
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pykka
import pytest

from tests.bank import Account, Balance, Credit, Credited
from tests.faults import router_is_called, router_is_suspended
from tests.machine import patience
from tests.waiting import turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    Backoff,
    Cluster,
    EventHandler,
    InvalidHandler,
    OutcomeUnknown,
    Supervisor,
    SupervisorGaveUp,
    SystemNotRunning,
    subscribe,
)
from uno_actors.clock import Clock
from uno_actors.store.membership import Membership
from uno_actors.store.port import Lease
from uno_actors.testing import MemoryNetwork
from uno_stores import InMemoryEventStore, LmdbEventStore
from uno_stores.memory_nodes import MemoryMembership, MemoryNodes


def credited(amount: int) -> Credited:
    return Credited(amount=amount, aggregate_id="alice", aggregate_type="Account")


async def test_a_stop_under_load_answers_every_accepted_command_with_its_certain_outcome(
    tmp_path: Path,
) -> None:
    """A healthy store never gives OutcomeUnknown, and commands sent after the stop began are refused."""
    outcomes: list[object] = []
    async with ActorSystem(f"lmdb:{tmp_path / 'store'}", handlers=[]) as system:

        async def client(name: str) -> None:
            while True:
                try:
                    outcomes.append(await system.aggregate(Account, name).ask(Credit(amount=1)))
                except (SystemNotRunning, OutcomeUnknown) as error:
                    outcomes.append(error)
                    return

        clients = [asyncio.ensure_future(client(f"account-{n % 7}")) for n in range(50)]
        await until(lambda: len(outcomes) > 500)
        await system.stop()
        await asyncio.gather(*clients)
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert len(errors) == 50
    assert all(isinstance(error, SystemNotRunning) for error in errors)
    async with LmdbEventStore(tmp_path / "store") as store:
        assert await store.last_position() == len(outcomes) - len(errors)


async def test_a_handler_that_fails_while_it_is_stopped_stays_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uno_actors.system.runtime.DRAIN_SHARE", 0)
    inside, go_on = asyncio.Event(), asyncio.Event()

    @subscribe(event_type=Credited, name="fails late")
    async def fails_late(event: Credited) -> None:
        inside.set()
        await go_on.wait()
        raise ValueError("too late")

    slow = Supervisor(
        "slow", [fails_late], max_restarts=None, backoff=Backoff(initial=100, max=100, jitter=0)
    )
    async with ActorSystem(handlers=[], supervisors=[slow], stop_timeout=20) as system:
        await system.store.append(credited(1))
        await inside.wait()
        stopping = asyncio.ensure_future(system.stop())
        await until(lambda: system.statistics().handlers["fails late"].state == "stopped")
        go_on.set()
        await asyncio.wait_for(stopping, patience(5))
        assert system.statistics().handlers["fails late"].state == "stopped"


async def test_an_error_that_cannot_be_shown_is_a_failure_like_any_other() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

        __repr__ = __str__

    seen: list[int] = []

    @subscribe(event_type=Credited, name="unspeakable", max_attempts=2)
    def unspeakable(event: Credited) -> None:
        if event.amount == 1:
            raise Unspeakable
        if event.amount == 2:
            raise ValueError("half a character: \ud83d")
        seen.append(event.amount)

    quick = Supervisor("quick", [unspeakable], max_restarts=None, backoff=Backoff(initial=0, max=0))
    store = InMemoryEventStore()
    async with ActorSystem(store, handlers=[], supervisors=[quick]) as system:
        await store.append(credited(1), credited(2), credited(3))
        await system.settled()
        assert seen == [3]
        errors = [letter.error for letter in await store.dead_letters()]
        assert errors == ["Unspeakable (its text cannot be shown)", "ValueError: half a character: \\ud83d"]


async def test_a_router_whose_store_failed_for_long_notices_new_events_again() -> None:
    class Fails(InMemoryEventStore):
        failing = False

        async def read_log(self, after: int = 0, limit: int = 512) -> Any:
            if self.failing:
                raise OSError("the disk is gone")
            return await super().read_log(after, limit)

    seen: list[int] = []

    @subscribe(event_type=Credited, name="listener")
    async def listen(event: Credited) -> None:
        seen.append(event.amount)

    store = Fails()
    async with ActorSystem(store, handlers=[listen]) as system:
        store.failing = True
        await store.append(credited(1))
        await until(lambda: router_is_suspended(system))
        for _ in range(2000):  # more than its mailbox holds
            router_is_called(system)
        store.failing = False
        await until(lambda: seen == [1])
        await store.append(credited(2))
        await until(lambda: seen == [1, 2])


def _append_elsewhere(path: str) -> None:
    async def append() -> None:
        async with LmdbEventStore(path) as store:
            await store.append(credited(7))

    asyncio.run(append())


async def test_events_of_another_process_reach_handlers_too(tmp_path: Path) -> None:
    seen: list[int] = []

    @subscribe(event_type=Credited, name="listener")
    async def listen(event: Credited) -> None:
        seen.append(event.amount)

    async with ActorSystem(f"lmdb:{tmp_path / 'store'}", handlers=[listen]) as system:
        other = multiprocessing.get_context("spawn").Process(
            target=_append_elsewhere, args=[str(tmp_path / "store")]
        )
        other.start()
        await asyncio.to_thread(other.join)
        assert other.exitcode == 0
        await system.settled()
        assert seen == [7]


async def test_a_stop_waits_for_an_actor_that_is_stopping_by_itself() -> None:
    done: list[str] = []

    class Tidies(Actor):
        async def on_receive(self, message: Any) -> None:
            self.stop()

        async def on_stop(self) -> None:
            await turns(50)
            done.append("tidy")

    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Tidies)
        ref.tell("go")
        await until(lambda: not ref.is_alive())
    assert done == ["tidy"]


async def test_a_start_that_never_ends_is_answered_when_the_system_stops() -> None:
    forever = threading.Event()

    class NeverStarts(Actor):
        def on_start(self) -> None:
            forever.wait()

        def on_receive(self, message: Any) -> None: ...

    async with ActorSystem(handlers=[], stop_timeout=0.05) as system:
        starting = system.spawn(NeverStarts)
        await turns()
    with pytest.raises(pykka.ActorDeadError, match="abandoned while it started"):
        await starting
    forever.set()


async def test_a_store_that_fails_in_any_way_does_not_keep_a_system_from_stopping() -> None:
    class Broken(InMemoryEventStore):
        broken = False

        async def last_position(self) -> int:
            if self.broken:
                raise OSError("the disk is gone")
            return await super().last_position()

    stopped: list[str] = []

    class Tidies(Actor):
        async def on_receive(self, message: Any) -> None: ...

        async def on_stop(self) -> None:
            stopped.append("tidy")

    store = Broken()
    async with ActorSystem(store, handlers=[]) as system:
        await system.spawn(Tidies)
        store.broken = True
    assert stopped == ["tidy"]
    assert store.listeners == 0


async def test_a_start_that_fails_ends_in_its_time_although_the_store_has_begun_to_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uno_actors.system.system.CLOSE_TIME", 0.05)
    gave_up = asyncio.Event()

    class Hanging(Lease):
        async def release(self) -> None:
            gave_up.set()
            await asyncio.Event().wait()

    class HangingMembership(MemoryMembership):
        async def withdraw(self) -> None:
            await asyncio.Event().wait()

    class HangingStore(InMemoryEventStore):
        def membership(self, seconds: float, clock: Clock) -> Membership:
            return HangingMembership(MemoryNodes(), seconds, clock, lambda: None)

        async def lease(self, name: str) -> Lease | None:
            return Hanging()

    @subscribe(name="cannot_start", event_type=Credited)
    class CannotStart(EventHandler[Credited]):
        def __init__(self) -> None:
            raise RuntimeError("not today")

        async def handle(self, event: Credited) -> None: ...

    cluster = Cluster(listen=MemoryNetwork())
    system = ActorSystem(HangingStore(), aggregates=[], handlers=[CannotStart], cluster=cluster)
    async with asyncio.timeout(patience(10)):
        with pytest.raises(RuntimeError, match="not today"):
            await system.start()
    assert gave_up.is_set()


@pytest.mark.parametrize(
    "wrong",
    [
        {"passivate_after": 0},
        {"passivate_after": -1},
        {"ask_timeout": 0},
        {"max_active": 0},
        {"stop_timeout": -1},
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"{name} must .* found {wrong[name]}"):
        ActorSystem(handlers=[], **wrong)


def test_two_handlers_of_one_name_are_refused_and_neither_is_dropped() -> None:
    @subscribe(event_type=Credited, name="mail")
    def one(event: Credited) -> None: ...

    @subscribe(event_type=Credited, name="mail")
    def two(event: Credited) -> None: ...

    with pytest.raises(InvalidHandler, match="two handlers are named 'mail'"):
        ActorSystem(handlers=[one], supervisors=[Supervisor("post", [two])])
    ActorSystem(handlers=[one], supervisors=[Supervisor("post", [one])])  # the same one may be named twice


async def test_an_error_raised_to_many_waiters_does_not_grow_with_them() -> None:
    store = InMemoryEventStore()
    async with ActorSystem(store, handlers=[]) as system:
        await store.close()
        replies = [system.aggregate(Account, "alice").ask(Balance()) for _ in range(50)]
        lengths = set()
        for reply in replies:
            with pytest.raises(Exception, match="it was closed") as caught:
                await reply
            lengths.add(len(caught.traceback))
        assert max(lengths) < 20


async def test_a_waiting_service_gets_the_error_of_a_supervisor_that_gave_up() -> None:
    @subscribe(event_type=Credited, name="hopeless")
    def hopeless(event: Credited) -> None:
        raise ValueError("never")

    strict = Supervisor("strict", [hopeless], max_restarts=0)
    with pytest.raises(SupervisorGaveUp, match="hopeless failed again after 0 restarts"):
        async with ActorSystem(handlers=[], supervisors=[strict]) as system:
            await system.store.append(credited(1))
            await system.wait_stopped()
            raise AssertionError("never reached")


async def test_a_waiting_service_continues_when_the_system_is_stopped() -> None:
    async with ActorSystem(handlers=[]) as system:
        waiting = asyncio.ensure_future(system.wait_stopped())
        await turns()
        assert not waiting.done()
        await system.stop()
        await waiting
