"""What must be so at the bank, whatever happens to its machines."""

import asyncio

from bank.accounts import Account, Deposit, LookAt, OpenAccount
from bank.fraud import look_for_fraud
from bank.transfers import PREFIX, LookAtTransfer, RequestTransfer, Transfer
from bank.transfers import transfers as transfer_handler
from uno_actors import ActorSystem, ChildSpec, Supervisor
from uno_actors.testing.simulation import InvariantBroken, Node, World

OWNERS = ("ann", "ben", "cleo")
OPENING = 1_000


def make_system(node: Node) -> ActorSystem:
    # A disk may be full for longer than five attempts take: money is worth more of them.
    transfer = ChildSpec(transfer_handler, "transfers", max_attempts=100)
    fraud = ChildSpec(look_for_fraud, "fraud", max_attempts=100)
    money = Supervisor("money", [transfer, fraud], max_restarts=None)
    return ActorSystem(
        node.store, aggregates=[Account, Transfer], supervisors=[money], handlers=[], name="bank"
    )


async def transfers(world: World) -> None:
    """Customers send money to each other; none appears and none disappears."""
    await world.node("bank", make_system)
    for owner in OWNERS:
        await world.ask(Account, owner, OpenAccount(owner=owner))
        await world.ask(Account, owner, Deposit(amount=OPENING))
    requested: list[str] = []

    async def customer(name: str) -> None:
        for number in world.commands(4):
            source, target = world.chance.sample(OWNERS, 2)
            transfer = f"{PREFIX}{name}-{number}"
            request = RequestTransfer(
                source=source, target=target, amount=world.chance.randint(1, 700), correlation_id=transfer
            )
            await world.ask(Transfer, transfer, request)
            requested.append(transfer)
            await asyncio.sleep(world.chance.random() * 0.1)

    await asyncio.gather(customer("web"), customer("app"))
    await world.settled()
    await world.check(books_balance)
    for transfer in requested:
        state = await world.ask(Transfer, transfer, LookAtTransfer())
        if state["outcome"] == "under way":
            raise InvariantBroken("every transfer ends", f"{transfer} is still under way")


async def books_balance(world: World) -> None:
    """The bank has what was paid in."""
    accounts = [await world.ask(Account, owner, LookAt()) for owner in OWNERS]
    total = sum(int(str(account["balance"])) for account in accounts)
    if total != OPENING * len(OWNERS):
        raise InvariantBroken("no money appears or disappears", f"{total} instead of {OPENING * len(OWNERS)}")
