import asyncio
import threading
from datetime import timedelta

import pytest

from tests.bank import EVENTS, Account, Credit, Credited, Debited
from uno_actors import ActorSystem
from uno_actors.testing import ManualClock, Probe
from uno_stores import InMemoryEventStore


async def test_a_probe_waits_for_the_events_of_a_system(probe: Probe) -> None:
    store = InMemoryEventStore(EVENTS)
    async with ActorSystem(store, aggregates=[Account], handlers=[probe.handler(Credited)]) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
        event = await probe.expect(Credited, lambda event: event.amount == 5)
        assert event.aggregate_id == "alice"
        await probe.expect_nothing()


async def test_a_probe_takes_an_event_by_its_topic() -> None:
    probe, store = Probe("by topic"), InMemoryEventStore(EVENTS)
    handlers = [probe.handler(topic_pattern="bank.credited", start="earliest")]
    await store.append(Debited(amount=1, aggregate_id="a", aggregate_type="Account"))
    await store.append(Credited(amount=2, aggregate_id="a", aggregate_type="Account"))
    async with ActorSystem(store, aggregates=[Account], handlers=handlers):
        assert (await probe.expect(Credited)).amount == 2


async def test_a_probe_is_an_actor_that_replies() -> None:
    probe = Probe(reply=lambda message: message * 2)
    async with ActorSystem(handlers=[]) as system:
        ref = await probe.spawn(system)
        assert await ref.ask(21) == 42
        ref.tell("told")
        assert await probe.expect(int) == 21
        assert await probe.expect() == "told"


async def test_messages_come_in_order_and_a_wrong_one_is_reported() -> None:
    probe = Probe("mine")
    probe.receive(1)
    probe.receive("two")
    with pytest.raises(AssertionError, match="mine expected str and got 1"):
        await probe.expect(str)
    with pytest.raises(AssertionError, match="mine expected str for which the condition holds and got 'two'"):
        await probe.expect(str, str.isupper)


async def test_other_messages_can_be_skipped() -> None:
    probe = Probe()
    for message in (1, 2, "three", 4):
        probe.receive(message)
    assert await probe.fish(str) == "three"
    assert probe.messages == [4]


async def test_a_missing_message_is_reported_with_those_that_came() -> None:
    probe = Probe("mine")
    probe.receive(1)
    await probe.expect(int)
    with pytest.raises(AssertionError, match="mine got no str in time; before that came: 1"):
        await probe.expect(str, timeout=0.02)
    assert probe.waiting == 0


async def test_an_unexpected_message_is_reported() -> None:
    probe = Probe()
    asyncio.get_running_loop().call_later(0.01, probe.receive, "late")
    with pytest.raises(AssertionError, match="expected nothing and got 'late'"):
        await probe.expect_nothing(within=10)
    assert probe.messages == ["late"]


def test_a_synchronous_program_waits_too(probe: Probe) -> None:
    thread = threading.Timer(0.01, probe.receive, args=("from afar",))
    thread.start()
    assert probe.wait_for(str) == "from afar"
    thread.join()


async def test_a_probe_takes_a_class_and_not_a_message(probe: Probe) -> None:
    for wait in (probe.expect, probe.fish):
        with pytest.raises(TypeError, match="expect takes a class of messages, .*; found 'paid'"):
            await wait("paid")  # type: ignore[call-overload]


async def test_a_coroutine_cannot_wait_as_a_synchronous_program_does(probe: Probe) -> None:
    with pytest.raises(RuntimeError, match="would block the event loop: await probe.expect"):
        probe.wait_for(object)


def test_time_passes_by_a_timedelta_and_never_back() -> None:
    clock, due = ManualClock(), list[str]()
    clock.call_later(3600, lambda: due.append("an hour"))
    clock.advance(timedelta(minutes=59))
    assert due == []
    clock.advance(timedelta(minutes=1))
    assert due == ["an hour"]
    before = clock.now
    for passes in (clock.advance, clock.leap):
        for back in (-1, timedelta(seconds=-1)):
            with pytest.raises(ValueError, match="time passes by 0 seconds or more; found -1"):
                passes(back)
    assert clock.now == before
