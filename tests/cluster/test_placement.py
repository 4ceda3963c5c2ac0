"""Which node owns an aggregate: few moves, even shares, the same on every node, never a node that cannot serve."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from uno_actors.cluster.placement import SHARDS, Placement, serves, shard_of
from uno_actors.store.codec import StreamId
from uno_actors.store.membership import Member

STREAMS = [StreamId("Account", f"account-{number}") for number in range(3000)]


def node(name: str, **changes: object) -> Member:
    announced = Member(
        id=name,
        name=name,
        address=f"memory:{name}",
        commands=(("Account", ("Credit", "Debit")), ("User", ("Rename",))),
        roles=("aggregates", "handlers"),
    )
    return replace(announced, **changes)  # type: ignore[arg-type]


def owners(members: list[Member], command: str = "Credit") -> list[str | None]:
    placement = Placement(members)
    found = [placement.owner(stream, command) for stream in STREAMS]
    return [owner and owner.id for owner in found]


node_names = st.sets(st.text("abcdefgh0123", min_size=1, max_size=8), min_size=1, max_size=8)


@settings(max_examples=25)
@given(names=node_names, joining=st.text("xyz", min_size=1, max_size=4))
def test_a_node_that_joins_moves_only_the_aggregates_that_it_wins(names: set[str], joining: str) -> None:
    before = owners([node(name) for name in sorted(names)])
    after = owners([node(name) for name in (*sorted(names), joining)])
    assert all(new in (old, joining) for old, new in zip(before, after, strict=True))
    share = after.count(joining) / len(STREAMS)
    assert share < 3 / (len(names) + 1)


@settings(max_examples=25)
@given(names=node_names, data=st.data())
def test_a_node_that_leaves_moves_only_the_aggregates_that_it_had(
    names: set[str], data: st.DataObject
) -> None:
    assume(len(names) > 1)
    leaving = data.draw(st.sampled_from(sorted(names)))
    before = owners([node(name) for name in names])
    after = owners([node(name, leaving=name == leaving) for name in names])
    assert all(new == old for old, new in zip(before, after, strict=True) if old != leaving)
    assert leaving not in after


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_shares_of_equal_nodes_are_even_within_ten_percent(count: int) -> None:
    """Of the shards, each as large as the next; on average over clusters of other names."""
    shares = [0] * count
    for cluster in range(20):
        placement = Placement([node(f"node-{cluster}-{number}") for number in range(count)])
        by_shard = {shard_of(stream): placement.owner(stream, "Credit") for stream in STREAMS}
        for owner in by_shard.values():
            assert owner is not None
            shares[int(owner.id.rsplit("-", 1)[1])] += 1
    average = sum(shares) / count
    assert all(abs(share - average) <= 0.1 * average for share in shares), shares


def test_a_node_of_twice_the_capacity_owns_twice_as_many() -> None:
    large = small = 0
    for cluster in range(20):
        found = owners([node(f"small-{cluster}"), node(f"large-{cluster}", capacity=2.0)])
        large += found.count(f"large-{cluster}")
        small += found.count(f"small-{cluster}")
    assert 1.8 < large / small < 2.2


def test_aggregates_are_spread_over_all_shards() -> None:
    shards = [shard_of(stream) for stream in STREAMS]
    assert set(shards) <= set(range(SHARDS))
    assert len(set(shards)) > 0.9 * SHARDS
    assert shard_of(StreamId("Account", "alice")) != shard_of(StreamId("User", "alice"))


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_placement import node, owners
print(owners([node(name) for name in sys.argv[2:]]))
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_every_node_computes_the_same_owners(seed: str) -> None:
    """In another process, with other hashes of strings and the members in another order."""
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), "c", "a", "b"]
    there = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == repr(owners([node("a"), node("b"), node("c")]))


def test_the_shard_of_an_aggregate_is_the_same_in_every_version() -> None:
    """Nodes of two versions run side by side during a deployment."""
    assert [shard_of(stream) for stream in STREAMS[:4]] == [868, 356, 965, 177]


UNFIT = {
    "does not know the type": {"commands": (("User", ("Rename",)),)},
    "does not know the command": {"commands": (("Account", ("Debit",)),)},
    "is only for handlers": {"roles": ("handlers",)},
    "leaves": {"leaving": True},
    "accepts no requests": {"address": None},
}


@pytest.mark.parametrize("unfit", UNFIT.values(), ids=UNFIT)
def test_a_node_that_cannot_serve_a_command_is_never_chosen(unfit: dict[str, object]) -> None:
    other = node("other", **unfit)
    assert not serves(other, "Account", "Credit")
    assert set(owners([node("able"), other])) == {"able"}
    assert set(owners([other])) == {None}


def test_an_aggregate_has_one_owner_for_all_commands_that_all_nodes_serve() -> None:
    members = [node("a"), node("b"), node("c")]
    assert owners(members, "Credit") == owners(members, "Debit")
