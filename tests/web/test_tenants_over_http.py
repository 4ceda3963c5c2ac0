"""A web service of many tenants: each request is served by the system of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.bank import EVENTS, Account, Balance, Credit
from uno_actors import ActorSystem, AggregateRef, CommandRejected, Tenants
from uno_actors.fastapi import (
    EventStream,
    System,
    add_page,
    add_problem_details,
    add_tenants,
    aggregate,
    command,
    events,
    from_header,
    from_path,
    running_tenants,
    tenants_lifespan,
)


def service(directory: Path, tenant_of: Any, prefix: str = "", **options: Any) -> FastAPI:
    def make_system(store: str, tenant: str) -> ActorSystem:
        return ActorSystem(store, tenant=tenant, aggregates=[Account], handlers=[], event_registry=EVENTS)

    template = f"lmdb:{directory}/{{tenant}}"
    app = FastAPI(
        lifespan=tenants_lifespan(lambda: Tenants(template, make_system, names=["acme", "globex"], **options))
    )
    add_problem_details(app)
    add_tenants(app, tenant_of)

    @app.post(prefix + "/accounts/{id}/credits")
    async def credit(
        account: Annotated[AggregateRef, aggregate(Account)], credit: Annotated[Credit, command(Credit)]
    ) -> int:
        return int(await account.ask(credit))

    @app.get(prefix + "/accounts/{id}")
    async def balance(account: Annotated[AggregateRef, aggregate(Account)]) -> int:
        return int(await account.ask(Balance()))

    @app.get(prefix + "/events", response_class=EventStream)
    async def follow(request: Request) -> EventStream:
        return await events(request, after=0, limit=1)

    @app.get(prefix + "/name")
    async def name(system: System) -> str:
        return system.name

    @app.get("/about")
    async def about() -> str:
        return "a bank"

    return app


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://x") as http,
    ):
        yield http


async def test_each_request_is_served_by_the_system_of_the_tenant_in_its_header(tmp_path: Path) -> None:
    async with client(service(tmp_path, from_header("X-Tenant"))) as http:
        for tenant, amount in (("acme", 5), ("globex", 7)):
            answer = await http.post(
                "/accounts/a/credits", json={"amount": amount}, headers={"X-Tenant": tenant}
            )
            assert answer.json() == amount
        assert (await http.get("/accounts/a", headers={"X-Tenant": "acme"})).json() == 5
        assert (await http.get("/name", headers={"X-Tenant": "acme"})).json() == "system/acme"
        stream = await http.get("/events", headers={"X-Tenant": "globex"})
        assert '"amount":7' in stream.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acme", "globex"]  # noqa: ASYNC240 - a test


async def test_each_request_is_served_by_the_system_of_the_tenant_in_its_path(tmp_path: Path) -> None:
    async with client(service(tmp_path, from_path("/t/{tenant}"), "/t/{tenant}")) as http:
        assert (await http.post("/t/acme/accounts/a/credits", json={"amount": 5})).json() == 5
        assert (await http.get("/t/globex/accounts/a")).json() == 0
        assert (await http.get("/about")).json() == "a bank"
        for path in (
            "/t/..%2fglobex/accounts/a",
            "/t/Globex/accounts/a",
            "/t/%00/accounts/a",
            "/t//accounts/a",
        ):
            assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize("tenant", ["initech", "../acme", "ACME", "acme/", "", "acme?x=1", "%61cme"])
async def test_a_tenant_that_there_is_not_is_answered_with_404(tmp_path: Path, tenant: str) -> None:
    async with client(service(tmp_path, from_header())) as http:
        answer = await http.get("/accounts/a", headers={"X-Tenant": tenant})
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "Tenant not found"


async def test_a_request_that_names_no_tenant_has_no_system(tmp_path: Path) -> None:
    async with client(service(tmp_path, from_header())) as http:
        assert (await http.get("/about")).json() == "a bank"
        assert (await http.get("/accounts/a")).status_code == 404


async def test_a_function_of_the_request_says_the_tenant_and_may_refuse(tmp_path: Path) -> None:
    async def of_token(connection: HTTPConnection) -> str:
        await asyncio.sleep(0)
        if connection.headers.get("authorization") != "Bearer acme-token":
            raise CommandRejected("the token is not known")
        return "acme"

    async with client(service(tmp_path, of_token)) as http:
        assert (
            await http.get("/name", headers={"Authorization": "Bearer acme-token"})
        ).json() == "system/acme"
        assert (await http.get("/name")).status_code == 409


async def test_more_tenants_than_there_is_room_for_are_asked_to_come_again(tmp_path: Path) -> None:
    app = service(tmp_path, from_header(), max_open=1)
    async with client(app) as http:
        async with running_tenants(app).use("acme"):
            answer = await http.get("/accounts/a", headers={"X-Tenant": "globex"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (await http.get("/accounts/a", headers={"X-Tenant": "globex"})).json() == 0


async def test_the_live_page_is_that_of_the_tenant_in_the_path(tmp_path: Path) -> None:
    app = service(tmp_path, from_path(), "/{tenant}")
    add_page(app, "/{tenant}/ops", allow=lambda request: True)
    async with client(app) as http:
        await http.post("/acme/accounts/a/credits", json={"amount": 5})
        for tenant, count in (("acme", 1), ("globex", 0)):
            found = await http.get(f"/{tenant}/ops/api/events?limit=10")
            assert (found.status_code, str(found.json()).count("Credited")) == (200, count), found.text
        assert (await http.get("/initech/ops/api/events")).status_code == 404


def test_a_websocket_of_an_unknown_tenant_is_closed(tmp_path: Path) -> None:
    app = service(tmp_path, from_header())

    @app.websocket("/socket")
    async def socket(websocket: Any, system: System) -> None:
        raise AssertionError("not of a tenant")

    with (
        TestClient(app) as http,
        pytest.raises(WebSocketDisconnect) as closed,
        http.websocket_connect("/socket", headers={"X-Tenant": "initech"}),
    ):
        pass
    assert closed.value.code == 1008


def test_a_path_without_a_tenant_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a path with one {tenant}"):
        from_path("/t")
