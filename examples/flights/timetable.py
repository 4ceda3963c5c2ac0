"""Reads the file row by row, and makes the commands of each row.

Real data is dirty. A missing value is written ``NA``, and no row is dropped:

- no departure: the flight was cancelled, ``Cancel``;
- departure: ``Depart`` and ``Arrive``;
- departure, but no arrival delay: as above, with ``Arrive(delay=None)``. The flight ended somewhere and some
  time (diverted, perhaps), and the file does not say how late. An invented number would be wrong, and without the
  command the flight would be lost. So the missing value is recorded, and code that needs the delay handles it;
- no tail number: an unknown aircraft of the carrier. It becomes the aggregate ``unknown-<carrier>``. The rules are
  about single flights, so they hold there too.

A row that is unreadable or contradicts itself is an error with its line number.
"""

import csv
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from aircraft import Arrive, Cancel, Depart, Flight, FlightCommand

MISSING = ("NA", "")


class Order(NamedTuple):
    """A command, the aircraft it is for, and its row in the file (from 1)."""

    row: int
    aircraft: str
    command: FlightCommand

    def __str__(self) -> str:
        return f"{type(self.command).__name__.lower()} {self.aircraft} {self.command.flight}"


def orders(path: Path) -> Iterator[Order]:
    """All commands of the file, in the order of the file, read one by one.

    Raises:
        ValueError: A row is unreadable or contradicts itself.
    """
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            try:
                aircraft, commands = aircraft_of(row), commands_of(row)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, row {number}: {type(error).__name__}: {error}") from error
            for command in commands:
                yield Order(number, aircraft, command)


def aircraft_of(row: Mapping[str, str]) -> str:
    tail = row["tailnum"]
    return f"unknown-{row['carrier']}" if tail in MISSING else tail


def commands_of(row: Mapping[str, str]) -> list[FlightCommand]:
    flight = Flight(
        carrier=row["carrier"],
        number=int(row["flight"]),
        scheduled=datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=int(row["minute"])),
        origin=row["origin"],
        destination=row["dest"],
    )
    departure, arrival = _minutes(row["dep_delay"]), _minutes(row["arr_delay"])
    if departure is not None:
        return [Depart(flight=flight, delay=departure), Arrive(flight=flight, delay=arrival)]
    if arrival is not None:
        raise ValueError(f"{flight} arrived without a departure")
    return [Cancel(flight=flight)]


def _minutes(text: str) -> int | None:
    return None if text in MISSING else int(text)
