"""``uno-actors check --store``: whether the program reads what a store holds."""

import asyncio
from dataclasses import asdict
from typing import Any, NamedTuple

from uno_actors.cli.opening import of_tenant
from uno_actors.cli.terminal import FOLDED, NUMBERS, bar, new_table, say, say_tables
from uno_actors.printable import counted, printable
from uno_actors.rehearsal.readable import EXAMPLES, KindRead, kinds_read
from uno_actors.store.maintenance import Progress
from uno_actors.store.opening import open_store
from uno_actors.store_urls import without_password


class CheckedStore(NamedTuple):
    """The kinds of events in a store.

    Attributes:
        url: Of the store, without its password.
        kinds: By type and version.
        accepted: Names of kinds that need not be readable, such as those of other programs.
    """

    url: str
    kinds: tuple[KindRead, ...]
    accepted: frozenset[str]

    @property
    def is_right(self) -> bool:
        """Whether all can be read that need be."""
        return not any(each.unreadable and each.name not in self.accepted for each in self.kinds)

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "store": self.url,
            "readable": self.is_right,
            "kinds": [{**asdict(each), "accepted": each.name in self.accepted} for each in self.kinds],
        }


def check_store(
    url: str, tenant: str | None, accepted: list[str] | None, *, every_event: bool, is_quiet: bool
) -> CheckedStore:
    """Read events of each kind by the classes that are loaded.

    Raises:
        BadParameter, InvalidStoreUrl, StoreUnavailable, StoreFormatError, CorruptRecord: The store cannot be read.
    """
    url = of_tenant(url, tenant)
    with bar("read", shown=not is_quiet) as progress:
        kinds = asyncio.run(_read(url, None if every_event else EXAMPLES, progress))
    return CheckedStore(without_password(url), tuple(kinds), frozenset(accepted or ()))


async def _read(url: str, most: int | None, progress: Progress) -> list[KindRead]:
    async with open_store(url, read_only=True) as store:
        return await kinds_read(store, most, progress)


def show_store(checked: CheckedStore) -> None:
    """Print a table of the kinds, and the verdict."""
    table = new_table(
        {
            "EVENT": FOLDED,
            "VERSION": NUMBERS,
            "EVENTS": NUMBERS,
            "READ": NUMBERS,
            "UNREADABLE": NUMBERS,
            "WHY": FOLDED,
            "REMEDY": FOLDED,
        }
    )
    for each in checked.kinds:
        why = f"position {each.position:,}: {each.reason}" if each.reason else "-"
        remedy = "accepted" if each.unreadable and each.name in checked.accepted else each.remedy or "-"
        numbers = [f"{number:,}" for number in (each.count, each.read, each.unreadable)]
        table.add_row(
            printable(each.event_type), str(each.version), *numbers, printable(why), printable(remedy)
        )
    say_tables(table)
    say()
    wrong = sum(bool(each.unreadable) and each.name not in checked.accepted for each in checked.kinds)
    kinds = counted(len(checked.kinds), "kind")
    if wrong:
        say(f"{wrong} of {kinds} of events in {printable(checked.url)} cannot be read")
    else:
        say(f"all can be read: {kinds} of events in {printable(checked.url)}")
