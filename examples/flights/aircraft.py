"""An aircraft and its commands. Pure domain code: no store, no actors, testable by calling it.

A row of the file describes one flight, identified by its number and its scheduled departure. An aircraft records
each of its flights once.
"""

from datetime import UTC
from enum import StrEnum
from typing import ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, handles


class Flight(BaseModel):
    """One scheduled flight, a value.

    Carrier, number and scheduled departure are its key in the source of the file, and ``str(flight)`` is that key.
    """

    model_config = ConfigDict(frozen=True)

    carrier: str
    number: int
    scheduled: AwareDatetime  # departure
    origin: str
    destination: str

    def __str__(self) -> str:
        return f"{self.carrier}{self.number} {self.scheduled.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


# --- commands: the reply says whether the command was new ---


class Depart(Command[bool]):
    flight: Flight
    delay: int  # minutes; less than 0 is early


class Arrive(Command[bool]):
    flight: Flight
    delay: int | None  # minutes; None if it was not reported


class Cancel(Command[bool]):
    flight: Flight


FlightCommand = Depart | Arrive | Cancel


# --- events: the topic names the airport where it happened ---


class FlightDeparted(DomainEvent):
    flight: Flight
    delay: int


class FlightArrived(DomainEvent):
    flight: Flight
    delay: int | None


class FlightCancelled(DomainEvent):
    flight: Flight


class Phase(StrEnum):
    SCHEDULED = "scheduled"
    DEPARTED = "departed"
    ARRIVED = "arrived"
    CANCELLED = "cancelled"


class Aircraft(AggregateRoot):
    """One aircraft, named by its tail number.

    The same command may come twice: a sender that was killed does not know whether its last commands were
    recorded, so it sends them again. The aircraft recognises a flight that it has recorded, records nothing,
    and answers ``False``. This idempotence is part of the domain: it holds for any sender, any command id, and
    any crash.

    It finds each flight by its key, so the sender may use any order: the file of the real year has the months in
    the order 1, 10, 11, 12, 2, and within a day delayed flights come late and cancelled ones last. A key and a
    phase take about 150 bytes: 12 KiB for the 83 flights that an aircraft has on average in the real year.
    """

    schema_version: ClassVar[int] = 2  # of snapshots: version 1 kept the flights of two days only
    flights: dict[str, Phase]

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.flights = {}  # by key

    @handles
    def depart(self, command: Depart) -> bool:
        flight = command.flight
        phase = self._phase(flight)
        if phase in (Phase.DEPARTED, Phase.ARRIVED):
            return False
        if phase is Phase.CANCELLED:
            raise CommandRejected(f"{flight} cannot depart: it was cancelled")
        topic = f"flights.{flight.origin.lower()}.departed"
        self.register_event(FlightDeparted(flight=flight, delay=command.delay, topic=topic))
        return True

    @handles
    def arrive(self, command: Arrive) -> bool:
        flight = command.flight
        phase = self._phase(flight)
        if phase is Phase.ARRIVED:
            return False
        if phase is not Phase.DEPARTED:
            raise CommandRejected(f"{flight} cannot arrive: it is {phase}")
        topic = f"flights.{flight.destination.lower()}.arrived"
        self.register_event(FlightArrived(flight=flight, delay=command.delay, topic=topic))
        return True

    @handles
    def cancel(self, command: Cancel) -> bool:
        flight = command.flight
        phase = self._phase(flight)
        if phase is Phase.CANCELLED:
            return False
        if phase is not Phase.SCHEDULED:
            raise CommandRejected(f"{flight} cannot be cancelled: it has {phase}")
        topic = f"flights.{flight.origin.lower()}.cancelled"
        self.register_event(FlightCancelled(flight=flight, topic=topic))
        return True

    def apply_flight_departed(self, event: FlightDeparted) -> None:
        self.flights[str(event.flight)] = Phase.DEPARTED

    def apply_flight_arrived(self, event: FlightArrived) -> None:
        self.flights[str(event.flight)] = Phase.ARRIVED

    def apply_flight_cancelled(self, event: FlightCancelled) -> None:
        self.flights[str(event.flight)] = Phase.CANCELLED

    def _phase(self, flight: Flight) -> Phase:
        return self.flights.get(str(flight), Phase.SCHEDULED)
