"""Futures: set from anywhere, awaited on a loop, got on a thread."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import SimpleNamespace

import pykka
import pytest

from tests.waiting import turns
from uno_actors import BlockingCallOnLoop, Future, WorldError, get_all
from uno_actors.actors.future import GetTimeout, Reply


def on_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


class Boom(Exception):
    pass


# --- setting and getting ---


def test_get_returns_the_value_that_was_set() -> None:
    future: Future[int] = Future()
    assert not future.done()
    future.set(3)
    assert future.done()
    assert future.get() == 3
    assert future.get() == 3, "as often as one likes"


def test_none_is_a_value_too() -> None:
    future: Future[None] = Future()
    future.set()
    assert future.done()
    assert future.get() is None


def test_an_error_that_is_set_is_raised() -> None:
    future: Future[int] = Future()
    future.set_exception(Boom("bang"))
    with pytest.raises(Boom, match="bang"):
        future.get()


def test_the_error_being_handled_is_the_default() -> None:
    future: Future[int] = Future()
    try:
        raise Boom("bang")
    except Boom:
        future.set_exception()
    with pytest.raises(Boom, match="bang") as caught:
        future.get()
    assert caught.traceback[-1].name == "test_the_error_being_handled_is_the_default"


def test_an_error_class_alone_is_instantiated() -> None:
    future: Future[int] = Future()
    future.set_exception((Boom, None, None))
    with pytest.raises(Boom):
        future.get()


def test_set_exception_needs_an_error() -> None:
    with pytest.raises(TypeError, match="needs an error"):
        Future().set_exception()


@pytest.mark.parametrize("first", ["value", "error"])
def test_a_second_result_is_refused_and_changes_nothing(first: str) -> None:
    future: Future[int] = Future()
    if first == "value":
        future.set(1)
    else:
        future.set_exception(Boom())
    with pytest.raises(queue.Full):
        future.set(2)
    with pytest.raises(queue.Full):
        future.set_exception(ValueError())
    assert not future.offer(2)
    assert not future.offer_exception(ValueError())
    if first == "value":
        assert future.get() == 1
    else:
        with pytest.raises(Boom):
            future.get()


def test_get_waits_for_another_thread() -> None:
    future: Future[int] = Future()
    waiting, got = threading.Event(), []

    def wait() -> None:
        waiting.set()
        got.append(future.get())

    thread = on_thread(wait)
    waiting.wait()
    future.set(5)
    thread.join()
    assert got == [5]


def test_get_raises_after_its_timeout_and_may_be_tried_again() -> None:
    future: Future[int] = Future()
    with pytest.raises(GetTimeout, match=r"no result within 0\.01 seconds") as caught:
        future.get(timeout=0.01)
    assert isinstance(caught.value, pykka.Timeout)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, WorldError)
    assert caught.value.seconds == 0.01
    assert future.waiters == 0, "who waits no more is forgotten"
    future.set(1)
    assert future.get(timeout=0) == 1


def test_a_timeout_of_zero_does_not_wait() -> None:
    with pytest.raises(GetTimeout):
        Future().get(timeout=0)


def test_only_one_of_many_threads_sets_it() -> None:
    for _ in range(50):
        future: Future[int] = Future()
        barrier = threading.Barrier(4)

        def offer(number: int, future: Future[int] = future, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return future.offer(number)

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(offer, range(4)))
        assert won.count(True) == 1
        assert won[future.get()]


# --- awaiting ---


async def test_await_gives_the_value_and_lets_the_loop_run() -> None:
    future: Future[str] = Future()
    asyncio.get_running_loop().call_soon(future.set, "hello")
    assert await future == "hello"
    assert await future == "hello"


async def test_await_raises_the_error() -> None:
    future: Future[str] = Future()
    asyncio.get_running_loop().call_soon(future.set_exception, Boom("bang"))
    with pytest.raises(Boom, match="bang"):
        await future


async def test_many_tasks_await_one_future() -> None:
    future: Future[int] = Future()
    tasks = [asyncio.ensure_future(_awaited(future)) for _ in range(10)]
    await turns()
    future.set(4)
    assert await asyncio.gather(*tasks) == [4] * 10


async def test_a_value_set_on_a_thread_wakes_the_loop() -> None:
    future: Future[int] = Future()
    waiter = asyncio.ensure_future(_awaited(future))
    await turns()
    on_thread(lambda: future.set(6))
    assert await waiter == 6


async def test_two_loops_await_one_future() -> None:
    future: Future[int] = Future()
    waiting, got = threading.Event(), []

    async def there() -> None:
        asyncio.get_running_loop().call_soon(waiting.set)
        got.append(await future)

    thread = on_thread(lambda: asyncio.run(there()))
    here = asyncio.ensure_future(_awaited(future))
    await asyncio.to_thread(waiting.wait)
    future.set(7)
    assert await here == 7
    await asyncio.to_thread(thread.join)
    assert got == [7]


async def test_get_on_the_thread_of_a_loop_is_an_error_that_says_to_await() -> None:
    future: Future[int] = Future()
    with pytest.raises(BlockingCallOnLoop, match="await future"):
        future.get()
    with pytest.raises(BlockingCallOnLoop):
        future.get(timeout=1)
    with pytest.raises(BlockingCallOnLoop):
        future.map(abs).get()
    future.set(-1)
    assert future.get() == -1, "what is there already blocks nobody"
    assert future.map(abs).get() == 1


async def test_a_cancelled_await_leaves_the_future_intact() -> None:
    future: Future[int] = Future()
    gives_up = asyncio.ensure_future(_awaited(future))
    stays = asyncio.ensure_future(_awaited(future))
    await turns()
    assert future.waiters == 2
    gives_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gives_up
    assert future.waiters == 1
    future.set(1)
    assert await stays == 1


async def test_an_await_with_a_timeout_may_be_repeated() -> None:
    future: Future[int] = Future()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await future
    future.set(2)
    assert await future == 2


async def test_a_result_at_the_moment_of_the_cancellation_does_no_harm() -> None:
    future: Future[int] = Future()
    task = asyncio.ensure_future(_awaited(future))
    await turns()
    future.set(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await future == 1


def test_a_result_for_a_loop_that_was_closed_reaches_the_others() -> None:
    future: Future[int] = Future()
    loop = asyncio.new_event_loop()
    coroutine = _awaited(future)
    task = loop.create_task(coroutine)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.close()
    heard: list[int] = []
    future.add_done_callback(lambda done: heard.append(done.get()))
    future.set(1)
    assert heard == [1]
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # nothing can end it any more
    coroutine.close()


# --- callbacks ---


def test_callbacks_run_once_in_order_on_the_thread_that_sets() -> None:
    future: Future[int] = Future()
    calls: list[tuple[str, int, str]] = []
    for name in "ab":
        future.add_done_callback(
            lambda done, name=name: calls.append((name, done.get(), threading.current_thread().name))  # type: ignore[misc]
        )
    thread = threading.Thread(target=lambda: future.set(1), name="setter")
    thread.start()
    thread.join()
    assert calls == [("a", 1, "setter"), ("b", 1, "setter")]


def test_a_callback_on_a_done_future_runs_at_once() -> None:
    future: Future[int] = Future()
    future.set(1)
    seen: list[Future[int]] = []
    future.add_done_callback(seen.append)
    assert seen == [future]


def test_a_callback_that_raises_harms_neither_the_setter_nor_other_callbacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future: Future[int] = Future()
    heard: list[int] = []

    def fail(_: Future[int]) -> None:
        raise Boom("in a callback")

    future.add_done_callback(fail)
    future.add_done_callback(lambda done: heard.append(done.get()))
    future.set(1)
    assert heard == [1]
    assert "in a callback" in caplog.text


def test_a_callback_may_add_another() -> None:
    future: Future[int] = Future()
    heard: list[str] = []
    future.add_done_callback(lambda done: done.add_done_callback(lambda _: heard.append("inner")))
    future.set(1)
    assert heard == ["inner"]


def test_callbacks_of_a_derived_future_run_when_it_is_computed() -> None:
    future: Future[int] = Future()
    doubled = future.map(lambda value: value * 2)
    heard: list[int] = []
    doubled.add_done_callback(lambda done: heard.append(done.get()))
    future.set(4)
    assert doubled.get() == 8
    assert heard == [8]


# --- hooks ---


def test_a_get_hook_computes_the_value_once() -> None:
    future: Future[int] = Future()
    timeouts: list[float | None] = []

    def compute(timeout: float | None) -> int:
        timeouts.append(timeout)
        return 9

    future.set_get_hook(compute)
    assert future.get(timeout=5) == 9
    assert future.get() == 9
    assert timeouts == [5]


def test_a_hook_and_a_value_exclude_each_other() -> None:
    future: Future[int] = Future()
    future.set_get_hook(lambda _: 1)
    with pytest.raises(queue.Full):
        future.set(2)
    done: Future[int] = Future()
    done.set(1)
    with pytest.raises(queue.Full):
        done.set_get_hook(lambda _: 2)


async def test_a_hook_that_blocks_is_awaited_without_blocking_the_loop() -> None:
    future: Future[int] = Future()
    go_on = threading.Event()

    def compute(_: float | None) -> int:
        go_on.wait()
        return 1

    future.set_get_hook(compute)
    waiter = asyncio.ensure_future(_awaited(future))
    await turns()
    go_on.set()  # reached only if the loop is free
    assert await waiter == 1


# --- deriving ---

DERIVED = [
    ("map", lambda one, two: one.map(sum), 6),
    ("filter", lambda one, two: one.filter(lambda item: item > 1), [2, 3]),
    ("reduce", lambda one, two: one.reduce(lambda a, b: a * b), 6),
    ("reduce from", lambda one, two: one.reduce(lambda a, b: a * b, 10), 60),
    ("join", lambda one, two: one.join(two), [[1, 2, 3], "two"]),
    ("chain", lambda one, two: one.join(two).map(len).map(str), "2"),
]


@pytest.mark.parametrize(("derive", "expected"), [row[1:] for row in DERIVED], ids=[r[0] for r in DERIVED])
def test_a_derived_future_can_be_got(derive: Callable[..., Future[object]], expected: object) -> None:
    one: Future[list[int]] = Future()
    two: Future[str] = Future()
    derived = derive(one, two)
    with pytest.raises(GetTimeout):
        derived.get(timeout=0.001)
    one.set([1, 2, 3])
    two.set("two")
    assert derived.get(timeout=5) == expected


@pytest.mark.parametrize(("derive", "expected"), [row[1:] for row in DERIVED], ids=[r[0] for r in DERIVED])
async def test_a_derived_future_can_be_awaited_without_blocking_the_loop(
    derive: Callable[..., Future[object]], expected: object
) -> None:
    one: Future[list[int]] = Future()
    two: Future[str] = Future()
    waiter = asyncio.ensure_future(_awaited(derive(one, two)))
    await turns()
    assert not waiter.done()
    two.set("two")
    one.set([1, 2, 3])
    assert await waiter == expected


def test_the_function_of_a_derived_future_runs_once_and_only_when_asked_for() -> None:
    future: Future[int] = Future()
    calls: list[int] = []
    mapped = future.map(calls.append)
    future.set(1)
    assert calls == []
    mapped.get()
    mapped.get()
    assert calls == [1]


async def test_errors_of_sources_and_functions_come_out_of_derived_futures() -> None:
    failed: Future[int] = Future()
    failed.set_exception(Boom("source"))
    with pytest.raises(Boom, match="source"):
        await failed.map(abs)
    with pytest.raises(Boom, match="source"):
        failed.map(abs).get()
    fine: Future[int] = Future()
    fine.set(0)
    with pytest.raises(ZeroDivisionError):
        await fine.map(lambda value: 1 // value)
    with pytest.raises(Boom, match="source"):
        await fine.join(failed)


async def test_a_join_with_a_future_of_pykka_does_not_block_the_loop() -> None:
    one: Future[int] = Future()
    one.set(1)
    theirs: pykka.ThreadingFuture[int] = pykka.ThreadingFuture()
    waiter = asyncio.ensure_future(_awaited(one.join(theirs)))
    await turns()
    theirs.set(2)  # reached only if the loop is free
    assert await waiter == [1, 2]


def test_the_repr_shows_whether_it_is_done() -> None:
    future: Future[int] = Future()
    assert repr(future) == "<Future pending>"
    future.set(1)
    assert repr(future) == "<Future done>"


async def _awaited(future: Future[int]) -> int:
    return await future


# --- all of several ---


def test_get_all_returns_the_results_in_the_order_of_the_futures() -> None:
    futures: list[Future[int]] = [Future() for _ in range(3)]
    for number in (2, 0, 1):
        futures[number].set(number)
    assert get_all(futures) == [0, 1, 2]
    assert get_all([]) == []


def test_get_all_has_one_timeout_for_all() -> None:
    """Unlike pykka's, which has one for each: the first reply comes in time, and the second gets the remaining time."""

    class Asked(Future[int]):
        def get(self, *, timeout: float | None = None) -> int:
            given.append(timeout or 0.0)
            threading.Event().wait(0.05)
            return super().get(timeout=timeout)

    given: list[float] = []
    first, second = Asked(), Asked()
    first.set(1)
    with pytest.raises(GetTimeout, match=r"no result within 0.1 seconds"):
        get_all([first, second], timeout=0.1)
    assert given[0] <= 0.1
    assert given[1] <= given[0] - 0.05


def test_get_all_raises_the_error_of_the_first_that_has_one() -> None:
    fine: Future[int] = Future()
    fine.set(1)
    late: Future[int] = Future()
    late.set_exception(GetTimeout(3))
    with pytest.raises(GetTimeout, match="within 3 seconds"):
        get_all([fine, late], timeout=10)


async def test_get_all_on_a_loop_is_an_error_and_join_is_the_way() -> None:
    futures: list[Future[int]] = [Future() for _ in range(2)]
    with pytest.raises(BlockingCallOnLoop):
        get_all(futures)
    for number, future in enumerate(futures):
        future.set(number)
    assert await futures[0].join(*futures[1:]) == [0, 1]


# --- replies, which are waited for until their deadline ---


class Silent:
    """A target that never answers."""

    handling = None

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def run_inline(self) -> None: ...

    def late(self, reply: object, message: str, seconds: float) -> Exception:
        return Boom(f"{message} after {seconds:g}")

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        self.timers.append((seconds, callback))
        return asyncio.get_running_loop().call_later(1000, lambda: None)


def test_a_reply_that_does_not_arrive_is_an_error_for_a_caller_of_get() -> None:
    reply: Reply[int] = Reply(Silent(), 0.01, str)
    with pytest.raises(Boom, match="str after 0.01"):
        reply.get()
    assert reply.done()
    assert not reply.offer(1), "it is too late"


def test_a_shorter_timeout_of_one_get_applies_to_that_get_only() -> None:
    reply: Reply[int] = Reply(Silent(), 100, str)
    with pytest.raises(GetTimeout):
        reply.get(timeout=0.001)
    assert not reply.done()
    reply.set(1)
    assert reply.get() == 1


def test_a_reply_that_times_out_between_two_checks_names_the_actor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = count()
    monkeypatch.setattr("uno_actors.actors.future.time", SimpleNamespace(monotonic=lambda: next(moments)))
    for seconds in range(1, 6):
        reply: Reply[int] = Reply(Silent(), seconds, str)
        with pytest.raises(Boom):
            reply.get()


async def test_a_reply_that_does_not_arrive_is_an_error_for_a_task_that_awaits_it() -> None:
    reply: Reply[int] = Reply(Silent(), 0.01, str)
    with pytest.raises(Boom):
        await reply


def test_done_is_true_after_a_reply_has_timed_out() -> None:
    reply: Reply[int] = Reply(Silent(), 0, str)
    assert reply.done()
    with pytest.raises(Boom):
        reply.get()


async def test_callbacks_are_called_when_a_reply_times_out() -> None:
    silent = Silent()
    reply: Reply[int] = Reply(silent, 7, str)
    heard: list[object] = []
    reply.add_done_callback(heard.append)
    ((seconds, expire),) = silent.timers
    assert 6 < seconds <= 7
    expire()
    assert heard == [reply]


def test_one_of_several_results_wins_and_every_callback_is_called_once() -> None:
    """Many threads offer results and wait for one, at the same time."""
    for _ in range(200):
        future: Future[int] = Future()
        heard: list[int] = []
        won: list[int] = []
        barrier = threading.Barrier(6)

        def offer(
            number: int,
            future: Future[int] = future,
            won: list[int] = won,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            if future.offer(number):
                won.append(number)

        def listen(
            future: Future[int] = future, heard: list[int] = heard, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            future.add_done_callback(lambda done: heard.append(done.get()))

        threads = [threading.Thread(target=offer, args=[number]) for number in range(3)]
        threads += [threading.Thread(target=listen) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert heard == won * 3
