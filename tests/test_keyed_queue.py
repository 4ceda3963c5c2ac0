"""The keyed queue: which item may start."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from uno_actors.handlers.keyed_queue import Keyed, KeyedQueue
from uno_actors.store.codec import StreamId

A, B, C = (StreamId("Account", name) for name in "abc")


def begun(items: KeyedQueue[Any, int], number: int = 9) -> list[Keyed[Any, int]]:
    """Begin as many items as may begin, at most so many."""
    found = []
    while len(found) < number and (keyed := items.start()) is not None:
        found.append(keyed)
    return found


def test_one_item_of_each_key_may_start_and_no_more_than_the_width() -> None:
    items: KeyedQueue[StreamId | None, int] = KeyedQueue(2)
    for number, stream in enumerate([A, A, B, C], start=1):
        items.add((stream,), number)
    first, third = begun(items)
    assert [first.item, third.item] == [1, 3]
    items.end(first)
    (fourth,) = begun(items)
    assert fourth.item == 4, "those that waited for longer come first"
    items.end(third)
    assert [keyed.item for keyed in begun(items)] == [2]
    assert len(items) == 2


def test_an_item_with_several_keys_waits_for_all_before_it_and_those_after_it_wait_for_it() -> None:
    items: KeyedQueue[str, int] = KeyedQueue(9)
    for number, keys in enumerate(["a", "b", "ab", "b", "a", "", "c"]):
        items.add(tuple(keys), number)
    first, second, sixth, seventh = begun(items)
    assert [each.item for each in (first, second, sixth, seventh)] == [0, 1, 5, 6]
    items.end(second)
    assert begun(items) == []
    items.end(first)
    (both,) = begun(items)
    assert both.item == 2
    items.end(both)
    assert sorted(keyed.item for keyed in begun(items)) == [3, 4]


@given(
    st.integers(1, 4),
    st.lists(st.one_of(st.sets(st.sampled_from("abcd"), max_size=3), st.integers(0, 5)), max_size=60),
)
def test_items_keep_the_order_of_each_key_and_lose_nothing(width: int, steps: list[set[str] | int]) -> None:
    items: KeyedQueue[str, int] = KeyedQueue(width)
    added: list[tuple[int, set[str]]] = []
    done: list[int] = []
    under_way: list[Keyed[str, int]] = []

    def start() -> None:
        under_way.extend(begun(items))
        running = {keyed.item for keyed in under_way}
        keys = [key for keyed in under_way for key in keyed.keys]
        assert len(keys) == len(set(keys)), "one item of each key at once"
        waiting, may_begin = set[str](), 0
        for number, of in added:
            if number not in done and number not in running:
                may_begin += not of & (waiting | set(keys))
            if number not in done:
                waiting |= of
        assert len(under_way) == width or not may_begin, "nothing waits that may begin"

    def end(number: int) -> None:
        keyed = under_way.pop(number)
        items.end(keyed)
        before = [earlier for earlier, of in added if earlier < keyed.item and of & set(keyed.keys)]
        assert set(before) <= set(done)
        done.append(keyed.item)

    for number, step in enumerate(steps):
        if isinstance(step, int):
            if under_way:
                end(step % len(under_way))
        else:
            items.add(tuple(step), number)
            added.append((number, step))
        start()
    while under_way:
        end(0)
        start()
    assert sorted(done) == [number for number, _ in added]
    assert len(items) == 0
