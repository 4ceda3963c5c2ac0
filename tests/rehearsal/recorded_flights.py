"""A store of flights for rehearsals, as large as one likes: ``python -m tests.rehearsal.recorded_flights URL EVENTS``.

The aircraft of the example decide, and what they register is recorded straight into the store, without a system.
"""

import asyncio
import csv
import sys
import tempfile
from itertools import islice
from pathlib import Path

FLIGHTS = Path(__file__).parent.parent.parent / "examples" / "flights"

PROJECTION = '''
from uno_actors import Projection


class Delays(Projection[FlightDeparted, str]):
    """Minutes of delay by airport."""

    async def handle(self, event: FlightDeparted) -> None:
        airport = event.flight.origin
        self.view.put(airport, await self.view.get(airport, 0) + event.delay)


delays = Delays()
'''
"""A view of the flights, for the end of ``aircraft.py``."""


def program(directory: Path, *changes: tuple[str, str]) -> Path:
    """The example's aircraft with a view of their delays, in a new directory."""
    text = (FLIGHTS / "aircraft.py").read_text(encoding="utf-8")
    text += PROJECTION
    for old, new in changes:
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    directory.mkdir(parents=True)
    (directory / "aircraft.py").write_text(text, encoding="utf-8")
    return directory


async def record(url: str, most: int) -> None:
    """Record ``most`` events of the year of flights."""
    sys.path.insert(0, str(FLIGHTS))
    from aircraft import Aircraft
    from count import WEEK
    from timetable import orders
    from year import year

    from uno_actors import CommandRejected, open_store
    from uno_actors.store.codec import to_record
    from uno_actors.store.records import Append

    with WEEK.open(newline="", encoding="utf-8") as file:
        week = list(csv.DictReader(file))
    known: dict[str, Aircraft] = {}
    group: list[Append] = []
    done = 0
    with tempfile.TemporaryDirectory() as directory:
        rows = Path(directory) / "flights.csv"
        with rows.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, week[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(islice(year(week), most))
        async with open_store(url) as store:
            for order in orders(rows):
                aircraft = known.setdefault(order.aircraft, Aircraft(order.aircraft))
                try:
                    aircraft.handle(order.command)
                except CommandRejected:
                    continue
                group.append(Append(tuple(map(to_record, aircraft.take_pending_events()))))
                done += len(group[-1].records)
                if done >= most or len(group) == 10_000:
                    await store.commit([each for each in group if each.records])
                    group = []
                if done >= most:
                    return


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], int(sys.argv[2])))
