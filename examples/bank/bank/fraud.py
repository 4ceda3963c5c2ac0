"""Fraud alerts: an account is blocked after a very large withdrawal, until a person has checked it."""

from bank.accounts import Account, Block, Withdrawn
from uno_actors import HandlerContext, subscribe

SUSPICIOUS = 1_000_000
"""Cents."""


@subscribe(Withdrawn)
async def look_for_fraud(event: Withdrawn, context: HandlerContext) -> None:
    """Block the account. The command's id follows from the event: a second delivery changes nothing."""
    if event.amount >= SUSPICIOUS and event.aggregate_id is not None:
        context.logger.warning("account blocked", account=event.aggregate_id, amount=event.amount)
        command = Block(
            command_id=f"fraud-{event.event_id}", reason=f"{event.amount / 100:.2f} were taken at once"
        )
        await context.system.aggregate(Account, event.aggregate_id).ask(command)
