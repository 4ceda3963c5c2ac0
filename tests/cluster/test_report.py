"""What an observer says of shards and skew: pure functions of the members."""

import pytest

from uno_actors.cluster.report import shards_by_node, skew
from uno_actors.store.membership import Member


def member(
    id: str, *commands: str, capacity: float = 1.0, roles: tuple[str, ...] = ("aggregates",)
) -> Member:
    served = (("Shop", tuple(sorted(commands))),) if commands else ()
    return Member(id=id, name=id, address=f"unix:{id}", commands=served, roles=roles, capacity=capacity)


def test_all_shards_are_divided_among_the_nodes_that_serve_a_type() -> None:
    shards = shards_by_node([member("a", "Sell"), member("b", "Sell"), member("c", roles=("handlers",))])
    assert set(shards) == {"Shop"}
    assert set(shards["Shop"]) == {"a", "b"}
    assert sum(shards["Shop"].values()) == 1024


def test_the_command_that_the_fewest_nodes_serve_counts() -> None:
    assert shards_by_node([member("a", "Buy", "Sell"), member("b", "Sell")]) == {"Shop": {"a": 1024}}


def test_a_type_that_no_node_serves_has_no_owners() -> None:
    assert shards_by_node([member("a", "Sell", roles=("handlers",))]) == {"Shop": {}}
    assert skew({}, []) == 0


@pytest.mark.parametrize(
    ("shards", "capacities", "expected"),
    [
        ({"a": 512, "b": 512}, {"a": 1, "b": 1}, 0.0),
        ({"a": 600, "b": 424}, {"a": 1, "b": 1}, 600 / 512 - 1),
        ({"a": 768, "b": 256}, {"a": 3, "b": 1}, 0.0),
        ({"a": 512, "b": 512}, {"a": 3, "b": 1}, 1.0),
    ],
)
def test_skew_is_how_much_more_than_its_share_the_fullest_node_owns(
    shards: dict[str, int], capacities: dict[str, float], expected: float
) -> None:
    members = [member(name, capacity=capacity) for name, capacity in capacities.items()]
    assert skew(shards, members) == pytest.approx(expected)
