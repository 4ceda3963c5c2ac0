"""Three transfers: one to a closed account, and one of more money than there is.

    python examples/transfer/transfer.py [DIRECTORY]

Kill it at any moment and start it again on the same directory: it resumes, and no money is lost or created.
"""

import asyncio
import sys
import tempfile

from transfer_domain import (
    Balance,
    BankAccount,
    CloseAccount,
    OpenAccount,
    Outcome,
    RequestTransfer,
    Transfer,
    TransferProcess,
)

from uno_actors import ActorSystem

OPENING = {"alice": 100, "bob": 50, "carol": 0}
TRANSFERS = {"rent": ("alice", "bob", 30), "gift": ("alice", "carol", 20), "yacht": ("bob", "alice", 1000)}


async def transfers(path: str) -> dict[str, object]:
    """Make the transfers, unless an earlier run has, and print the state of them and of the accounts."""
    async with ActorSystem(
        f"lmdb:{path}",
        aggregates=[BankAccount, Transfer, TransferProcess],
        handlers=[TransferProcess.handler(start="earliest")],
    ) as system:
        for name, balance in OPENING.items():
            await system.aggregate(BankAccount, name).ask(OpenAccount(balance=balance))
        await system.aggregate(BankAccount, "carol").ask(CloseAccount())
        for name, (source, target, amount) in TRANSFERS.items():
            # A fixed id makes the command safe to repeat; the process is named after it, too.
            wish = RequestTransfer(
                command_id=f"wish-{name}", correlation_id=name, source=source, target=target, amount=amount
            )
            await system.aggregate(Transfer, name).ask(wish)
        await system.settled()
        outcomes = {name: await system.aggregate(TransferProcess, name).ask(Outcome()) for name in TRANSFERS}
        balances = {name: await system.aggregate(BankAccount, name).ask(Balance()) for name in OPENING}
    return {**outcomes, **balances}


def main(path: str) -> None:
    for name, value in asyncio.run(transfers(path)).items():
        print(f"{name:6} {value}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
