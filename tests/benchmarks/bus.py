"""The event bus beside `bubus`."""

import logging
import time
from functools import partial

import bubus

from tests.benchmarks.accounts import Deposited
from tests.benchmarks.measuring import Measured, rate
from uno_actors import (
    EventBus,
)


class PeerDeposited(bubus.BaseEvent[None]):
    """The same event for `bubus`."""

    amount: int


async def bus(events: int = 50_000, peer_events: int = 500) -> list[Measured]:
    """One event after the other, each created and awaited until its handlers have run."""
    handled = 0

    async def handle(event: object) -> None:
        nonlocal handled
        handled += 1

    async def ours(handlers: int) -> float:
        events_bus = EventBus()
        for number in range(handlers):
            events_bus.subscribe(partial(handle), Deposited, name=f"handler-{number}")
        started = time.perf_counter()
        for _ in range(events):
            await events_bus.publish(Deposited(amount=1))
        return rate(events, started)

    async def theirs(handlers: int) -> float:
        peer = bubus.EventBus(name=f"peer_{handlers}")
        for number in range(handlers):

            async def named(event: PeerDeposited) -> None:
                await handle(event)

            named.__name__ = f"handler_{number}"
            peer.on(PeerDeposited, named)
        started = time.perf_counter()
        for _ in range(peer_events):
            await peer.dispatch(PeerDeposited(amount=1))
        measured = rate(peer_events, started)
        await peer.stop()
        return measured

    logging.getLogger("bubus").setLevel(logging.CRITICAL)
    measured = [
        Measured("events/s published to one async handler", await ours(1), "bubus", await theirs(1), 100),
        Measured("  to three async handlers", await ours(3), "bubus", await theirs(3)),
    ]
    assert handled == 4 * (events + peer_events)
    return measured
