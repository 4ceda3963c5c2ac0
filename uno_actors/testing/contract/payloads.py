"""Values come back as they were, and old schemas are upcast."""

from typing import Any

from uno_actors.domain.events import Payload
from uno_actors.errors import (
    UnknownEventType,
)
from uno_actors.testing.contract.events import MovedLater, MovedNow, MovedThen, Noted, measured, noted
from uno_actors.testing.contract.expectations import expect_equal, expect_error, records_of, texts_of
from uno_actors.testing.contract.store_place import MakeStore, opened


async def every_kind_of_value_comes_back(make_store: MakeStore) -> None:
    """Decimals, dates, models, sets, tuples, bytes, integer keys and the like come back as they were."""
    async with opened(make_store) as store:
        sent = measured()
        await store.append(sent)
        (found,) = await store.get_events("all")
        for name in type(sent).model_fields:
            if name != "aggregate_version":
                value, wanted = getattr(found, name), getattr(sent, name)
                expect_equal((name, type(value), value), (name, type(wanted), wanted), "a value")


async def big_events_come_back(make_store: MakeStore) -> None:
    """An event of a megabyte is recorded like a small one."""
    async with opened(make_store) as store:
        texts = ["x" * 2_000, "é" * 500_000, ""]
        await store.append(*[noted("a", text) for text in texts])
        expect_equal(await texts_of(store, "a"), texts, "the texts")


async def an_unknown_type_is_named(make_store: MakeStore) -> None:
    """An event whose type the registry does not know is recorded, and named when it is read."""
    async with opened(make_store, Noted) as store:
        await store.append(measured(), noted("a"))
        error = await expect_error(UnknownEventType, store.get_events("all"), "an unknown type")
        if "uno_actors.testing.Measured" not in str(error):
            raise AssertionError(f"the error must name the type, found: {error}")
        expect_equal(len(await records_of(store)), 2, "records that can be read all the same")
        expect_equal(len(await store.get_events("a")), 1, "events of known types")


async def old_events_are_upcast(make_store: MakeStore) -> None:
    """An event of an older schema is read as today's, through the registered steps in order."""

    def to_version_2(payload: Payload) -> Payload:
        return {"address": payload["to"]}

    def to_version_3(payload: Payload) -> Payload:
        street, town = payload["address"].split(", ")
        return {"street": street, "town": town}

    async with opened(make_store, MovedNow) as store:
        store.event_registry.add_upcast("uno_actors.testing.Moved", 1, to_version_2)
        store.event_registry.add_upcast("uno_actors.testing.Moved", 2, to_version_3)
        of: dict[str, Any] = {"aggregate_id": "a", "aggregate_type": "Person"}
        await store.append(MovedThen(**of, to="Elm Street, Springwood"))
        await store.append(MovedNow(**of, street="Ocean Drive", town=""))
        await store.append(MovedLater(**of, address="Main Street, Hill Valley"), MovedThen(**of, to="1, 2"))
        events = await store.get_events("a")
        found = [(e.version, e.street, e.town) for e in events if isinstance(e, MovedNow)]
        wanted = [
            ("Elm Street", "Springwood"),
            ("Ocean Drive", ""),
            ("Main Street", "Hill Valley"),
            ("1", "2"),
        ]
        expect_equal(
            found, [(3, *where) for where in wanted], "events of schema 1, 3, 2 and 1, as today's class"
        )
        expect_equal(
            [record.version for _, record in await records_of(store)], [1, 3, 2, 1], "what is recorded"
        )
