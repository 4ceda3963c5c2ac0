"""The event loop and the worker threads on which actors run."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future as ThreadFuture
from contextvars import ContextVar
from typing import Any

import pytest

from tests.faults import no_default_dispatcher
from tests.machine import patience
from tests.waiting import turns, until
from uno_actors.actors.dispatcher import Dispatcher, default_dispatcher
from uno_actors.actors.loop_thread import LoopThread
from uno_actors.actors.worker_pool import WorkerPool, blocking

label: ContextVar[str] = ContextVar("label", default="none")


@pytest.fixture
async def dispatcher() -> Any:
    made = Dispatcher(asyncio.get_running_loop(), max_workers=4)
    yield made
    made.close()


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    made = LoopThread("test-loop")
    yield made
    if not made.loop.is_closed():
        made.close()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("uno-worker")]


# --- posting ---


async def test_posted_callbacks_run_in_order_and_not_at_once(dispatcher: Dispatcher) -> None:
    calls: list[int] = []
    for number in range(5):
        dispatcher.post(lambda number=number: calls.append(number))  # type: ignore[misc]
    assert calls == []
    await turns(2)
    assert calls == [0, 1, 2, 3, 4]


async def test_a_callback_posted_by_a_callback_runs_in_a_later_turn_of_the_loop(
    dispatcher: Dispatcher,
) -> None:
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        dispatcher.post(lambda: calls.append("posted by first"))
        asyncio.get_running_loop().call_soon(calls.append, "called soon by first")

    dispatcher.post(first)
    dispatcher.post(lambda: calls.append("second"))
    await turns()
    assert calls[:2] == ["first", "second"]
    assert sorted(calls[2:]) == ["called soon by first", "posted by first"]


async def test_threads_post_in_their_order_and_nothing_is_lost(dispatcher: Dispatcher) -> None:
    calls: list[tuple[int, int]] = []

    def post_many(thread: int) -> None:
        for number in range(500):
            dispatcher.post(lambda number=number: calls.append((thread, number)))  # type: ignore[misc]

    threads = [threading.Thread(target=post_many, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    await until(lambda: len(calls) == 2000)
    for thread in threads:
        thread.join()
    for thread_number in range(4):
        assert [number for thread, number in calls if thread == thread_number] == list(range(500))


async def test_call_runs_at_once_on_the_loop_and_soon_from_a_thread(dispatcher: Dispatcher) -> None:
    calls: list[str] = []
    dispatcher.call(lambda: calls.append("here"))
    assert calls == ["here"]
    assert dispatcher.is_current()

    def from_a_thread() -> bool:
        dispatcher.call(lambda: calls.append(threading.current_thread().name))
        return dispatcher.is_current()

    assert not await asyncio.to_thread(from_a_thread)
    await until(lambda: len(calls) == 2)
    assert calls[1] == threading.current_thread().name


async def test_a_callback_that_fails_does_not_affect_the_others(dispatcher: Dispatcher) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    calls: list[str] = []

    def fail() -> None:
        raise ValueError("a callback")

    dispatcher.post(lambda: calls.append("before"))
    dispatcher.post(fail)
    dispatcher.post(lambda: calls.append("after"))
    await turns()
    assert calls == ["before", "after"]
    (report,) = reports
    assert report["message"] == "a posted callback failed"
    assert str(report["exception"]) == "a callback"


async def test_a_posted_callback_does_not_inherit_the_context_of_its_poster(dispatcher: Dispatcher) -> None:
    seen: list[str] = []
    token = label.set("mine")
    dispatcher.post(lambda: seen.append(label.get()))
    await turns()
    label.reset(token)
    assert seen == ["none"]


def test_posting_to_a_closed_loop_does_no_harm() -> None:
    """An abandoned worker thread may still report its result."""
    loop = asyncio.new_event_loop()
    loop.close()
    dispatcher = Dispatcher(loop)
    dispatcher.post(lambda: None)
    dispatcher.call(lambda: None)
    dispatcher.close()


# --- worker threads ---


def submit(pool: WorkerPool, function: Callable[[], Any]) -> ThreadFuture[Any]:
    """Run it and return the outcome."""
    future: ThreadFuture[Any] = ThreadFuture()
    pool.submit(lambda: future.set_result(function()))
    return future


async def test_a_plain_function_runs_on_a_worker_and_its_result_comes_back(dispatcher: Dispatcher) -> None:
    name, argument = await dispatcher.on_worker(lambda value: (threading.current_thread().name, value), 3)
    assert name.startswith("uno-worker")
    assert argument == 3


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_an_error_in_a_worker_comes_back(dispatcher: Dispatcher, error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("from a worker")

    with pytest.raises(error):
        await dispatcher.on_worker(fail)
    assert await dispatcher.on_worker(lambda: 1) == 1, "the worker lives on"


async def test_stop_iteration_from_a_worker_comes_back_as_a_runtime_error(dispatcher: Dispatcher) -> None:
    """No coroutine can raise it; a forgotten default of `next()` must not make a caller hang."""
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await asyncio.wait_for(dispatcher.on_worker(lambda: next(iter(()))), patience(5))
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_a_coroutine_runs_on_the_loop_while_a_worker_waits(dispatcher: Dispatcher) -> None:
    async def where(value: int) -> tuple[str, int]:
        return threading.current_thread().name, value

    answer = await dispatcher.on_worker(lambda: dispatcher.run_coroutine(where(4)))
    assert answer == (threading.current_thread().name, 4)


def test_system_exit_in_a_coroutine_for_a_worker_does_not_end_the_loop(loop_thread: LoopThread) -> None:
    dispatcher = Dispatcher(loop_thread.loop)

    async def leave() -> None:
        raise SystemExit(3)

    async def fine() -> str:
        return "still here"

    with pytest.raises(SystemExit):
        dispatcher.run_coroutine(leave())
    assert dispatcher.run_coroutine(fine()) == "still here"
    dispatcher.close()


def test_the_pool_is_bounded_and_reuses_idle_threads() -> None:
    pool, gate = WorkerPool(3), threading.Event()
    running = threading.Semaphore(0)

    def work() -> str:
        running.release()
        gate.wait()
        return threading.current_thread().name

    futures = [submit(pool, work) for _ in range(8)]
    for _ in range(3):
        running.acquire()
    assert pool.statistics().threads == 3
    assert not running.acquire(blocking=False), "a fourth runs only when one is done"
    gate.set()
    assert len({future.result(5) for future in futures}) <= 3
    for _ in range(20):
        submit(pool, threading.get_ident).result(5)
    assert pool.statistics().threads == 3
    pool.close()


def test_calls_one_after_another_need_one_thread() -> None:
    pool = WorkerPool(8)
    for _ in range(30):
        submit(pool, threading.get_ident).result(5)
        while not pool.statistics().idle:  # it has the result before the thread counts itself idle
            pass
    assert pool.statistics().threads == 1
    pool.close()


def test_as_many_run_at_once_as_the_bound_allows() -> None:
    """Whatever ran before, the count of idle threads stays right."""
    pool = WorkerPool(5)
    for width in (1, 5, 2, 5, 3, 5):
        barrier = threading.Barrier(width + 1)
        futures = [submit(pool, barrier.wait) for _ in range(width)]
        barrier.wait(10)
        for future in futures:
            future.result(5)
    pool.close()


def test_after_a_burst_a_blocked_thread_is_still_replaced() -> None:
    """Work that had to wait for a thread must not make the pool count more idle threads than it has."""
    pool, gate = WorkerPool(2, 4), threading.Event()

    def stand_still() -> None:
        with blocking():
            gate.wait(10)

    for future in [submit(pool, threading.get_ident) for _ in range(200)]:
        future.result(5)
    standing = [submit(pool, stand_still) for _ in range(2)]
    assert submit(pool, lambda: "spare").result(5) == "spare"
    gate.set()
    for future in standing:
        future.result(5)
    pool.close()


def test_blocked_threads_are_replaced_up_to_the_limit() -> None:
    pool, gate = WorkerPool(2, 3), threading.Event()
    held = [submit(pool, gate.wait) for _ in range(2)]
    waiting = submit(pool, lambda: "spare")
    pool.relieve(0)
    assert pool.statistics().threads == 2
    pool.relieve(2)
    assert waiting.result(5) == "spare"
    assert pool.statistics().threads == 3, "no more than are needed"
    held += [submit(pool, gate.wait) for _ in range(9)]
    pool.relieve(9)
    assert pool.statistics().threads == 5
    gate.set()
    assert all(future.result(5) for future in held)
    pool.close()


async def test_a_thread_that_waits_for_a_coroutine_counts_as_blocked(dispatcher: Dispatcher) -> None:
    gate = asyncio.Event()
    waiting = [
        asyncio.create_task(dispatcher.on_worker(dispatcher.run_coroutine, gate.wait())) for _ in range(4)
    ]
    await until(lambda: dispatcher.workers.statistics().blocked == 4)
    assert await dispatcher.on_worker(lambda: "spare") == "spare"
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 4


def test_closing_lets_every_thread_end() -> None:
    before = set(workers())
    pool, gate = WorkerPool(3), threading.Event()
    futures = [submit(pool, gate.wait) for _ in range(5)]
    mine = set(workers()) - before
    assert len(mine) == 3
    pool.close()
    gate.set()
    assert [future.result(5) for future in futures] == [True] * 5, "what was accepted is done"
    for thread in mine:
        thread.join(patience(5))
        assert not thread.is_alive()


def test_work_submitted_after_closing_is_still_done_and_leaves_no_thread_behind() -> None:
    pool = WorkerPool(2)
    before = set(workers())
    submit(pool, threading.get_ident).result(5)
    mine = set(workers()) - before
    pool.close()
    for thread in mine:
        thread.join(patience(5))
    late = [submit(pool, lambda: "late") for _ in range(5)]
    assert [future.result(5) for future in late] == ["late"] * 5
    for thread in set(workers()) - before:
        thread.join(patience(5))
        assert not thread.is_alive()


# --- a loop on a thread of its own ---


def test_a_loop_thread_runs_coroutines_and_raises_their_errors(loop_thread: LoopThread) -> None:
    async def name() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise ValueError("there")

    assert loop_thread.run(name()) == "test-loop"
    with pytest.raises(ValueError, match="there"):
        loop_thread.run(fail())


def test_system_exit_in_a_coroutine_does_not_end_the_loop_thread(loop_thread: LoopThread) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def fine() -> int:
        return 1

    with pytest.raises(SystemExit):
        loop_thread.run(leave())
    assert loop_thread.run(fine()) == 1


def test_closing_a_loop_thread_cancels_running_tasks_and_ends_the_thread(loop_thread: LoopThread) -> None:
    cancelled = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def begin() -> None:
        loop_thread.task = asyncio.create_task(forever())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    loop_thread.run(begin())
    loop_thread.close()
    assert cancelled.is_set()
    assert loop_thread.loop.is_closed()
    assert not loop_thread.is_alive()


def test_closing_a_loop_thread_does_not_wait_for_a_task_that_refuses_to_end(
    loop_thread: LoopThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("uno_actors.actors.loop_thread.CANCEL_SECONDS", 0.01)
    task: asyncio.Task[None]

    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def begin() -> None:
        nonlocal task
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)

    loop_thread.run(begin())
    loop_thread.close()
    assert not loop_thread.is_alive()
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # nothing can end it any more


def test_there_is_one_default_dispatcher_and_a_new_one_after_its_loop_was_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_default_dispatcher(monkeypatch)
    thread = LoopThread("first")
    monkeypatch.setattr("uno_actors.actors.dispatcher.LoopThread", lambda _: thread)
    first = default_dispatcher()
    assert default_dispatcher() is first
    thread.close()
    thread = LoopThread("second")
    second = default_dispatcher()
    assert second is not first
    assert second.loop is thread.loop
    thread.close()
