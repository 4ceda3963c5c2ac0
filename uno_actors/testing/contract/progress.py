"""Progress of handlers: checkpoints, dead letters, views."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from uno_actors.errors import HandlerIsRunning, InvalidHandler, UnknownHandler
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.requests import PAUSED, request_entry
from uno_actors.handlers.view import Entry, entries
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, DeadLetter, ViewChange
from uno_actors.testing.contract.expectations import expect_equal, expect_error
from uno_actors.testing.contract.store_place import MakeStore, opened

MORNING = datetime(2024, 6, 1, 8, tzinfo=UTC)


def dead_letter(handler: str, position: int, **changed: Any) -> DeadLetter:
    """A dead letter of ``handler`` at ``position``, with some fields ``changed``."""
    letter = DeadLetter(
        handler, position, "Noted", 3, "ValueError: no 🚀", "Traceback\n  ...", MORNING, MORNING
    )
    return letter._replace(**changed)


async def checkpoints_move(make_store: MakeStore) -> None:
    """Checkpoints are kept by handler name; saving some does not change the others."""
    async with opened(make_store) as store:
        expect_equal(await store.checkpoints(), {}, "checkpoints of a new store")
        await store.save_progress({"mail": 1, "audit": 2**40, "bank.mail:send 🚀": 0})
        await store.save_progress({"mail": 7})
        await store.save_progress({"audit": 3})
        expect_equal(
            await store.checkpoints(), {"mail": 7, "audit": 3, "bank.mail:send 🚀": 0}, "the checkpoints"
        )


async def dead_letters_move_with_checkpoints(make_store: MakeStore) -> None:
    """Dead letters are added in the step that moves the checkpoint, and replace those of their place."""
    async with opened(make_store) as store:
        expect_equal(await store.dead_letters(), [], "dead letters of a new store")
        await store.save_progress({"mail": 4}, [dead_letter("mail", 4)])
        expect_equal(await store.checkpoints(), {"mail": 4}, "the checkpoint")
        expect_equal(await store.dead_letters(), [dead_letter("mail", 4)], "the dead letter")
        again = dead_letter("mail", 4, attempts=6, last_failed=MORNING + timedelta(microseconds=1))
        await store.save_progress({}, [again])
        expect_equal(await store.dead_letters(), [again], "the dead letter that failed again")
        expect_equal(await store.checkpoints(), {"mail": 4}, "the checkpoint after that")


async def dead_letters_are_listed_in_order(make_store: MakeStore) -> None:
    """Dead letters are listed by handler and position, of all handlers or of one."""
    async with opened(make_store) as store:
        places = [("b", 2), ("a", 256), ("a", 3), ("ab", 1), ("a", 2**33), ("b", 1), ("a.b", 1)]
        await store.save_progress({}, [dead_letter(*place) for place in places[:4]])
        await store.save_progress({}, [dead_letter(*place) for place in places[4:]])
        found = [(letter.handler, letter.position) for letter in await store.dead_letters()]
        expect_equal(found, sorted(places), "all dead letters")
        found = [(letter.handler, letter.position) for letter in await store.dead_letters("a")]
        expect_equal(found, [("a", 3), ("a", 256), ("a", 2**33)], "dead letters of a")
        expect_equal(await store.dead_letters("unknown"), [], "dead letters of an unknown handler")
        expect_equal(
            await store.dead_letter_counts(), {"a": 3, "ab": 1, "b": 2, "a.b": 1}, "numbers of dead letters"
        )


async def dead_letters_can_be_dropped(make_store: MakeStore) -> None:
    """Dropping removes one dead letter and returns whether there was one."""
    async with opened(make_store) as store:
        await store.save_progress({"a": 2}, [dead_letter("a", 1), dead_letter("a", 2), dead_letter("b", 1)])
        expect_equal(await store.drop_dead_letter("a", 1), True, "dropping one")
        expect_equal(await store.drop_dead_letter("a", 1), False, "dropping it again")
        expect_equal(await store.drop_dead_letter("a", 3), False, "dropping one that never was")
        expect_equal(
            await store.dead_letters(), [dead_letter("a", 2), dead_letter("b", 1)], "the dead letters left"
        )
        expect_equal(await store.checkpoints(), {"a": 2}, "the checkpoint")
        view = ViewChange("a", b"k", b"1")
        await store.save_progress({"a": 3}, views=[view], dropped=[("a", 2), ("a", 9), ("c", 1)])
        expect_equal(
            await store.dead_letters(),
            [dead_letter("b", 1)],
            "those left when some were dropped with progress",
        )
        expect_equal(await store.read_view("a"), [(b"k", b"1")], "the view that has changed with them")


async def views_are_read_in_order_and_keep_apart(make_store: MakeStore) -> None:
    """A view is read in the order of its keys, from start to before end, and has nothing of any other view."""
    async with opened(make_store) as store:
        keys = [b"b", b"a\xff", b"a\0", b"c", b"a"]
        names = ["v", "v@2", "v\x01", "w" * 255]
        for name in names:
            await store.save_progress({}, views=[ViewChange(name, key, name.encode() + key) for key in keys])
        long_key = ViewChange("w" * 255, b"k" * 250, b"")
        await store.save_progress({}, views=[long_key])
        for name in names[:3]:
            found = await store.read_view(name)
            expect_equal(found, [(key, name.encode() + key) for key in sorted(keys)], f"all of {name!r}")
        expect_equal(
            [key for key, _ in await store.read_view("v", b"a\0", b"b")], [b"a\0", b"a\xff"], "a part"
        )
        expect_equal(
            [key for key, _ in await store.read_view("v", b"a\0", limit=3)], [b"a\0", b"a\xff", b"b"], "three"
        )
        expect_equal(await store.read_view("v", b"a", b"a\0"), [(b"a", b"va")], "one key")
        expect_equal(await store.read_view("v", b"d", b"d\0"), [], "a key that is not there")
        expect_equal(await store.read_view("w" * 255, b"k"), [(long_key.key, b"")], "the longest key")
        expect_equal(await store.read_view("nothing"), [], "a view that is not there")


async def views_change_with_checkpoints(make_store: MakeStore) -> None:
    """Views change together with checkpoints, in order: the last change of a key is what is read."""
    async with opened(make_store) as store:
        change = [ViewChange("v", b"k", b"1"), ViewChange("v", b"gone", b"1"), ViewChange("v", b"gone", None)]
        await store.save_progress({"v": 1}, views=change)
        calls = [store.save_progress({"v": n}, views=[ViewChange("v", b"k", b"%d" % n)]) for n in range(2, 9)]
        await asyncio.gather(*calls)
        expect_equal(await store.checkpoints(), {"v": 8}, "the checkpoint")
        expect_equal(await store.read_view("v"), [(b"k", b"8")], "the view")
        await store.save_progress(
            {"v": 9}, views=[ViewChange("v", b"k", None), ViewChange("v", b"never", None)]
        )
        expect_equal(await store.read_view("v"), [], "the view after its key was removed")


async def views_can_be_dropped(make_store: MakeStore) -> None:
    """A view is dropped with all its keys and with the checkpoint of its name, and no other with it."""
    async with opened(make_store) as store:
        keys = [b"%04d" % number for number in range(2 * PAGE)]
        for name in ("v", "v2"):
            await store.save_progress({name: 7}, views=[ViewChange(name, key, b"") for key in keys])
        await store.drop_view("v")
        await store.drop_view("nothing")
        expect_equal(await store.read_view("v"), [], "the view")
        expect_equal(await store.checkpoints(), {"v2": 7}, "the checkpoints")
        expect_equal(len(await store.read_view("v2", limit=None)), 2 * PAGE, "the entries of another view")


async def handlers_can_be_renamed(make_store: MakeStore) -> None:
    """A renamed handler keeps its place, dead letters, requests and views, in all partitions; others keep theirs."""
    async with opened(make_store) as store:
        control = HandlerControl(store)
        await _fill(store, "mail")
        before = await _kept(store, "mail", "mailbox")
        await store.save_progress({"post": 1})
        await expect_error(InvalidHandler, control.rename("mail", "post"), "renaming to a name that is taken")
        await expect_error(InvalidHandler, control.rename("mail", "a@b"), "renaming to a name with @")
        await expect_error(UnknownHandler, control.rename("none", "some"), "renaming an unknown handler")
        for name in ("mail", "mail@2of2", "letters", "letters@1of2"):
            held = await store.lease(name)
            await expect_error(
                HandlerIsRunning, control.rename("mail", "letters"), f"renaming while {name} runs"
            )
            expect_equal(await _kept(store, "mail", "mailbox"), before, "what is kept after a refusal")
            if held is not None:
                await held.release()
        moved = await control.rename("mail", "letters")
        expect_equal(
            (moved.checkpoints, moved.views, moved.dead_letters), (4, 1, 2), "the numbers that moved"
        )
        after = await _kept(store, "letters", "mailbox")
        expect_equal(
            after, {key.replace("mail!", "letters!"): kept for key, kept in before.items()}, "the kept"
        )
        expect_equal(await _kept(store, "mail"), {}, "what is left under the old name")
        requests = await control.requests()
        expect_equal([name for name, each in requests.items() if each.paused], ["letters"], "the paused")
        expect_equal((await store.checkpoints())["post"], 1, "the checkpoint of another handler")
        await control.rename("letters", "mail")
        expect_equal(await _kept(store, "mail", "mailbox"), before, "what is kept after renaming back")


async def handlers_can_be_forgotten(make_store: MakeStore) -> None:
    """Nothing is left of a forgotten handler, in all partitions; others keep what is theirs."""
    async with opened(make_store) as store:
        control = HandlerControl(store)
        await _fill(store, "mail")
        await _fill(store, "post")
        before = await _kept(store, "post", "postbox")
        held = await store.lease("mail@1of2")
        await expect_error(HandlerIsRunning, control.forget("mail"), "forgetting a handler that runs")
        if held is not None:
            await held.release()
        removed = await control.forget("mail")
        expect_equal((removed.checkpoints, removed.views, removed.dead_letters), (4, 1, 2), "the numbers")
        expect_equal(await _kept(store, "mail"), {}, "what is left")
        expect_equal(await _kept(store, "mailbox") != {}, True, "whether a handler of a longer name is left")
        expect_equal(await _kept(store, "post", "postbox"), before, "what is kept of another handler")
        await expect_error(UnknownHandler, control.forget("mail"), "forgetting it again")
        requests = await control.requests()
        expect_equal([name for name, each in requests.items() if each.paused], ["post"], "the paused")


async def _fill(store: EventStore, name: str) -> None:
    """Keep something of each kind for a handler, two of its partitions, its view, and a handler of a longer name."""
    view = f"{name}@3.1"
    rows = [ViewChange(view, b"%04d" % number, b"%d" % number) for number in range(PAGE + 5)]
    entry = Entry(view, view, (view,), 1)
    await store.save_progress({view: 9}, views=[*rows, entry.of(name)])
    await store.save_progress(
        {name: 3, f"{name}@1of2": 7, f"{name}@2of2": 8, f"{name}box": 5},
        [dead_letter(name, 2), dead_letter(f"{name}@2of2", 6), dead_letter(f"{name}box", 4)],
        [request_entry(True, name, PAUSED), ViewChange(f"{name}box@1", b"k", b"1")],
    )


async def _kept(store: EventStore, *handlers: str) -> dict[str, object]:
    """What the store keeps of handlers, with ``!`` after the name of the handler in each key."""
    found: dict[str, object] = {}
    directory = await entries(store)
    for handler in handlers:
        names = {f"{handler}{rest}": f"{handler}!{rest}" for rest in ("", "@1of2", "@2of2", "@3.1")}
        for name, key in names.items():
            position = (await store.checkpoints()).get(name)
            letters = [letter._replace(handler="") for letter in await store.dead_letters(name)]
            rows = await store.read_view(name, limit=None)
            if entry := directory.get(name):
                found[f"{key} entry"] = [view.removeprefix(handler) for view in entry.views]
            if position is not None or letters or rows:
                found[key] = (position, letters, rows)
    return found
