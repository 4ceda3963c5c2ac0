"""The life of actors in a system: names, children, death watch, timers."""

import asyncio
import contextlib
import threading
from functools import partial
from typing import Any

import pykka
import pytest

from tests.faults import turn_is_taken_with
from tests.machine import patience
from tests.waiting import ManualClock, turns, until
from uno_actors import Actor, ActorRef, ActorSystem, AskTimeout, MailboxPolicy, NameTaken, Terminated
from uno_actors.actors.ask import Envelope
from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.actors.mailbox import make_mailbox
from uno_actors.actors.worker_pool import MAX_WORKERS
from uno_actors.testing import inspect


class Notes(Actor):
    """Records the messages that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    async def on_receive(self, message: Any) -> Any:
        self.heard.append(message)
        if isinstance(message, pykka.ActorRef):
            self.watch(message)
        if message == "fail":
            raise ValueError(message)
        return self.heard


class Parent(Actor):
    """Has children when it starts, and records the order in which all of them stop."""

    def __init__(self, name: str, stopped: list[str], children: int = 0) -> None:
        super().__init__()
        self.name = name
        self.stopped = stopped
        self.children = children

    async def on_start(self) -> None:
        for number in range(self.children):
            await self.spawn(type(self), f"{self.name}.{number}", self.stopped)

    async def on_receive(self, message: Any) -> Any:
        if message == "fail":
            raise ValueError(message)
        return message

    async def on_stop(self) -> None:
        self.stopped.append(self.name)


class BlockingParent(Parent):
    """The same on worker threads."""

    def on_start(self) -> None:  # type: ignore[override]  # plain here
        for number in range(self.children):
            self.spawn(type(self), f"{self.name}.{number}", self.stopped).get(timeout=5)

    def on_receive(self, message: Any) -> Any:  # type: ignore[override]  # plain here
        return message

    def on_stop(self) -> None:  # type: ignore[override]  # plain here
        self.stopped.append(self.name)


# --- names ---


async def test_an_actor_is_found_by_its_name_while_it_lives() -> None:
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Notes, name="notes")
        assert system.actor("notes") is ref
        assert system.actor("nobody") is None
        with pytest.raises(NameTaken, match=r"the name 'notes' belongs to Notes .*: stop it first"):
            system.spawn(Notes, name="notes")
        ref.stop(block=False)
        await until(lambda: system.actor("notes") is None)
        again = await system.spawn(Notes, name="notes")
        assert system.actor("notes") is again


async def test_systems_side_by_side_do_not_share_names() -> None:
    async with ActorSystem(handlers=[]) as one, ActorSystem(handlers=[]) as two:
        ref = await one.spawn(Notes, name="notes")
        assert two.actor("notes") is None
        other = await two.spawn(Notes, name="notes")
        assert one.actor("notes") is ref is not other


async def test_a_system_forgets_actors_that_have_ended() -> None:
    async with ActorSystem(handlers=[]) as system:
        before = len(inspect(system).actors)
        for _ in range(50):
            ref = await system.spawn(Notes)
            ref.stop(block=False)
        await until(lambda: len(inspect(system).actors) == before)


# --- children ---


@pytest.mark.parametrize("kind", [Parent, BlockingParent])
async def test_children_stop_before_their_parent_the_last_started_first(kind: type[Parent]) -> None:
    stopped: list[str] = []
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(kind, "parent", stopped, 3)
        ref.stop(block=False)
        await until(lambda: len(stopped) == 4)
    assert stopped == ["parent.2", "parent.1", "parent.0", "parent"]


async def test_more_parents_than_worker_threads_may_stop_with_children_that_need_a_worker_thread_too() -> (
    None
):
    stopped: list[str] = []
    async with ActorSystem(handlers=[]) as system:
        parents = [
            await system.spawn(BlockingParent, str(number), stopped, 1) for number in range(2 * MAX_WORKERS)
        ]
        stops = [parent.stop(block=False) for parent in parents]
        assert await asyncio.wait_for(asyncio.gather(*stops), patience(10)) == [True] * len(parents)
    assert len(stopped) == 2 * len(parents)


async def test_children_stop_when_their_parent_fails() -> None:
    stopped: list[str] = []
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Parent, "parent", stopped, 2)
        ref.tell("fail")
        await until(lambda: len(stopped) == 2)
        assert not ref.is_alive()


async def test_a_parent_keeps_no_child_that_has_ended_and_has_none_after_its_own_end() -> None:
    stopped: list[str] = []
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(Parent, "parent", stopped, 2)
        parent = ref.actor_inbox.cell
        second, first = parent.relations.children_last_first()
        await first.stop()
        assert parent.relations.children_last_first() == [second]
        await ref.stop(block=False)
        late = await parent.spawn(Parent("late", stopped))
        await until(lambda: not late.is_alive())
        assert stopped == ["parent.0", "parent.1", "parent", "late"]


class StopsSlowly(Actor):
    """On a worker thread."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping, self.go_on = threading.Event(), threading.Event()

    def on_receive(self, message: Any) -> Any:
        return message

    def on_stop(self) -> None:
        self.stopping.set()
        self.go_on.wait(10)


async def test_an_actor_has_ended_only_when_its_on_stop_has_even_if_two_threads_come_for_its_turns() -> None:
    """A thread that was woken once too often becomes idle while another one stops the actor."""
    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(StopsSlowly)
        cell = ref.actor_inbox.cell
        actor = cell.actor

        class Turn:
            def __init__(self) -> None:
                self.lock = threading.Lock()
                self.acquire = self.lock.acquire

            def release(self) -> None:
                self.lock.release()
                if not actor.stopping.is_set():
                    ref.actor_inbox.add_stop()
                    cell.turns.schedule()
                    actor.stopping.wait(10)

        turn_is_taken_with(cell, Turn())
        assert await ref.ask("anything") == "anything"
        await until(lambda: actor.stopping.is_set() and system.statistics().dispatcher.workers.busy == 1)
        assert ref.actor_urn in inspect(system).actors
        actor.go_on.set()
        await until(lambda: ref.actor_urn not in inspect(system).actors)


async def test_an_actor_outside_of_a_system_has_no_children() -> None:
    class Alone(Actor):
        def on_receive(self, message: Any) -> Any:
            return self.spawn(Notes)

    ref = Alone.start()
    with pytest.raises(RuntimeError, match="does not run in a system"):
        await asyncio.to_thread(lambda: ref.ask("anything", timeout=patience(5)))
    ref.stop(block=False)


# --- death watch ---


async def has_heard(notes: ActorRef, message: object) -> bool:
    return message in await notes.ask("and?")


async def test_a_watcher_receives_terminated_once_when_an_actor_stops_or_fails() -> None:
    async with ActorSystem(handlers=[]) as system:
        notes = await system.spawn(Notes)
        for end in ("stop", "fail"):
            watched = await system.spawn(Notes)
            await notes.ask(watched)
            watched.stop(block=False) if end == "stop" else watched.tell("fail")
            await until(partial(has_heard, notes, Terminated(watched)))
            assert not watched.is_alive()
            assert (await notes.ask("and?")).count(Terminated(watched)) == 1


async def test_watching_an_actor_that_is_already_dead_sends_terminated_at_once() -> None:
    async with ActorSystem(handlers=[]) as system:
        notes, watched = await system.spawn(Notes), await system.spawn(Notes)
        watched.stop(block=False)
        await until(lambda: not watched.is_alive())
        await notes.ask(watched)
        await until(lambda: system.statistics().dead_messages == 0)
        assert Terminated(watched) in await notes.ask("and?")


class Sorted(Notes):
    """Has room for one message, and a priority function that does not know `Terminated`."""

    mailbox = MailboxPolicy(capacity=1, priority=len)

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def on_receive(self, message: Any) -> Any:
        await self.gate.wait()
        return await super().on_receive(message)


async def test_terminated_reaches_a_full_mailbox_too_and_before_other_messages() -> None:
    async with ActorSystem(handlers=[]) as system:
        watcher, first, second = [await system.spawn(kind) for kind in (Sorted, Notes, Notes)]
        cell: Any = watcher.actor_inbox.cell
        watcher.tell("being handled")
        await until(lambda: watcher.statistics().state == "handling")
        watcher.tell("full")
        for watched in (first, second):
            cell.actor.watch(watched)
            assert await watched.stop(block=False), "a caller that waits for the end is notified"
        cell.actor.gate.set()
        await until(lambda: watcher.statistics().handled == 4)
        heard = await watcher.ask("and?")
        assert heard[:4] == ["being handled", Terminated(first), Terminated(second), "full"]
        assert not system.dead_messages()


async def test_an_actor_of_threads_cannot_be_watched_and_says_so() -> None:
    class OfThreads(pykka.ThreadingActor):
        pass

    async with ActorSystem(handlers=[]) as system:
        notes = await system.spawn(Notes)
        other = await asyncio.to_thread(OfThreads.start)
        with pytest.raises(TypeError, match="not an actor of this runtime"):
            await notes.ask(other)
        await asyncio.to_thread(other.stop)


# --- timers ---


class Ticks(Notes):
    """Starts the timers that its messages request."""

    async def on_receive(self, message: Any) -> Any:
        match message:
            case ("once", delay, what):
                self.timers.once(delay, what)
            case ("periodic", interval, what):
                self.timers.periodic(interval, what, key="tick")
            case ("cancel", key):
                self.timers.cancel(key)
            case _:
                return await super().on_receive(message)
        return None


async def heard(ref: ActorRef[Ticks]) -> list[Any]:
    await turns()
    return [message for message in await ref.ask("?") if message != "?"]


async def test_a_timer_sends_its_message_once_at_its_time() -> None:
    clock = ManualClock()
    async with ActorSystem(handlers=[], clock=clock) as system:
        ticks = await system.spawn(Ticks)
        await ticks.ask(("once", 5, "now"))
        clock.advance(4.9)
        assert await heard(ticks) == []
        clock.advance(0.1)
        assert await heard(ticks) == ["now"]
        clock.advance(100)
        assert await heard(ticks) == ["now"]


async def test_a_periodic_timer_repeats_until_it_is_cancelled() -> None:
    clock = ManualClock()
    async with ActorSystem(handlers=[], clock=clock) as system:
        ticks = await system.spawn(Ticks)
        await ticks.ask(("periodic", 10, "tick"))
        for _ in range(3):
            clock.advance(10)
        assert await heard(ticks) == ["tick"] * 3
        await ticks.ask(("cancel", "tick"))
        clock.advance(50)
        assert await heard(ticks) == ["tick"] * 3


async def test_a_timer_with_the_key_of_another_replaces_it() -> None:
    clock = ManualClock()
    async with ActorSystem(handlers=[], clock=clock) as system:
        ticks = await system.spawn(Ticks)
        await ticks.ask(("periodic", 10, "slow"))
        await ticks.ask(("periodic", 1, "quick"))
        clock.advance(3)
        assert await heard(ticks) == ["quick"] * 3


async def test_timers_end_with_the_actor() -> None:
    clock = ManualClock()
    async with ActorSystem(handlers=[], clock=clock) as system:
        await turns()
        before = clock.pending()
        ticks = await system.spawn(Ticks)
        await ticks.ask(("periodic", 10, "tick"))
        assert clock.pending() == before + 1
        ticks.stop(block=False)
        await until(lambda: clock.pending() == before)
        clock.advance(100)
        assert system.dead_messages() == []


async def test_a_timer_that_is_started_after_its_actor_has_ended_does_not_repeat_forever() -> None:
    clock = ManualClock()
    async with ActorSystem(handlers=[], clock=clock) as system:
        ref = await system.spawn(Ticks)
        timers = ref.actor_inbox.cell.timers
        await ref.stop(block=False)
        before = clock.pending()
        timers.periodic(1.0, "tick")
        clock.advance(3.0)
        assert clock.pending() == before
        assert not system.dead_messages()


async def test_a_plain_actor_on_a_worker_thread_has_timers_too() -> None:
    fired = threading.Event()

    class Alarm(Actor):
        def on_start(self) -> None:
            self.timers.once(0.001, "ring")

        def on_receive(self, message: Any) -> None:
            fired.set()

    async with ActorSystem(handlers=[]) as system:
        await system.spawn(Alarm)
        assert await asyncio.to_thread(fired.wait, 5)


async def test_an_invalid_timer_is_refused() -> None:
    async with ActorSystem(handlers=[]) as system:
        ticks = await system.spawn(Ticks)
        with pytest.raises(
            ValueError, match="delay must be a number of seconds that is not negative, .* found -1"
        ):
            await ticks.ask(("once", -1, "now"))
        with pytest.raises(ValueError, match="interval must be a positive number of seconds, .* found 0"):
            await ticks.ask(("periodic", 0, "tick"))


# --- statistics ---


async def test_an_actor_reports_its_current_state_and_counters() -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    class Works(Actor):
        async def on_start(self) -> None:
            await started.wait()

        async def on_receive(self, message: Any) -> Any:
            if message == "wait":
                begun.set()
                await gate.wait()
            if message == "aside":
                self.stash()
            if isinstance(message, BaseException):
                raise message

    started = asyncio.Event()
    async with ActorSystem(handlers=[]) as system:
        starting = system.spawn(Works, name="works")
        await turns()
        ref = system.actor("works")
        assert ref is not None
        assert ref.statistics().state == "starting"
        started.set()
        await starting
        for message in (1, "aside", ValueError()):
            with contextlib.suppress(ValueError):
                ref.ask(message) if message == "aside" else await ref.ask(message)
        idle = ref.statistics()
        assert (idle.actor, idle.state, idle.waiting, idle.oldest) == (str(ref), "idle", 0, None)
        assert (idle.handled, idle.failed, idle.restarts, idle.stashed) == (3, 1, 0, 1)
        ref.tell("wait")
        await begun.wait()
        for _ in range(5):
            ref.tell("more")
        busy = ref.statistics()
        assert (busy.state, busy.waiting, busy.peak) == ("handling", 5, 5)
        assert busy.oldest is not None
        assert busy.oldest >= 0
        assert "has been handling str" in busy.doing
        assert "in on_receive" in busy.doing
        gate.set()
        await until(lambda: ref.statistics().waiting == 0)
        after = ref.statistics()
        assert (after.handled, after.peak, after.oldest) == (9, 5, None)
        assert await ref.stop(block=False)
        assert ref.statistics().state == "stopped"


async def test_an_actor_that_has_a_name_is_shown_by_it() -> None:
    class Meter(Actor):
        async def on_receive(self, message: Any) -> None:
            await gate.wait()

    gate = asyncio.Event()
    async with ActorSystem(handlers=[]) as system:
        ref, other = await system.spawn(Meter, name="water"), await system.spawn(Meter)
        assert str(ref) == ref.statistics().actor == "Meter 'water'"
        assert str(other) == f"Meter ({other.actor_urn})"
        with pytest.raises(AskTimeout, match="^no reply from Meter 'water' to str"):
            await ref.ask("how much", timeout=0.01)
        gate.set()
    with pytest.raises(pykka.ActorDeadError, match="^Meter 'water' not found"):
        ref.tell("more")


async def test_the_oldest_message_is_the_one_that_has_waited_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("uno_actors.actors.ask.monotonic", lambda: now)
    monkeypatch.setattr("uno_actors.actors.mailbox.monotonic", lambda: now)
    mailbox = make_mailbox(MailboxPolicy(priority=lambda message: -message))
    assert mailbox.oldest() is None
    for number in range(3):
        mailbox.add(Envelope(number))
        now += 10
    assert mailbox.oldest() == 30
    mailbox.take()
    assert mailbox.oldest() == 30, "the last to come went first"


async def test_a_system_reports_its_actors_and_its_dispatcher() -> None:
    gate = threading.Event()

    class Blocks(Actor):
        def on_receive(self, message: Any) -> None:
            gate.wait()

    async with ActorSystem(handlers=[]) as system:
        before = system.statistics()
        ref, other = await system.spawn(Blocks), await system.spawn(Notes)
        ref.tell("block")
        await until(lambda: system.statistics().dispatcher.workers.busy == 1)
        other.tell("one")
        during = system.statistics()
        assert during.actors == before.actors + 2
        assert during.dispatcher.ready >= 1
        assert during.dispatcher.workers.threads >= 1
        gate.set()
        await until(lambda: system.statistics().dispatcher.workers.busy == 0)


async def test_a_system_reports_the_messages_of_all_its_actors_and_its_commands() -> None:
    gate = asyncio.Event()

    class Waits(Actor):
        async def on_receive(self, message: Any) -> None:
            if message == "fail":
                raise ValueError("asked for")
            await gate.wait()

    async with ActorSystem("memory:", handlers=[]) as system:
        idle = system.statistics()
        assert (idle.messages.waiting, idle.messages.oldest) == (0, None)
        assert (idle.commands_waiting, idle.oldest_command) == (0, None)
        refs = [await system.spawn(Waits) for _ in range(3)]
        with pytest.raises(ValueError, match="asked for"):
            await refs[0].ask("fail")
        for ref in refs:
            for _ in range(4):
                ref.tell("wait")
        await until(lambda: system.statistics().messages.waiting == 9)
        busy = system.statistics().messages
        assert busy.peak == 4
        assert busy.failed == 1
        assert busy.oldest is not None
        assert busy.oldest >= 0
        gate.set()
        await until(lambda: system.statistics().messages.waiting == 0)
        after = system.statistics()
        assert after.messages.handled - idle.messages.handled == 13
        assert after.dispatcher.oldest is None
        assert after.dispatcher.turns > idle.dispatcher.turns
        assert after.dispatcher.peak >= 3
        assert after.restarts == 0


async def test_a_dispatcher_reports_how_late_its_loop_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("uno_actors.actors.dispatcher.monotonic", lambda: now)
    dispatcher, late = Dispatcher(asyncio.get_running_loop()), list[float | None]()
    for _ in range(3):
        dispatcher.post(lambda: late.append(dispatcher.statistics().oldest))
    now += 2
    assert dispatcher.statistics().oldest == 2
    dispatcher.post(lambda: 1 / 0)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    await until(lambda: dispatcher.statistics().ready == 0)
    assert late == [2, 2, 2]
    told = dispatcher.statistics()
    assert (told.peak, told.oldest, told.turns, told.failed) == (4, None, 4, 1)
    dispatcher.close()
