"""Fraud alerts: an account from which very much is taken at once is blocked until somebody has looked at it."""

from bank.accounts import Account, Block, Withdrawn
from uno_actors import EventPriority, HandlerContext, subscribe

SUSPICIOUS = 1_000_000
"""Cents."""


@subscribe(Withdrawn, priority=EventPriority.HIGH, name="fraud", start="earliest")
async def look_for_fraud(event: Withdrawn, context: HandlerContext) -> None:
    """Block the account. The command's id follows from the event: a second delivery changes nothing."""
    if event.amount >= SUSPICIOUS and event.aggregate_id is not None:
        context.logger.warning("account blocked", account=event.aggregate_id, amount=event.amount)
        command = Block(
            command_id=f"fraud-{event.event_id}", reason=f"{event.amount / 100:.2f} were taken at once"
        )
        await context.system.aggregate(Account, event.aggregate_id).ask(command)
