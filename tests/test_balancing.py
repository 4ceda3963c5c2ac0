"""Handlers are spread evenly over the nodes that can run them, the same on every node."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors.handlers.balancing import preferred_holders
from uno_actors.store.handler_names import partition_name
from uno_actors.store.membership import Member

NODES = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=7, unique=True)


def member(
    name: str, handlers: Iterable[str], *, leaving: bool = False, roles: Sequence[str] = ("handlers",)
) -> Member:
    return Member(id=name, name=name, handlers=tuple(handlers), roles=tuple(roles), leaving=leaving)


def names(count: int) -> list[str]:
    return [f"handler-{number}" for number in range(count)]


@st.composite
def mixed_members(draw: st.DrawFn) -> list[Member]:
    """Nodes that can run different handlers, several of them the same."""
    kinds = draw(st.lists(st.sets(st.sampled_from(names(12))), min_size=1, max_size=3))
    return [member(node, sorted(draw(st.sampled_from(kinds)))) for node in draw(NODES)]


@given(NODES, st.integers(0, 40))
def test_no_node_is_more_than_one_off_balance(nodes: list[str], count: int) -> None:
    holders = preferred_holders(member(node, names(count)) for node in nodes)
    held = Counter(holders.values())
    assert sorted(holders) == sorted(names(count))
    assert max(held[node] for node in nodes) - min(held[node] for node in nodes) <= 1


@given(NODES, st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_partitions_of_each_handler_are_spread_evenly_too(nodes: list[str], counts: list[int]) -> None:
    """A heavy handler among light ones must not be left to a few nodes."""
    handlers = [
        partition_name(f"part-{which}", number + 1, count) if count > 1 else f"whole-{which}-{number}"
        for which, count in enumerate(counts)
        for number in range(count)
    ]
    holders = preferred_holders(member(node, handlers) for node in nodes)
    for part in [None, *(f"part-{which}" for which in range(len(counts)))]:
        held = Counter(
            node for handler, node in holders.items() if part is None or handler.startswith(f"{part}@")
        )
        assert max(held[node] for node in nodes) - min(held[node] for node in nodes) <= 1


@given(mixed_members())
def test_nodes_that_can_run_the_same_are_balanced_also_among_others(members: list[Member]) -> None:
    holders = preferred_holders(members)
    held = Counter(holders.values())
    able = {each.id: set(each.handlers) for each in members}
    assert set(holders) == set().union(*able.values())
    assert all(handler in able[node] for handler, node in holders.items())
    for handler, node in holders.items():
        for other, handlers in able.items():
            if handler in handlers:  # moving it there would help nothing
                assert held[node] - held[other] <= 1


@given(mixed_members(), st.randoms(use_true_random=False))
def test_every_node_computes_the_same(members: list[Member], chance: random.Random) -> None:
    shuffled = chance.sample(members, len(members))
    assert preferred_holders(members) == preferred_holders(shuffled)


@given(mixed_members(), NODES)
def test_nodes_that_leave_or_are_not_for_handlers_change_nothing(
    members: list[Member], others: list[str]
) -> None:
    known = {each.id for each in members}
    added = [
        member(
            f"{node}!",
            names(12),
            leaving=number % 2 == 0,
            roles=("aggregates",) if number % 2 else ("handlers",),
        )
        for number, node in enumerate(others)
    ]
    assert {each.id for each in added}.isdisjoint(known)
    assert preferred_holders([*members, *added]) == preferred_holders(members)


@pytest.mark.parametrize(("count", "nodes"), [(16, 2), (16, 3), (48, 3), (100, 7)])
def test_few_handlers_move_when_a_node_joins_or_leaves(count: int, nodes: int) -> None:
    """The least that can move is the share of the node; on average at most twice that moves."""
    chance, moved, tries = random.Random(7), 0, 40
    for _ in range(tries):
        ids = [f"{chance.getrandbits(64):x}" for _ in range(nodes + 1)]
        before = preferred_holders(member(node, names(count)) for node in ids[:-1])
        after = preferred_holders(member(node, names(count)) for node in ids)
        moved += sum(before[name] != after[name] for name in names(count))
    assert moved / tries <= 2 * count / (nodes + 1)


def test_without_nodes_nothing_is_preferred() -> None:
    assert preferred_holders([]) == {}
