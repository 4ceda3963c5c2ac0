"""Records the messages of a stream of NATS, and kills itself at one of its steps.

Usage: killed_receiver.py DIRECTORY URL WAY NUMBER: at the step of this number, counted from 1; 0 for never. WAY is
``event`` or ``command``. The steps are before and after each write to the store and each acknowledgement, and each call
of the program's function.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import nats
from faststream.nats import NatsBroker, NatsMessage
from nats.js.api import ConsumerConfig

from tests.outside.conftest import JetStream
from tests.outside.paying import PaidOrder, PaymentSeen, pay
from tests.waiting import until
from uno_actors import ActorSystem, open_store
from uno_actors.outside import Message, Send, receive


def at_both_ends(step: Callable[[], None], owner: Any, name: str) -> None:
    """Take a step before and after each call of a method."""
    method = getattr(owner, name)

    async def stepping(*args: Any, **kwargs: Any) -> Any:
        step()
        result = await method(*args, **kwargs)
        step()
        return result

    setattr(owner, name, stepping)


async def main(directory: str, url: str, way: str, kill_at: int) -> None:
    numbers = count(1)

    def step() -> None:
        if next(numbers) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def read(message: Message) -> PaymentSeen:
        step()
        return message.read(PaymentSeen)

    def command(message: Message) -> Send:
        step()
        return pay(message)

    store = open_store(f"lmdb:{directory}/log")
    at_both_ends(step, store, "commit")
    at_both_ends(step, store, "save_progress")
    at_both_ends(step, NatsMessage, "ack")
    handler = receive(
        NatsBroker(url),
        "payments.>",
        name="payments",
        stream="ALL",
        config=ConsumerConfig(ack_wait=0.5),
        **({"event": read} if way == "event" else {"command": command}),  # type: ignore[arg-type]
    )
    client = await nats.connect(url)
    async with store, ActorSystem(store, aggregates=[PaidOrder], handlers=[handler]) as system:
        await until(lambda: JetStream(None, client).is_acknowledged("payments"))  # type: ignore[arg-type]
        await system.settled()
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
