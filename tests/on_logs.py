"""Handlers, events and what was handled, for tests on stores with several logs."""

from collections.abc import Iterable

from uno_actors import ActorSystem, DomainEvent, HandlerContext, Projection
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.store.port import EventStore

LOGS = 4
ACCOUNTS = [f"account-{number}" for number in range(30)]


class LogPaid(DomainEvent):
    number: int
    topic: str = "logs.paid"


class Handled:
    """What was handled: system, handler or partition, account and number of each event, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, int]] = []
        self.fails = False

    def spec(
        self, system: str = "a", name: str = "mail", partitioned: bool | int = 4, **options: object
    ) -> HandlerSpec:
        async def handle(event: LogPaid, context: HandlerContext) -> None:
            if self.fails:
                raise ValueError("not now")
            self.calls.append((system, context.handler, event.aggregate_id or "", event.number))

        return HandlerSpec(
            name,
            handle,
            **{"start": "earliest", "partitioned": partitioned, **options},  # type: ignore[arg-type]
        )

    def numbers_of(self, account: str) -> list[int]:
        return [number for _, _, each, number in self.calls if each == account]

    def all_are(self, numbers: Iterable[int]) -> bool:
        wanted = [*numbers]
        return all(self.numbers_of(account) == wanted for account in ACCOUNTS)


async def pay_all(store: EventStore, *numbers: int) -> None:
    for number in numbers:
        await store.append(
            *(LogPaid(number=number, aggregate_id=each, aggregate_type="Account") for each in ACCOUNTS)
        )


def system(url: str, *handlers: object, name: str = "a", **options: object) -> ActorSystem:
    return ActorSystem(url, aggregates=[], handlers=handlers, name=name, **options)  # type: ignore[arg-type]


class LogSums(Projection[LogPaid, str]):
    """The sum of the numbers of each account."""

    partitioned = 4

    async def handle(self, event: LogPaid) -> None:
        account = event.aggregate_id or ""
        self.view.put(account, await self.view.get(account, 0) + event.number * self.version)


def sums(kind: type[LogSums] = LogSums, partitioned: bool | int = 4) -> HandlerSpec:
    return HandlerSpec("sums", kind, partitioned=partitioned)
