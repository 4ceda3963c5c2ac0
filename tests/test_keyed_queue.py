"""The keyed queue: which item may start."""

from hypothesis import given
from hypothesis import strategies as st

from uno_actors.handlers.keyed_queue import KeyedQueue
from uno_actors.store.codec import StreamId

A, B, C = (StreamId("Account", name) for name in "abc")


def test_one_item_of_each_key_may_start_and_no_more_than_the_width() -> None:
    items: KeyedQueue[StreamId | None, int] = KeyedQueue(2)
    for number, stream in enumerate([A, A, B, C], start=1):
        items.add(stream, number)
    assert [items.start(), items.start(), items.start()] == [(A, 1), (B, 3), None]
    items.end(A)
    assert [items.start(), items.start()] == [(C, 4), None], "those that waited for longer come first"
    items.end(B)
    assert items.start() == (A, 2)
    assert len(items) == 2


@given(
    st.integers(1, 4),
    st.lists(st.one_of(st.sampled_from([A, B, C, None]), st.integers(0, 5)), max_size=60),
)
def test_items_keep_the_order_of_each_key_and_lose_nothing(
    width: int, steps: list[StreamId | int | None]
) -> None:
    items: KeyedQueue[StreamId | None, int] = KeyedQueue(width)
    added: dict[StreamId | None, list[int]] = {}
    begun: dict[StreamId | None, list[int]] = {}
    under_way: list[StreamId | None] = []

    def start() -> None:
        while (started := items.start()) is not None:
            stream, item = started
            assert stream not in under_way
            begun.setdefault(stream, []).append(item)
            under_way.append(stream)
        assert len(under_way) == min(width, len(set(added) - done_streams()) or 0)

    def done_streams() -> set[StreamId | None]:
        return {s for s in added if len(begun.get(s, ())) == len(added[s]) and s not in under_way}

    for number, step in enumerate(steps):
        if isinstance(step, int):
            if under_way:
                items.end(under_way.pop(step % len(under_way)))
        else:
            items.add(step, number)
            added.setdefault(step, []).append(number)
        start()
    while under_way:
        items.end(under_way.pop())
        start()
    assert begun == added
    assert len(items) == 0
