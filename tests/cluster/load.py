"""Clients that credit accounts through the nodes of a cluster, and what must be true of the log afterwards."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

from tests.bank import Account, BankStore, Credit
from uno_actors import ActorSystem
from uno_actors.store.codec import StreamId


class Load:
    """Clients that each credit 1 to an account of chance, again and again.

    Args:
        systems: Returns the nodes that a client may ask now.
        accounts: Ids of the accounts.
        seed: Of the accounts and nodes chosen.
    """

    def __init__(
        self, systems: Callable[[], Sequence[ActorSystem]], accounts: Sequence[str], seed: int = 0
    ) -> None:
        self.acknowledged: dict[str, tuple[str, int]] = {}
        self.errors: list[Exception] = []
        self.is_over = False
        self._systems = systems
        self._accounts = accounts
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)

    async def run(self, clients: int, commands: int | None = None) -> None:
        """Have so many clients send so many commands each; by default until `is_over`."""
        await asyncio.gather(*[self._client(commands) for _ in range(clients)])

    async def _client(self, commands: int | None) -> None:
        for _ in itertools.count() if commands is None else range(commands):
            if self.is_over:
                return
            command = Credit(amount=1, command_id=f"command-{next(self._numbers)}")
            account = self._random.choice(self._accounts)
            system = self._random.choice(self._systems())
            try:
                balance = await system.aggregate(Account, account).ask(command)
            except Exception as error:  # noqa: BLE001 - the test looks at them
                self.errors.append(error)
                continue
            self.acknowledged[command.command_id] = (account, balance)

    async def check(self, store: BankStore, *, all_acknowledged: bool = True) -> None:
        """Every acknowledged command is recorded once, with the version that its reply was; the rest at most once."""
        recorded: dict[str, tuple[str, int]] = {}
        for account in self._accounts:
            records = [
                record for _, record in await store.read_stream(StreamId("Account", account), 0, 100_000)
            ]
            assert [record.aggregate_version for record in records] == list(range(1, len(records) + 1))
            for record in records:
                assert record.answered is not None
                assert record.answered not in recorded, "recorded twice"
                recorded[record.answered] = (account, record.aggregate_version or 0)
        assert self.acknowledged.items() <= recorded.items()
        if all_acknowledged:
            assert recorded.keys() == self.acknowledged.keys()
