"""An audit: compares the event store with the acknowledgements."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from aircraft import FlightArrived, FlightCancelled, FlightDeparted

from uno_actors import DeadLetter, open_store


@dataclass
class Audit:
    acknowledged: int = 0  # commands
    rejected: int = 0  # commands acknowledged as rejected by a rule
    lost: list[str] = field(default_factory=list)  # acknowledged, but not in the store
    twice: list[str] = field(default_factory=list)  # in the store more than once
    unacknowledged: int = 0  # in the store, but not acknowledged
    events: int = 0
    departures: int = 0
    cancellations: int = 0
    without_arrival_delay: int = 0  # flights, cancelled ones included
    without_tail_number: int = 0  # flights
    aircraft: int = 0
    dead_letters: list[DeadLetter] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.departures + self.cancellations


async def audit(data_dir: Path) -> Audit:
    """Read the store from the first event to the last, without an actor system."""
    found = Audit()
    recorded: Counter[str] = Counter()
    aircraft: set[str] = set()
    store = open_store(f"lmdb:{data_dir / 'store'}")
    async with store:
        async for _, event in store.read_all():
            found.events += 1
            name = event.aggregate_id or ""
            aircraft.add(name)
            unknown = name.startswith("unknown-")
            match event:
                case FlightDeparted():
                    found.departures += 1
                    found.without_tail_number += unknown
                    recorded[f"depart {name} {event.flight}"] += 1
                case FlightCancelled():
                    found.cancellations += 1
                    found.without_arrival_delay += 1
                    found.without_tail_number += unknown
                    recorded[f"cancel {name} {event.flight}"] += 1
                case FlightArrived():
                    found.without_arrival_delay += event.delay is None
                    recorded[f"arrive {name} {event.flight}"] += 1
        found.dead_letters = await store.dead_letters()
    found.aircraft = len(aircraft)
    found.twice = [told for told, times in recorded.items() if times > 1]
    found.unacknowledged = len(recorded)
    with (data_dir / "acknowledged.log").open(encoding="utf-8") as lines:
        for line in lines:
            outcome, _, told = line.rstrip("\n").partition(" ")
            if not line.endswith("\n"):
                continue
            found.acknowledged += 1
            if outcome == "rejected":
                found.rejected += 1
                continue
            if told in recorded:
                found.unacknowledged -= 1
            else:
                found.lost.append(told)
    return found
