"""Every ask ends: in a reply, an error, `AskTimeout`, or `DeadlockError` where actors wait in a cycle."""

import asyncio
import threading
import time
from typing import Any

import pykka
import pytest

from tests.faults import between_take_and_handling
from tests.waiting import until
from uno_actors import (
    Actor,
    ActorRef,
    ActorSystem,
    AskTimeout,
    BlockingCallOnLoop,
    DeadlockError,
    ExitRaised,
    Future,
)
from uno_actors.actors.ask import Envelope, being_handled
from uno_actors.actors.future import GetTimeout, Reply
from uno_actors.actors.worker_pool import MAX_WORKERS


class Forwards(Actor):
    """Asks the actors named in the message, and returns their answer; on the event loop."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __str__(self) -> str:
        return self.name

    async def on_receive(self, message: Any) -> Any:
        route: list[ActorRef[Any]] = message
        if not route:
            return f"{self.name} was here"
        return await route[0].ask(route[1:])


class ForwardsBlocking(Forwards):
    """The same on worker threads."""

    def on_receive(self, message: Any) -> Any:  # type: ignore[override]  # plain here
        route: list[ActorRef[Any]] = message
        return route[0].ask(route[1:]).get() if route else f"{self.name} was here"


@pytest.mark.parametrize("kind", [Forwards, ForwardsBlocking])
async def test_actors_that_ask_each_other_get_a_deadlock_error_that_names_the_cycle(
    kind: type[Forwards],
) -> None:
    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        a, b, c = [await system.spawn(kind, name) for name in "ABC"]
        with pytest.raises(
            DeadlockError, match=r"deadlock: (A -> B -> C -> A|B -> C -> A -> B|C -> A -> B -> C)\."
        ):
            await a.ask(
                [b, c, a]
            )  # on threads it is not certain who is the last to wait and closes the cycle
        assert await a.ask([b, c]) == "C was here", "the cycle is broken and all continue"


async def test_cycles_of_coroutines_and_threads_are_found_too() -> None:
    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        a, b = await system.spawn(Forwards, "A"), await system.spawn(ForwardsBlocking, "B")
        for first, second in ((a, b), (b, a)):
            with pytest.raises(DeadlockError):
                await first.ask([second, first])


@pytest.mark.parametrize("kind", [Forwards, ForwardsBlocking])
async def test_an_actor_that_asks_itself_is_a_cycle(kind: type[Forwards]) -> None:
    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        a = await system.spawn(kind, "A")
        with pytest.raises(DeadlockError, match="A -> A"):
            await a.ask([a])


async def test_two_that_ask_each_other_at_the_same_time_do_not_hang() -> None:
    """The cycle closes only with the second ask; the actor that closes it gets the error, and so does the other."""
    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        a, b = await system.spawn(Forwards, "A"), await system.spawn(Forwards, "B")
        results = await asyncio.gather(a.ask([b, a]), b.ask([a, b]), return_exceptions=True)
        assert any(isinstance(result, DeadlockError) for result in results)


async def test_asking_in_turn_is_not_a_deadlock() -> None:
    """B may ask A when A, which asked B before, is free again."""
    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        a, b = await system.spawn(Forwards, "A"), await system.spawn(Forwards, "B")
        for _ in range(3):
            assert await a.ask([b]) == "B was here"
            assert await b.ask([a]) == "A was here"


async def test_waiting_for_the_first_of_several_is_never_taken_for_a_deadlock() -> None:
    """A waits for the first of two replies; it does no harm that one of them waits for A."""

    class FirstOf(Actor):
        async def on_receive(self, message: Any) -> Any:
            if message == "ping":
                return "pong"
            quick, slow = message

            async def wait(ref: ActorRef[Any], what: Any) -> Any:
                return await ref.ask(what)

            tasks = [
                asyncio.ensure_future(wait(quick, [])),
                asyncio.ensure_future(wait(slow, self.actor_ref)),
            ]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert pending
            return done.pop().result()

    answers: list[str] = []
    answered = asyncio.Event()

    class AsksBack(Actor):
        async def on_receive(self, message: Any) -> Any:
            answers.append(await message.ask("ping"))
            answered.set()

    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        a, b, c = await system.spawn(FirstOf), await system.spawn(Forwards, "B"), await system.spawn(AsksBack)
        assert await a.ask((b, c)) == "B was here"
        await answered.wait()
        assert answers == ["pong"]


async def test_an_ask_inherits_the_remaining_time_of_the_one_being_handled() -> None:
    begun = asyncio.Event()

    class Never(Actor):
        async def on_receive(self, message: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

    class Asks(Actor):
        async def on_receive(self, message: Any) -> Any:
            return await message.ask("anything", timeout=100)

    async with ActorSystem(handlers=[], stop_timeout=0.01) as system:
        never, asks = await system.spawn(Never), await system.spawn(Asks)
        with pytest.raises(AskTimeout, match=r"no reply from (Asks|Never)"):
            await asks.ask(never, timeout=0.05)
        assert begun.is_set()
        assert asks.is_alive()


async def test_a_task_that_outlives_its_handler_does_not_inherit_the_deadline() -> None:
    left_behind: list[asyncio.Task[Any]] = []

    class Leaves(Actor):
        async def on_receive(self, message: Any) -> str:
            async def later() -> Any:
                await go_on.wait()
                return await message.ask([])

            left_behind.append(asyncio.ensure_future(later()))
            return "done"

    go_on = asyncio.Event()
    async with ActorSystem(handlers=[]) as system:
        leaves, other = await system.spawn(Leaves), await system.spawn(Forwards, "B")
        assert await leaves.ask(other, timeout=0.5) == "done"
        handling = being_handled.get()
        assert handling is None
        go_on.set()
        assert await left_behind[0] == "B was here"


async def test_a_timeout_reports_what_the_actor_is_doing_and_the_place_in_the_queue() -> None:
    entered = asyncio.Event()

    class Slow(Actor):
        async def on_receive(self, message: Any) -> None:
            entered.set()
            await self.wait_for_the_moon()

        async def wait_for_the_moon(self) -> None:
            await asyncio.Event().wait()

    async with ActorSystem(handlers=[], stop_timeout=0.01) as system:
        slow = await system.spawn(Slow)
        slow.tell(b"first")
        await entered.wait()
        slow.tell("second")
        with pytest.raises(AskTimeout) as caught:
            await slow.ask("third", timeout=0.01)
        text = str(caught.value)
        assert "it was withdrawn and has no effect" in text
        assert "It was at place 2 of 2 in the mailbox" in text
        assert "has been handling bytes for" in text
        assert "test_asks.py:" in text
        assert "in wait_for_the_moon" in text
        assert not caught.value.started


async def test_a_timeout_names_the_line_of_a_blocked_worker_too() -> None:
    go_on = threading.Event()

    class Blocks(Actor):
        def on_receive(self, message: Any) -> None:
            self.block_here()

        def block_here(self) -> None:
            go_on.wait()

    async with ActorSystem(handlers=[]) as system:
        blocks = await system.spawn(Blocks)
        with pytest.raises(
            AskTimeout, match=r"has been handling str .*test_asks\.py:\d+ in block_here"
        ) as caught:
            await blocks.ask("anything", timeout=0.05)
        assert caught.value.started
        go_on.set()


@pytest.mark.parametrize("kind", [Forwards, ForwardsBlocking])
async def test_a_message_that_times_out_just_as_it_starts_is_not_reported_as_withdrawn(
    kind: type[Forwards], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ActorSystem(handlers=[]) as system:
        actor = await system.spawn(kind, "late")

        def late(envelope: Envelope) -> None:
            if isinstance(envelope.reply_to, Reply):
                envelope.reply_to.deadline = 0.0
                assert envelope.reply_to.done(), "another thread looks, in this very moment"

        between_take_and_handling(monkeypatch, late)
        with pytest.raises(AskTimeout) as caught:
            await actor.ask([])
        assert caught.value.started
        await until(lambda: actor.statistics().handled == 1)


@pytest.mark.parametrize("kind", [Forwards, ForwardsBlocking])
async def test_an_observer_sees_a_complete_record_as_soon_as_a_message_starts(
    kind: type[Forwards], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ActorSystem(handlers=[]) as system:
        actor = await system.spawn(kind, "new")
        cell: Any = actor.actor_inbox.cell

        def look() -> float:
            if cell.handling is not None:
                known.append(hasattr(cell.handling, "since"))
            return time.monotonic()

        known: list[bool] = []
        monkeypatch.setattr("uno_actors.actors.turns.monotonic", look)
        for _ in range(3):
            assert await actor.ask([]) == "new was here"
        assert all(known)


async def test_more_actors_than_worker_threads_may_wait_for_one_that_needs_a_worker_thread_too() -> None:
    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        one = await system.spawn(ForwardsBlocking, "one")
        many = [await system.spawn(ForwardsBlocking, f"asker-{n}") for n in range(3 * MAX_WORKERS)]
        replies = await asyncio.gather(*(asker.ask([one]) for asker in many))
        assert set(replies) == {"one was here"}


async def test_a_thread_that_a_handler_starts_without_waiting_is_never_taken_for_a_deadlock() -> None:
    """The thread waits for B, which waits until A is done; A waits for no one."""
    release = asyncio.Event()

    class StartsAThread(Actor):
        async def on_receive(self, message: Any) -> Any:
            def ask_and_wait() -> Any:
                replies.append(message.ask([self.actor_ref]))
                return replies[0].get()

            if isinstance(message, ActorRef):
                beside.append(asyncio.create_task(asyncio.to_thread(ask_and_wait)))
                await release.wait()
                return "started"
            return "A was here"

    beside: list[asyncio.Task[Any]] = []
    replies: list[Future[Any]] = []
    async with ActorSystem(handlers=[], ask_timeout=20) as system:
        a, b = await system.spawn(StartsAThread), await system.spawn(Forwards, "B")
        started = asyncio.ensure_future(_reply(a.ask(b)))
        await until(lambda: replies and (replies[0].waiters or replies[0].done()))
        await until(lambda: len(a.actor_inbox) == 1 or replies[0].done())
        release.set()
        assert await started == "started"
        assert await beside[0] == "A was here"


async def _reply(future: Future[Any]) -> Any:
    return await future


# --- six ways to wait forever in pykka 4.5.0 ---


class Raises(Actor):
    def on_receive(self, message: Any) -> Any:
        raise message


def test_a_mapped_future_whose_function_raises_not_implemented_error_ends() -> None:
    def not_yet(value: int) -> int:
        raise NotImplementedError(value)

    future: Future[int] = Future()
    future.set(1)
    with pytest.raises(NotImplementedError):
        future.map(not_yet).get(timeout=5)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_ask_whose_handler_raises_system_exit_or_keyboard_interrupt_ends(error: BaseException) -> None:
    with ActorSystem(handlers=[]) as system:
        ref = system.spawn(Raises).get(timeout=5)
        with pytest.raises(ExitRaised, match=type(error).__name__):
            ref.ask(error, block=True, timeout=5)
        assert ref.is_alive()
    alone = Raises.start()
    with pytest.raises(ExitRaised, match=type(error).__name__):
        alone.ask(error, timeout=5)
    assert not alone.is_alive()


def test_an_ask_that_races_with_the_end_of_the_actor_ends() -> None:
    """From many threads at once, while the actor stops: each gets the reply or the error that the actor is dead."""
    for _ in range(20):
        ref = Forwards.start("A")
        outcomes: list[object] = []

        def ask(ref: pykka.ActorRef[Forwards] = ref, outcomes: list[object] = outcomes) -> None:
            try:
                outcomes.append(ref.ask([], timeout=5))
            except pykka.ActorDeadError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads[:4]:
            thread.start()
        ref.stop(block=False)
        for thread in threads[4:]:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 8
        assert all(
            outcome == "A was here" or isinstance(outcome, pykka.ActorDeadError) for outcome in outcomes
        )


def test_a_get_with_timeout_ends_in_time_while_another_thread_is_inside_the_hook() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hook(timeout: float | None) -> int:
        if timeout is None:
            inside.set()
            go_on.wait()
        return 3

    future: Future[int] = Future()
    future.set_get_hook(hook)
    other = threading.Thread(target=future.get)
    other.start()
    inside.wait()
    assert future.get(timeout=0.01) == 3
    go_on.set()
    other.join()


def test_stop_all_after_a_base_exception_ends_though_actors_wait_for_each_other() -> None:
    class WaitsFor(Actor):
        def on_receive(self, message: Any) -> Any:
            return message.ask("go on", timeout=None)

    class Bombs(Actor):
        def on_receive(self, message: Any) -> Any:
            lit.wait()
            raise SystemExit

    lit = threading.Event()
    bomb, waits = Bombs.start(), WaitsFor.start()
    waits.tell(bomb)
    bomb.tell("explode")
    lit.set()
    assert bomb.actor_stopped.wait(5)
    assert waits.actor_stopped.wait(5)


def test_blocking_on_the_loop_is_an_error_and_does_not_hang() -> None:
    class Blocks(Actor):
        async def on_receive(self, message: Any) -> Any:
            return message.ask([]).get()

    with ActorSystem(handlers=[]) as system:
        blocks, other = system.spawn(Blocks).get(timeout=5), system.spawn(Forwards, "B").get(timeout=5)
        with pytest.raises(BlockingCallOnLoop, match="await future"):
            blocks.ask(other).get(timeout=5)


def test_a_get_that_times_out_reports_how_long_it_waited() -> None:
    with pytest.raises(GetTimeout, match=r"no result within 0.01 seconds"):
        Future[int]().get(timeout=0.01)
