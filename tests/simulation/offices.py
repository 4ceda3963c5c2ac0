"""Invoices over a cluster: processes, commands sent later, and events recorded by handlers on three nodes."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Cluster,
    Command,
    CommandRejected,
    DomainEvent,
    EventRegistry,
    HandlerContext,
    ProcessManager,
    Projection,
    handles,
    reacts,
    subscribe,
)
from uno_actors.testing.simulation import InvariantBroken, Node, World

NODES = ("a", "b", "c")
TILL = "till"
REMINDED_AFTER = timedelta(minutes=20)
"""More than a clock is off."""


class InvoiceSent(DomainEvent):
    amount: int


class InvoicePaid(DomainEvent):
    amount: int


class InvoiceReminded(DomainEvent):
    pass


class CollectionBegun(DomainEvent):
    amount: int


class TookIn(DomainEvent):
    amount: int


REGISTRY = EventRegistry([InvoiceSent, InvoicePaid, InvoiceReminded, CollectionBegun, TookIn])


class SendInvoice(Command[None]):
    amount: int


class PayInvoice(Command[None]): ...


class Remind(Command[None]): ...


class TakeIn(Command[int]):
    amount: int


class Total(Command[int]): ...


class Invoice(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.amount = 0
        self.is_paid = False

    @handles
    def send(self, command: SendInvoice) -> None:
        if self.amount:
            raise CommandRejected("it was sent before")
        self.register_event(InvoiceSent(amount=command.amount))

    @handles
    def pay(self, command: PayInvoice) -> None:
        if self.is_paid:
            raise CommandRejected("it is paid")
        self.register_event(InvoicePaid(amount=self.amount))

    @handles
    def remind(self, command: Remind) -> None:
        if self.is_paid:
            raise CommandRejected("it is paid")
        self.register_event(InvoiceReminded())

    def apply_invoice_sent(self, event: InvoiceSent) -> None:
        self.amount = event.amount

    def apply_invoice_paid(self, event: InvoicePaid) -> None:
        self.is_paid = True

    def apply_invoice_reminded(self, event: InvoiceReminded) -> None: ...


class Till(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.total = 0

    @handles
    def take_in(self, command: TakeIn) -> int:
        self.register_event(TookIn(amount=command.amount))
        return self.total

    @handles
    def count(self, command: Total) -> int:
        return self.total

    def apply_took_in(self, event: TookIn) -> None:
        self.total += event.amount


class Collection(ProcessManager):
    """Reminds of an invoice that is not paid in time, and takes the money in when it is."""

    sends_to = (Invoice, Till)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.amount = 0

    @reacts(starts=True, by="aggregate_id")
    def begin(self, event: InvoiceSent) -> None:
        self.register_event(CollectionBegun(amount=event.amount))
        self.schedule(Remind(), to=(Invoice, self.id), after=REMINDED_AFTER, key="reminder")

    @reacts(by="aggregate_id")
    def take_in(self, event: InvoicePaid) -> None:
        self.unschedule("reminder")
        self.send(Till, TILL, TakeIn(amount=event.amount))
        self.end()

    def apply_collection_begun(self, event: CollectionBegun) -> None:
        self.amount = event.amount


@subscribe(name="open-invoices", partitioned=3)
class OpenInvoices(Projection[InvoiceSent | InvoicePaid, str]):
    async def handle(self, event: InvoiceSent | InvoicePaid) -> None:
        key = event.aggregate_id or ""
        self.view.put(key, "paid" if isinstance(event, InvoicePaid) else "open")


@subscribe(name="thanks", start="earliest", concurrency=2, max_attempts=100)
async def thank(event: InvoicePaid, context: HandlerContext) -> None:
    await asyncio.sleep(0.01)


def make_system(node: Node) -> ActorSystem:
    return ActorSystem(
        node.store,
        name="offices",
        aggregates=[Invoice, Till, Collection],
        handlers=[Collection.handler(start="earliest", max_attempts=100), OpenInvoices, thank],
        cluster=Cluster(listen=node.network, name=node.name, ttl=3.0),
        event_registry=REGISTRY,
        passivate_after=1.0,
    )


async def payments(world: World) -> None:
    await asyncio.gather(*(world.node(name, make_system) for name in NODES))
    paid: dict[str, int] = {}

    async def clerk(name: str) -> None:
        for number in world.commands(4):
            invoice = f"{name}-{number}"
            await world.ask(Invoice, invoice, SendInvoice(amount=number + 1, command_id=f"send-{invoice}"))
            await asyncio.sleep(world.chance.random() * 0.3)
            if world.chance.random() < 0.7:
                with suppress(CommandRejected):
                    await world.ask(Invoice, invoice, PayInvoice())
                paid[invoice] = number + 1

    await asyncio.gather(clerk("x"), clerk("y"))
    world.jump(REMINDED_AFTER.total_seconds() - 400)
    await asyncio.sleep(1)
    await world.settled()
    # A process may have begun after the jump, and clocks may be five minutes off, either way.
    world.jump(REMINDED_AFTER.total_seconds() + 700)
    await asyncio.sleep(40)
    await world.settled()
    await world.check(each_is_paid_or_reminded_once)
    total = await world.ask(Till, TILL, Total())
    if total != sum(paid.values()):
        raise InvariantBroken("what was paid is in the till", f"{total} instead of {sum(paid.values())}")


def each_is_paid_or_reminded_once(world: World) -> None:
    """An invoice that is not paid gets one reminder; one that was paid before gets none afterwards."""
    seen: dict[str | None, list[str]] = {}
    for event in world.log():
        if isinstance(event, InvoiceSent):
            seen[event.aggregate_id] = []
        elif isinstance(event, InvoicePaid | InvoiceReminded):
            seen[event.aggregate_id].append(event.event_type)
    for invoice, found in seen.items():
        if found not in (["InvoicePaid"], ["InvoiceReminded"]):
            raise InvariantBroken(
                "each invoice is paid, or reminded once", f"{invoice}: {found or 'neither'}"
            )
