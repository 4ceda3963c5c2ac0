"""The network for nodes of one process: what it loses, delays and cuts, on the manual clock and from a seed."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_links import Node, Sent, never, unknown

from tests.cluster.faults import deadlines_kept
from tests.waiting import ManualClock, turns, until
from uno_actors.cluster.links.open_requests import OpenRequests
from uno_actors.cluster.links.port import LARGEST, Answer, Delivery, LinkFailure
from uno_actors.testing import MemoryNetwork


class Net:
    """Nodes on one network and the manual clock."""

    def __init__(self, names: str = "ab", **options: Any) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(clock=self.clock, **options)
        self.names = names

    async def start(self) -> list[Node]:
        return [await Node(self.network.link(), name).start() for name in self.names]


async def test_messages_travel_by_the_clock() -> None:
    net = Net(delay=2.0, seed=1)
    a, b = await net.start()
    sent = a.send(b, b"12")
    await turns()
    assert b.served == []
    net.clock.advance(2.0)
    assert b.served == [b"12"]
    net.clock.advance(2.0)
    assert sent.outcome == b"21"


async def test_messages_overtake_each_other_when_they_are_delayed() -> None:
    net = Net(delay=1.0, seed=2)
    a, b = await net.start()
    for n in range(20):
        a.send(b, bytes([n]))
    net.clock.advance(1.0)
    assert sorted(b.served) == [bytes([n]) for n in range(20)] != b.served


async def test_a_lost_message_ends_at_the_deadline_and_may_have_arrived() -> None:
    net = Net(drop=0.5, seed=3)
    a, b = await net.start()
    sent = [a.send(b, bytes([n]), 10.0) for n in range(100)]
    await turns()
    net.clock.advance(10.0)
    ends = [each.outcome for each in sent]
    answered = sum(isinstance(end, bytes) for end in ends)
    assert 10 < answered < 45
    assert answered < len(b.served) < 75  # answers are lost, too
    assert {end.delivery for end in ends if isinstance(end, LinkFailure)} == {Delivery.UNKNOWN}


async def test_nodes_that_are_cut_notice_it_and_then_know_that_nothing_arrives() -> None:
    net = Net("abc", notice=1.0)
    a, b, c = await net.start()
    b.serve = lambda body, answer: None
    before = a.send(b, b"before")
    await turns()
    net.network.cut("a", "b")
    soon = a.send(b, b"soon")
    await turns()
    assert not before.outcomes
    net.clock.advance(1.0)
    unknown(before.outcome)
    unknown(soon.outcome)
    later = a.send(b, b"later")
    net.clock.advance(1.0)
    never(later.outcome)
    assert b.served == [b"before"]
    assert await a.ask(c, b"12") == b"21"
    net.network.heal("a", "b")
    b.serve = lambda body, answer: answer(b"healed")
    assert await a.ask(b, b"12") == b"healed"


async def test_a_node_is_cut_off_from_all_and_joined_again() -> None:
    net = Net("abc")
    a, b, c = await net.start()
    net.network.isolate("a")
    net.clock.advance(1.0)
    lost = [a.send(b, b"1"), c.send(a, b"2")]
    net.clock.advance(1.0)
    for each in lost:
        never(each.outcome)
    assert await b.ask(c, b"12") == b"21"
    net.network.heal("a")
    assert await a.ask(b, b"12") == b"21"


async def test_a_node_that_hangs_gets_its_requests_later_when_their_askers_have_gone() -> None:
    net = Net(notice=1.0)
    a, b = await net.start()
    net.network.hang("b")
    sent = a.send(b, b"1")
    await turns()
    net.clock.advance(1.0)
    unknown(sent.outcome)
    never_sent = a.send(b, b"2")
    net.clock.advance(1.0)
    never(never_sent.outcome)
    net.network.wake("b")
    await turns()
    assert b.served == [b"1"]
    assert len(sent.outcomes) == 1
    assert await a.ask(b, b"12") == b"21"


async def test_a_killed_node_says_nothing_more() -> None:
    net = Net()
    a, b = await net.start()
    waiting: list[Answer] = []
    b.serve = lambda body, answer: waiting.append(answer)
    a.serve = lambda body, answer: None
    to, by = a.send(b, b"1"), b.send(a, b"2")
    await until(lambda: waiting and a.served)
    net.network.kill("b")
    waiting[0](b"from the grave")
    await turns()
    unknown(to.outcome)
    unknown(by.outcome)
    never(await a.ask(b, b"3"))
    never(await b.ask(a, b"4"))
    assert net.network.nodes() == ["a"]


def run(seed: int, coroutine: Any) -> Any:
    return asyncio.run(coroutine(seed))


async def _story(seed: int) -> list[object]:
    """A run by chance: what was served, and how each request ended."""
    chance = random.Random(seed)
    net = Net("abc", drop=0.1, delay=0.5, notice=1.0, seed=seed)
    nodes = await net.start()
    sent: list[tuple[str, bytes, Sent]] = []
    for n in range(150):
        source, target = chance.sample(nodes, 2)
        sent.append((target.name, bytes([n]), source.send(target, bytes([n]), chance.choice([0.2, 5.0]))))
        match chance.randrange(14):
            case 0:
                net.network.cut(source.name, target.name)
            case 1:
                net.network.heal()
            case 2:
                net.network.hang(target.name)
            case 3:
                net.network.wake(target.name)
            case 4:
                source.link.forget(target.address)
        net.clock.advance(chance.random() * 0.2)
        await turns(2)
    for name in "abc":
        net.network.wake(name)
    net.clock.advance(20.0)
    await turns()
    served = {name: node.served for name, node in zip("abc", nodes, strict=True)}
    for target_name, body, each in sent:
        assert len(each.outcomes) == 1
        assert served[target_name].count(body) <= 1
        if isinstance(each.outcome, bytes):
            assert body in served[target_name]
        elif each.outcome.delivery is Delivery.NEVER:
            assert body not in served[target_name]
    return [served, [each.outcome for _, _, each in sent]]


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_each_request_ends_once_and_never_means_never(seed: int) -> None:
    first = asyncio.run(_story(seed))
    assert asyncio.run(_story(seed)) == first, "a seed repeats its run"


# --- open requests -----------------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 40), st.floats(0, 10)),
        st.tuples(st.sampled_from(["sent", "end", "fail"]), st.integers(1, 30), st.none()),
        st.tuples(st.just("advance"), st.floats(0, 5), st.none()),
    ),
    max_size=60,
)


@given(steps)
def test_each_open_request_ends_once_in_time_and_the_window_is_kept(todo: list[tuple[Any, Any, Any]]) -> None:
    clock = ManualClock()
    requests = OpenRequests(clock, "node b", window=5, window_bytes=100)
    outcomes: dict[int, list[bytes | LinkFailure]] = {}
    until_when: dict[int, float] = {}
    sizes: dict[int, int] = {}
    sent: set[int] = set()
    for step, value, seconds in todo:
        open_now = {number for number, ends in outcomes.items() if not ends}
        if step == "add":
            failure = requests.refusal(value)
            is_full = len(open_now) >= 5 or sum(sizes[number] for number in open_now) + value > 100
            assert (failure is not None and failure.full) == is_full
            if failure is None:
                ends: list[bytes | LinkFailure] = []
                number = requests.add(value, seconds, ends.append)
                outcomes[number], until_when[number], sizes[number] = ends, clock.now + seconds, value
        elif step == "advance":
            clock.advance(value)
        elif step == "sent":
            if requests.sent(value):
                sent.add(value)
        elif step == "end":
            requests.end(value, b"yes")
        else:
            requests.fail(value, "no")
        for number, ends in outcomes.items():
            assert len(ends) <= 1
            assert ends or until_when[number] >= clock.now or step != "advance"
            for end in ends:
                if isinstance(end, LinkFailure):
                    assert (end.delivery is Delivery.UNKNOWN) == (number in sent)
    requests.close("closed")
    assert all(len(ends) == 1 for ends in outcomes.values())
    assert clock.pending() == 0


def test_deadlines_of_requests_that_have_ended_do_not_pile_up() -> None:
    clock = ManualClock()
    requests = OpenRequests(clock, "node b")
    for _ in range(20_000):
        requests.end(requests.add(1, 3600.0, lambda outcome: None), b"")
    assert deadlines_kept(requests) < 2000
    assert clock.pending() == 1


def test_a_request_that_is_too_large_is_refused_and_does_not_count_as_full() -> None:
    failure = OpenRequests(ManualClock(), "node b").refusal(LARGEST + 1)
    assert failure is not None
    assert not failure.full
