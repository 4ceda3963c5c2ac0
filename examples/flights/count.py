"""An independent count of the file, with the csv module and without uno_actors.

    python examples/flights/count.py [FILE]

The demo's boards and totals are checked against it.
"""

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

WEEK = Path(__file__).with_name("flights_2013_week1.csv")
LATE = 15  # minutes; the Bureau of Transportation Statistics counts less as on time
FEE = 5  # dollars for each minute beyond; see handlers.py


@dataclass
class Airport:
    departed: int = 0
    late: int = 0
    minutes: int = 0
    worst: int = -(10**6)
    cancelled: int = 0


@dataclass
class Carrier:
    arrived: int = 0
    on_time: int = 0
    unreported: int = 0
    fees: int = 0


@dataclass
class Count:
    rows: int = 0
    without_departure: int = 0
    without_arrival_delay: int = 0
    without_tail_number: int = 0
    departed_without_arrival_delay: int = 0
    aircraft: set[str] = field(default_factory=set)  # aircraft without a tail number count as one per carrier
    airports: dict[str, Airport] = field(default_factory=lambda: defaultdict(Airport))
    carriers: dict[str, Carrier] = field(default_factory=lambda: defaultdict(Carrier))

    @property
    def departures(self) -> int:
        return self.rows - self.without_departure

    @property
    def events(self) -> int:
        """Two events for a departed flight, one for a cancelled one."""
        return 2 * self.departures + self.without_departure


def count(path: Path) -> Count:
    total = Count()
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            airport = total.airports[row["origin"]]
            total.rows += 1
            total.without_tail_number += row["tailnum"] == "NA"
            total.aircraft.add(row["carrier"] if row["tailnum"] == "NA" else row["tailnum"])
            total.without_arrival_delay += row["arr_delay"] == "NA"
            if row["dep_time"] == "NA":
                total.without_departure += 1
                airport.cancelled += 1
                continue
            delay = int(row["dep_delay"])
            airport.departed += 1
            airport.late += delay >= LATE
            airport.minutes += delay
            airport.worst = max(airport.worst, delay)
            carrier = total.carriers[row["carrier"]]
            carrier.arrived += 1
            if row["arr_delay"] == "NA":
                total.departed_without_arrival_delay += 1
                carrier.unreported += 1
            elif (delay := int(row["arr_delay"])) < LATE:
                carrier.on_time += 1
            else:
                carrier.fees += FEE * (delay - LATE)
    return total


if __name__ == "__main__":
    result = count(Path(sys.argv[1]) if len(sys.argv) > 1 else WEEK)
    print(f"{result.rows:>9,} rows")
    print(f"{len(result.aircraft):>9,} aircraft")
    print(f"{result.without_departure:>9,} without departure")
    print(f"{result.without_arrival_delay:>9,} without arrival delay")
    print(f"{result.departed_without_arrival_delay:>9,} of these departed")
    print(f"{result.without_tail_number:>9,} without a tail number")
