"""The bank over HTTP: ``uvicorn bank.service:app``, on several cores with ``--workers``.

``bank.toml`` configures the system. BANK_STORE is the URL of the store; the default is ``lmdb:data`` next to that file.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from bank.accounts import Account, Cents, Deposit, LookAt, OpenAccount, Withdraw
from bank.transfers import PREFIX, LookAtTransfer, RequestTransfer, Transfer
from uno_actors import (
    ActorSystem,
    CommandIdReused,
    CommandRejected,
    InvalidAggregateId,
    OutcomeUnknown,
    SupervisorGaveUp,
    WorldError,
)
from uno_actors.causality import new_id

CONFIG = Path(__file__).parents[1] / "bank.toml"


class NewAccount(BaseModel):
    id: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    owner: str = Field(min_length=1)


class Amount(BaseModel):
    amount: Cents


class NewTransfer(BaseModel):
    source: str
    target: str
    amount: Cents


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with ActorSystem.from_config(CONFIG, cluster=True) as system:  # each worker of uvicorn is a node
        app.state.system = system
        watching = asyncio.create_task(_end_with(system))
        yield
        watching.cancel()


async def _end_with(system: ActorSystem) -> None:
    """End the process when the supervisors give up, so that the service manager restarts it."""
    try:
        await system.wait_stopped()
    except SupervisorGaveUp:
        signal.raise_signal(signal.SIGTERM)


def _system(request: Request) -> ActorSystem:
    system: ActorSystem = request.app.state.system
    return system


def _command_id(idempotency_key: Annotated[str | None, Header()] = None) -> str:
    """A request that is sent again with the same key takes effect once."""
    return idempotency_key or new_id()


System = Annotated[ActorSystem, Depends(_system)]
CommandId = Annotated[str, Depends(_command_id)]

app = FastAPI(title="A bank", lifespan=lifespan)


# --- errors ---


@app.exception_handler(CommandRejected)
async def _rejected(_: Request, error: CommandRejected) -> JSONResponse:
    return JSONResponse({"detail": error.reason}, status_code=409)


@app.exception_handler(InvalidAggregateId)
@app.exception_handler(CommandIdReused)
async def _impossible(_: Request, error: InvalidAggregateId | CommandIdReused) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=422)


@app.exception_handler(WorldError)
async def _not_now(_: Request, error: WorldError) -> JSONResponse:
    """The store failed, or time ran out. The client may send the request again with the same Idempotency-Key."""
    unknown = isinstance(error, OutcomeUnknown)
    return JSONResponse({"detail": str(error), "outcome_unknown": unknown}, status_code=503)


# --- accounts ---


@app.post("/accounts", status_code=201)
async def open_account(new: NewAccount, system: System, command_id: CommandId) -> dict[str, int]:
    return {
        "balance": await system.aggregate(Account, new.id).ask(
            OpenAccount(command_id=command_id, owner=new.owner)
        )
    }


@app.get("/accounts/{id}")
async def look_at_account(id: str, system: System) -> dict[str, Any]:
    try:
        account: dict[str, Any] = await system.aggregate(Account, id).ask(LookAt())
    except CommandRejected as error:
        raise HTTPException(404, error.reason) from None
    return account


@app.post("/accounts/{id}/deposits")
async def deposit(id: str, of: Amount, system: System, command_id: CommandId) -> dict[str, int]:
    return {
        "balance": await system.aggregate(Account, id).ask(Deposit(command_id=command_id, amount=of.amount))
    }


@app.post("/accounts/{id}/withdrawals")
async def withdraw(id: str, of: Amount, system: System, command_id: CommandId) -> dict[str, int]:
    return {
        "balance": await system.aggregate(Account, id).ask(Withdraw(command_id=command_id, amount=of.amount))
    }


@app.get("/accounts/{id}/statement")
async def statement(
    id: str, system: System, limit: Annotated[int, Field(ge=1, le=1000)] = 50
) -> list[dict[str, Any]]:
    """The last deposits and withdrawals, newest first: the stream of the account is its statement."""
    events = await system.store.get_events(id, aggregate_type="Account", limit=limit, backward=True)
    return [
        {
            "number": event.aggregate_version,
            "time": event.timestamp.isoformat(),
            "what": event.event_type,
            **event.model_dump(include={"amount", "balance", "owner", "reason"}),
        }
        for event in events
    ]


# --- transfers ---


@app.post("/transfers", status_code=202)
async def request_transfer(new: NewTransfer, system: System, command_id: CommandId) -> dict[str, str]:
    """Accept a transfer. The client names it, so that a repeated request means the same transfer."""
    transfer = PREFIX + command_id
    command = RequestTransfer(
        command_id=command_id,
        correlation_id=transfer,
        source=new.source,
        target=new.target,
        amount=new.amount,
    )
    await system.aggregate(Transfer, transfer).ask(command)
    return {"id": transfer}


@app.get("/transfers/{id}")
async def look_at_transfer(id: str, system: System) -> dict[str, Any]:
    try:
        transfer: dict[str, Any] = await system.aggregate(Transfer, id).ask(LookAtTransfer())
    except CommandRejected as error:
        raise HTTPException(404, error.reason) from None
    return transfer


# --- health ---


@app.get("/health")
async def health(system: System) -> dict[str, Any]:
    statistics = system.statistics()
    return {
        "active_accounts": statistics.active_aggregates,
        "commands": statistics.commands,
        "handlers": {name: handler.state for name, handler in statistics.handlers.items()},
    }
