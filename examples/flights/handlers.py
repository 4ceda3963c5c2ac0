"""The handlers of the flights, and the system that runs them.

| handler       | listens to                | priority | is                                              |
|---------------|---------------------------|----------|-------------------------------------------------|
| delay-board   | ``flights.*.departed``    | HIGH     | a plain function, on a worker thread            |
| punctuality   | ``flights.*.arrived``     | NORMAL   | a plain function, on a worker thread            |
| cancellations | ``flights.*.cancelled``   | NORMAL   | a coroutine function, on the event loop         |
| late-fees     | ``flights.>``, arrivals   | LOW      | has its own supervisor; fails on missing data   |
"""

import asyncio
from pathlib import Path

from aircraft import Aircraft, FlightArrived, FlightCancelled, FlightDeparted
from boards import LATE, Boards

from uno_actors import ActorSystem, Backoff, EventPriority, HandlerContext, Supervisor, subscribe

FEE = 5  # dollars that a carrier owes for each minute beyond LATE; the example's invention


def flights_system(data_dir: Path, boards: Boards) -> ActorSystem:
    """The whole service: aircraft on an LMDB store in ``data_dir``, and four handlers."""

    @subscribe(FlightDeparted, "flights.*.departed", EventPriority.HIGH, name="delay-board", start="earliest")
    def delay_board(event: FlightDeparted, context: HandlerContext) -> None:
        boards.departed(context.position, event.flight, event.delay)

    @subscribe(FlightArrived, "flights.*.arrived", name="punctuality", start="earliest")
    def punctuality(event: FlightArrived, context: HandlerContext) -> None:
        boards.arrived(context.position, event.flight, event.delay)

    @subscribe(FlightCancelled, "flights.*.cancelled", name="cancellations", start="earliest")
    async def cancellations(event: FlightCancelled) -> None:
        # It shares the event loop with all aircraft, so disk access goes to a thread.
        await asyncio.to_thread(boards.cancelled, event.event_id, event.flight)

    @subscribe(
        FlightArrived, "flights.>", EventPriority.LOW, name="late-fees", start="earliest", max_attempts=3
    )
    def late_fees(event: FlightArrived) -> None:
        """Charge the carrier of a late flight.

        An arrival without a delay cannot be charged. The handler need not know that another attempt is useless: it
        raises, its supervisor restarts it, the same event comes again, and after the third attempt the event goes
        to the dead letters, where a person finds it. Other handlers are not affected.
        """
        if event.delay is None:
            raise ValueError(f"{event.flight} has no arrival delay")
        if event.delay > LATE:
            boards.charged(event.event_id, event.flight, event.delay, FEE * (event.delay - LATE))

    # One arrival in 300 has no delay and costs three restarts, so half a million arrivals cause 5,000 restarts. If
    # there are more within a minute, something else is wrong: the service stops and says so.
    billing = Supervisor(
        "billing",
        children=[late_fees],
        max_restarts=5_000,
        within=60.0,
        backoff=Backoff(initial=0.001, max=0.05),
    )
    return ActorSystem(
        f"lmdb:{data_dir / 'store'}",
        name="flights",
        aggregates=[Aircraft],
        handlers=[delay_board, punctuality, cancellations],
        supervisors=[billing],
    )
