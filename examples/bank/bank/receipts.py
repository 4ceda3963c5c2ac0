"""Receipts: a line for the customer on each deposit and withdrawal."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

from bank.accounts import Deposited, Withdrawn
from uno_actors import Depends, HandlerContext, subscribe


def outbox() -> Iterator[TextIO]:
    """The outbox of a mail server, a file. It is open as long as the handler runs."""
    with Path(os.environ.get("BANK_OUTBOX", "outbox.jsonl")).open("a", encoding="utf-8") as file:
        yield file


@subscribe((Deposited, Withdrawn))
def send_receipt(
    event: Deposited | Withdrawn, context: HandlerContext, outbox: Annotated[TextIO, Depends(outbox)]
) -> None:
    """Write a receipt to the outbox. A plain function, because writing to a file blocks.

    The receipt is written twice if the service is killed between the line and the checkpoint. The mail server
    recognises it by its id.
    """
    receipt = {
        "id": event.event_id,
        "account": event.aggregate_id,
        "text": f"{event.event_type} {event.amount / 100:.2f}, your balance is {event.balance / 100:.2f}",
    }
    outbox.write(json.dumps(receipt) + "\n")
    outbox.flush()
    context.logger.info("receipt written", account=event.aggregate_id)
