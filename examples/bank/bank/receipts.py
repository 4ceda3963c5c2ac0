"""Receipts: a line for the customer on each movement of money."""

import json
import os
from pathlib import Path

from bank.accounts import Deposited, Withdrawn
from uno_actors import EventPriority, HandlerContext, subscribe


@subscribe((Deposited, Withdrawn), priority=EventPriority.NORMAL, name="receipts", start="earliest")
def send_receipt(event: Deposited | Withdrawn, context: HandlerContext) -> None:
    """Write it to the outbox, from which a mail server takes it: a plain function, for files block.

    It may be written twice, if the service is killed between the line and the checkpoint; whoever takes it from
    the outbox knows it by its id.
    """
    receipt = {
        "id": event.event_id,
        "account": event.aggregate_id,
        "text": f"{event.event_type} {event.amount / 100:.2f}, your balance is {event.balance / 100:.2f}",
    }
    outbox = Path(os.environ.get("BANK_OUTBOX", "outbox.jsonl"))
    with outbox.open("a", encoding="utf-8") as file:
        file.write(json.dumps(receipt) + "\n")
    context.logger.info("receipt written", account=event.aggregate_id)
