"""The bank over HTTP: ``uvicorn bank.service:app``, on several cores with ``--workers``.

``bank.toml`` configures the system. BANK_STORE is the URL of the store; the default is ``lmdb:data`` next to that file.
"""

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from bank.accounts import Account, Cents, Deposit, LookAt, OpenAccount, Withdraw
from bank.transfers import PREFIX, LookAtTransfer, RequestTransfer, Transfer
from uno_actors import AggregateRef
from uno_actors.fastapi import (
    EventStream,
    IdempotencyKey,
    System,
    add_probes,
    add_problem_details,
    aggregate,
    command,
    events,
    lifespan,
)

CONFIG = Path(__file__).parents[1] / "bank.toml"

# Each worker of uvicorn is a node.
app = FastAPI(title="A bank", lifespan=lifespan(CONFIG, cluster=True))
add_problem_details(app)
add_probes(app)  # /livez and /readyz

AnAccount = Annotated[AggregateRef, aggregate(Account)]
KnownAccount = Annotated[AggregateRef, aggregate(Account, must_exist=True)]
KnownTransfer = Annotated[AggregateRef, aggregate(Transfer, must_exist=True)]


class NewAccount(BaseModel):
    id: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    owner: str = Field(min_length=1)


class NewTransfer(BaseModel):
    source: str
    target: str
    amount: Cents


class Balance(BaseModel):
    balance: int


# --- accounts ---


@app.post("/accounts", status_code=201)
async def open_account(new: NewAccount, system: System, key: IdempotencyKey) -> Balance:
    opening = OpenAccount(command_id=key, owner=new.owner)
    return Balance(balance=await system.aggregate(Account, new.id).ask(opening))


@app.get("/accounts/{id}")
async def look_at_account(account: KnownAccount) -> dict[str, Any]:
    return await account.ask(LookAt())


@app.post("/accounts/{id}/deposits")
async def deposit(account: AnAccount, deposit: Annotated[Deposit, command(Deposit)]) -> Balance:
    return Balance(balance=await account.ask(deposit))


@app.post("/accounts/{id}/withdrawals")
async def withdraw(account: AnAccount, withdrawal: Annotated[Withdraw, command(Withdraw)]) -> Balance:
    return Balance(balance=await account.ask(withdrawal))


@app.get("/accounts/{id}/statement")
async def statement(
    id: str, system: System, limit: Annotated[int, Field(ge=1, le=1000)] = 50
) -> list[dict[str, Any]]:
    """The last deposits and withdrawals, newest first: the stream of the account is its statement."""
    recorded = await system.store.get_events(id, aggregate_type="Account", limit=limit, backward=True)
    return [
        {
            "number": event.aggregate_version,
            "time": event.timestamp.isoformat(),
            "what": event.event_type,
            **event.model_dump(include={"amount", "balance", "owner", "reason"}),
        }
        for event in recorded
    ]


@app.get("/accounts/{id}/events", response_class=EventStream)
async def follow_account(account: KnownAccount, request: Request) -> EventStream:
    """What happens to the account from now on, as server-sent events."""
    return await events(request, aggregate=account)


# --- transfers ---


@app.post("/transfers", status_code=202)
async def request_transfer(new: NewTransfer, system: System, key: IdempotencyKey) -> dict[str, str]:
    """Accept a transfer. The client names it, so that a repeated request means the same transfer."""
    transfer = PREFIX + key
    request = RequestTransfer(command_id=key, correlation_id=transfer, **new.model_dump())
    await system.aggregate(Transfer, transfer).ask(request)
    return {"id": transfer}


@app.get("/transfers/{id}")
async def look_at_transfer(transfer: KnownTransfer) -> dict[str, Any]:
    return await transfer.ask(LookAtTransfer())
