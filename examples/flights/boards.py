"""The boards: tables that the handlers build from the events, in one SQLite file next to the store.

Delivery is at least once: after a crash a handler gets the events since its last checkpoint again. The boards
must still be right. So each event is one statement, which SQLite runs as one transaction, and which checks
whether the board has the event already. There are two ways to check:

- A board with a row for each event (cancellations, late fees) has the event's id as its primary key, and
  ``INSERT OR IGNORE`` does nothing the second time.
- A board that counts (delays, punctuality) keeps in each row, beside the counters, the position in the log up
  to which they are counted. A handler sees the log in order, so events up to that position are counted.
  Position and counters are one row, so they cannot disagree.

The boards depend on the flights and not on their order in the log: counters add up, and among equally late
flights the worst is the first by name.

``synchronous=NORMAL`` with a write-ahead log costs no fsync for each event. It survives the death of the
process at any instant, which is what the demo shows. A power cut may take back its last moments, while the
event store, which does sync, keeps its checkpoints. Boards that must survive a power cut use ``FULL``, or are
deleted together with their handlers' checkpoints and rebuilt from the log.
"""

import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from aircraft import Flight

LATE = 15  # minutes; the Bureau of Transportation Statistics counts less as on time

SCHEMA = """
CREATE TABLE IF NOT EXISTS delays (
    airport TEXT PRIMARY KEY, counted_to INTEGER,
    departed INTEGER, late INTEGER, minutes INTEGER, worst INTEGER, worst_flight TEXT
);
CREATE TABLE IF NOT EXISTS punctuality (
    carrier TEXT PRIMARY KEY, counted_to INTEGER,
    arrived INTEGER, on_time INTEGER, unreported INTEGER
);
CREATE TABLE IF NOT EXISTS cancellations (event_id TEXT PRIMARY KEY, airport TEXT, flight TEXT);
CREATE TABLE IF NOT EXISTS late_fees (
    event_id TEXT PRIMARY KEY, carrier TEXT, flight TEXT, minutes INTEGER, dollars INTEGER
);
"""

COUNT_DEPARTURE = """
INSERT INTO delays VALUES (:airport, :position, 1, :late, :delay, :delay, :flight)
ON CONFLICT DO UPDATE SET
    counted_to = excluded.counted_to,
    departed = departed + 1,
    late = late + excluded.late,
    minutes = minutes + excluded.minutes,
    worst = max(worst, excluded.worst),
    worst_flight = CASE
        WHEN excluded.worst > worst THEN excluded.worst_flight
        WHEN excluded.worst = worst THEN min(excluded.worst_flight, worst_flight)
        ELSE worst_flight
    END
WHERE excluded.counted_to > counted_to
"""

COUNT_ARRIVAL = """
INSERT INTO punctuality VALUES (:carrier, :position, 1, :on_time, :unreported)
ON CONFLICT DO UPDATE SET
    counted_to = excluded.counted_to,
    arrived = arrived + 1,
    on_time = on_time + excluded.on_time,
    unreported = unreported + excluded.unreported
WHERE excluded.counted_to > counted_to
"""

AIRPORTS = """
SELECT airport, departed, late, minutes, worst, worst_flight,
    (SELECT count(*) FROM cancellations WHERE cancellations.airport = delays.airport)
FROM delays ORDER BY departed DESC, airport
"""

CARRIERS = """
SELECT carrier, arrived, on_time, unreported,
    (SELECT coalesce(sum(dollars), 0) FROM late_fees WHERE late_fees.carrier = punctuality.carrier)
FROM punctuality ORDER BY arrived DESC, carrier
"""


class AirportRow(NamedTuple):
    airport: str
    departed: int
    late: int
    minutes: int
    worst: int
    worst_flight: str
    cancelled: int


class CarrierRow(NamedTuple):
    carrier: str
    arrived: int
    on_time: int
    unreported: int
    fees: int


class Boards:
    """All boards over one connection.

    Handlers that are plain functions run on changing worker threads, so the connection is not tied to a thread. A
    lock separates the statements of different handlers.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + SCHEMA)

    def departed(self, position: int, flight: Flight, delay: int) -> None:
        self._write(
            COUNT_DEPARTURE,
            {
                "airport": flight.origin,
                "position": position,
                "late": delay >= LATE,
                "delay": delay,
                "flight": str(flight),
            },
        )

    def arrived(self, position: int, flight: Flight, delay: int | None) -> None:
        self._write(
            COUNT_ARRIVAL,
            {
                "carrier": flight.carrier,
                "position": position,
                "on_time": delay is not None and delay < LATE,
                "unreported": delay is None,
            },
        )

    def cancelled(self, event_id: str, flight: Flight) -> None:
        row = (event_id, flight.origin, str(flight))
        self._write("INSERT OR IGNORE INTO cancellations VALUES (?, ?, ?)", row)

    def charged(self, event_id: str, flight: Flight, minutes: int, dollars: int) -> None:
        row = (event_id, flight.carrier, str(flight), minutes, dollars)
        self._write("INSERT OR IGNORE INTO late_fees VALUES (?, ?, ?, ?, ?)", row)

    def airports(self) -> list[AirportRow]:
        with self._lock:
            return [AirportRow(*row) for row in self._connection.execute(AIRPORTS)]

    def carriers(self) -> list[CarrierRow]:
        with self._lock:
            return [CarrierRow(*row) for row in self._connection.execute(CARRIERS)]

    def _write(self, statement: str, values: dict[str, str | int] | tuple[str | int, ...]) -> None:
        """Run one statement as one transaction: the connection is in autocommit mode."""
        with self._lock:
            self._connection.execute(statement, values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
