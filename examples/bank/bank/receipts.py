"""Receipts: a line for the customer on each deposit and withdrawal."""

import json
import os
from pathlib import Path

from bank.accounts import Deposited, Withdrawn
from uno_actors import HandlerContext, subscribe


@subscribe((Deposited, Withdrawn))
def send_receipt(event: Deposited | Withdrawn, context: HandlerContext) -> None:
    """Write a receipt to the outbox of a mail server. A plain function, because writing to a file blocks.

    The receipt is written twice if the service is killed between the line and the checkpoint. The mail server
    recognises it by its id.
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
