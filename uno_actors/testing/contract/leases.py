"""Names that one process has at a time."""

import asyncio

from uno_actors.domain.events import EventRegistry
from uno_actors.testing.contract.events import Noted, noted
from uno_actors.testing.contract.expectations import expect_equal
from uno_actors.testing.contract.store_place import MakeStore, opened


async def a_name_is_leased_once(make_store: MakeStore) -> None:
    """When a name is taken several times, one attempt gets it, until it is released; other names are independent."""
    async with opened(make_store) as store:
        leases = await asyncio.gather(*[store.lease("mail") for _ in range(5)])
        held = [lease for lease in leases if lease is not None]
        expect_equal(len(held), 1, "leases of one name")
        expect_equal(await store.lease("mail"), None, "the lease of a name that is taken")
        for name in ("mail2", "mai", "", "ünì/\\ .. *"):
            expect_equal(await store.lease(name) is None, False, f"the lease of {name!r} is refused")
        await held[0].release()
        await held[0].release()
        again = await store.lease("mail")
        expect_equal(again is None, False, "the lease of a name that was released is refused")
        await store.append(noted("a"))  # leases block no append


async def closing_releases_leases(make_store: MakeStore) -> None:
    """A store that was closed holds no name."""
    async with make_store() as place:
        for _ in range(2):
            store = await place.open(EventRegistry([Noted]))
            expect_equal(
                await store.lease("mail") is None, False, "the lease is refused after the store was closed"
            )
            await store.close()
