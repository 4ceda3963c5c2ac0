"""A rename or a removal of a handler that is interrupted anywhere is finished by the same call."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from typing_extensions import override

from uno_actors import (
    DeadLetter,
    EventRegistry,
    HandlerControl,
    InvalidHandler,
    StoreUnavailable,
    UnknownHandler,
)
from uno_actors.handlers.requests import PAUSED, request_entry
from uno_actors.handlers.view import Entry, entries
from uno_actors.store.handler_names import CONTROL
from uno_actors.store.records import ViewChange
from uno_stores import InMemoryEventStore

MOMENT = datetime(2024, 6, 1, tzinfo=UTC)


class Breaking(InMemoryEventStore):
    """Fails at one of its writes, before or after that has taken effect, and at all later ones."""

    def __init__(self) -> None:
        super().__init__(EventRegistry([]))
        self.writes_left: float = float("inf")
        self.fails_late = False

    async def _breaking(self, write: Callable[[], Awaitable[None]]) -> None:
        if self.writes_left <= 0 or (self.writes_left == 1 and not self.fails_late):
            self.writes_left = 0
            raise StoreUnavailable("memory", "cut off")
        self.writes_left -= 1
        await write()
        if self.writes_left == 0:
            raise StoreUnavailable("memory", "cut off")

    @override
    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
        dropped: Sequence[tuple[str, int]] = (),
    ) -> None:
        parent = super()
        await self._breaking(lambda: parent.save_progress(checkpoints, dead_letters, views, dropped))

    @override
    async def drop_view(self, view: str) -> None:
        parent = super()
        await self._breaking(lambda: parent.drop_view(view))


async def filled() -> Breaking:
    store = Breaking()
    view = "mail@1"
    letters = [
        DeadLetter(name, 2, "Sent", 1, "error", "traceback", MOMENT, MOMENT) for name in ("mail", "mail@1of2")
    ]
    changes = [ViewChange(view, b"k", b"v"), Entry(view, view, (view,)).of("mail")]
    await store.save_progress(
        {"mail": 3, "mail@1of2": 4, "mail@2of2": 5, view: 6, "mailbox": 7},
        letters,
        [*changes, request_entry(True, "mail", PAUSED)],
    )
    return store


async def contents(store: Breaking) -> dict[str, Any]:
    checkpoints = await store.checkpoints()
    return {
        "checkpoints": checkpoints,
        "letters": await store.dead_letters(),
        "directory": await entries(store),
        "requests": await store.read_view(CONTROL),
        "views": {name: await store.read_view(name) for name in checkpoints},
    }


@pytest.mark.parametrize("fails_late", [False, True], ids=["before a write", "after a write"])
@pytest.mark.parametrize("writes", range(1, 12))
async def test_a_rename_that_is_interrupted_is_finished_by_the_same_call(
    writes: int, fails_late: bool
) -> None:
    whole = await filled()
    await HandlerControl(whole).rename("mail", "post")
    store = await filled()
    store.writes_left, store.fails_late = writes, fails_late
    try:
        await HandlerControl(store).rename("mail", "post")
    except StoreUnavailable:
        store.writes_left = float("inf")
        try:
            await HandlerControl(store).rename("mail", "post")
        except UnknownHandler:  # the last write was made
            assert fails_late
    assert await contents(store) == await contents(whole)
    assert "post@2of2" in await store.checkpoints()


@pytest.mark.parametrize("fails_late", [False, True], ids=["before a write", "after a write"])
@pytest.mark.parametrize("writes", range(1, 7))
async def test_a_removal_that_is_interrupted_is_finished_by_the_same_call(
    writes: int, fails_late: bool
) -> None:
    store = await filled()
    store.writes_left, store.fails_late = writes, fails_late
    try:
        await HandlerControl(store).forget("mail")
    except StoreUnavailable:
        store.writes_left = float("inf")
        try:
            await HandlerControl(store).forget("mail")
        except UnknownHandler:  # the last write was made
            assert fails_late
    found = await contents(store)
    assert found == {
        "checkpoints": {"mailbox": 7},
        "letters": [],
        "directory": {},
        "requests": [],
        "views": {"mailbox": []},
    }


async def test_an_interrupted_rename_is_not_finished_under_another_name() -> None:
    store = await filled()
    store.writes_left = 4  # all is moved, and the old name is not removed
    with pytest.raises(StoreUnavailable):
        await HandlerControl(store).rename("mail", "post")
    store.writes_left = float("inf")
    moved = await store.checkpoints()
    assert {"mail", "post"} <= set(moved)
    with pytest.raises(InvalidHandler, match="the renaming of 'mail' to 'post' was interrupted"):
        await HandlerControl(store).rename("mail", "other")
    await HandlerControl(store).rename("mail", "post")
    assert "mail" not in await store.checkpoints()
