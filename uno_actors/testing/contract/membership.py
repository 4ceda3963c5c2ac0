"""Nodes that work on a store: who is announced, and until when. A store that keeps no nodes promises none of this."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from uno_actors.clock import Clock, SystemClock
from uno_actors.domain.events import EventRegistry
from uno_actors.store.membership import Member, Membership
from uno_actors.store.port import EventStore
from uno_actors.testing.contract.events import Noted
from uno_actors.testing.contract.expectations import expect_equal
from uno_actors.testing.contract.store_place import MakeStore, opened

PATIENCE = 10.0
"""Seconds within which an announcement must end, and within which a listener must hear of a change."""
LONG = 3600.0
"""Seconds of an announcement that does not end while a check runs."""
SHORT = 0.3
"""Seconds of an announcement that ends while a check runs."""

FULL = Member(
    id="full ünì/\\ .. * \N{ROCKET}",
    name="bank 1",
    address="10.0.0.5:7411",
    commands=(("Account", ("Credit", "Debit")), ("Ünit", ())),
    handlers=("bank.mail:send \N{ROCKET}", "sum"),
    roles=("aggregates", "handlers"),
    version="1.2.3",
    started=1_700_000_000.125,
    capacity=2.5,
    leaving=True,
    host="db-host",
    process=4_194_304,
)


def _ids(members: tuple[Member, ...]) -> list[str]:
    return [member.id for member in members]


def _memberships(store: EventStore, *seconds: float, clock: Clock | None = None) -> list[Membership] | None:
    made = [store.membership(each, clock or SystemClock()) for each in seconds]
    return [each for each in made if each is not None] if all(made) else None


async def nodes_see_each_other(make_store: MakeStore) -> None:
    """A node sees all announced nodes and itself, sorted by id, as they were last announced, until they withdraw."""
    async with opened(make_store) as store:
        made = _memberships(store, LONG, LONG, LONG)
        if made is None:
            return
        a, b, c = made
        expect_equal(_ids(await b.announce(Member(id="b", name="two"))), ["b"], "the first node")
        await c.announce(Member(id="c", name="three"))
        expect_equal(_ids(await a.announce(Member(id="a", name="one"))), ["a", "b", "c"], "three nodes")
        await b.announce(Member(id="b", name="two", leaving=True))
        members = await c.announce(Member(id="c", name="three"))
        expect_equal([member.leaving for member in members], [False, True, False], "who is leaving")
        for _ in range(2):
            await b.withdraw()
        expect_equal(_ids(await a.announce(Member(id="a", name="one"))), ["a", "c"], "those left")
        expect_equal(
            _ids(await b.announce(Member(id="b", name="two"))), ["a", "b", "c"], "when it is announced again"
        )


async def all_that_a_node_announces_comes_back(make_store: MakeStore) -> None:
    """Every field of an announcement is what it was, for the node itself and for others."""
    async with opened(make_store) as store:
        made = _memberships(store, LONG, LONG)
        if made is None:
            return
        plain = Member(id="plain", name="")
        for members in (await made[0].announce(FULL), await made[1].announce(plain)):
            expect_equal(members[0], FULL, "the node")
            expect_equal((members[0].host, members[0].process), (FULL.host, FULL.process), "where it runs")
        expect_equal((await made[0].announce(FULL))[1], plain, "a node that announces little")


async def an_announcement_ends_unless_it_is_renewed(make_store: MakeStore) -> None:
    """A node that does not renew its announcement is gone after its seconds, and comes back when it does."""
    async with opened(make_store) as store:
        made = _memberships(store, LONG, SHORT)
        if made is None:
            return
        steady, silent = made
        await silent.announce(Member(id="silent", name=""))
        found = await steady.announce(Member(id="steady", name=""))
        expect_equal(_ids(found), ["silent", "steady"], "the nodes")
        end = time.monotonic() + PATIENCE
        while len(found := await steady.announce(Member(id="steady", name=""))) > 1:
            if time.monotonic() > end:
                raise AssertionError(f"after {PATIENCE:g} s there still are {_ids(found)}")
            await asyncio.sleep(SHORT / 10)
        found = await silent.announce(Member(id="silent", name=""))
        expect_equal(_ids(found), ["silent", "steady"], "the nodes when it has come back")


async def closing_withdraws_nodes(make_store: MakeStore) -> None:
    """A store that was closed has no node, and refuses to announce one."""
    async with make_store() as place:
        for name in ("one", "two"):
            store = await place.open(EventRegistry([Noted]))
            made = _memberships(store, LONG)
            found = None if made is None else await made[0].announce(Member(id=name, name=""))
            await store.close()
            if made is None or found is None:
                return
            expect_equal(_ids(found), [name], "the nodes of a store that was closed and opened again")
            try:
                await made[0].announce(Member(id=name, name=""))
            except Exception:  # noqa: BLE001, S112 - as the store says it
                continue
            raise AssertionError("a node was announced in a store that was closed")


async def nodes_hear_of_others(make_store: MakeStore) -> None:
    """A node hears that another has announced, changed or withdrawn itself."""
    async with opened(make_store) as store:
        made = _memberships(store, LONG, LONG)
        if made is None:
            return
        ours, other = made
        heard = asyncio.Event()
        ours.when_changed(heard.set)
        await ours.announce(Member(id="ours", name=""))
        theirs = Member(id="theirs", name="")
        leaving = replace(theirs, leaving=True)
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "announced": lambda: other.announce(theirs),
            "changed": lambda: other.announce(leaving),
            "withdrawn": other.withdraw,
        }
        for what, step in steps.items():
            heard.clear()
            await step()
            try:
                async with asyncio.timeout(PATIENCE):
                    await heard.wait()
            except TimeoutError:
                raise AssertionError(f"it was not heard that a node was {what}") from None
