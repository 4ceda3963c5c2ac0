"""The tenants of an application: each request is served by the system of the tenant that it names."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose
from typing_extensions import override

from uno_actors.errors import InvalidTenant, NoSystem, UnoError, describe
from uno_actors.fastapi.hosting import KEY, Hosted
from uno_actors.fastapi.servers import Server
from uno_actors.logs import get_logger
from uno_actors.problems import MEDIA_TYPE, body_of, headers_of, problem_of
from uno_actors.system.system import ActorSystem
from uno_actors.system.tenants import Tenants

TENANTS = "uno_actors_tenants"
"""Name of the `HostedTenants` in the state of the application."""

TenantOf = Callable[[HTTPConnection], "str | Awaitable[str | None] | None"]
"""Which tenant a request is of; ``None`` if it is of none. It may be ``async``, and may raise an error to refuse."""

POLICY_VIOLATION = 1008
"""Code with which a websocket of an unknown tenant is closed."""


class _HostedTenant(Hosted):
    """The system of one tenant of an application, as `Hosted` is that of an application."""

    def __init__(self, system: ActorSystem, tenants: "HostedTenants") -> None:
        self.system = system
        self.stopping = tenants.stopping
        self._tenants = tenants

    @override
    def call_when_stopping(self, call: Callable[[], object]) -> None:
        self._tenants.call_when_stopping(call)


class _OfNoTenant:
    """In the place of the system of a request that names no tenant."""

    @property
    def system(self) -> ActorSystem:
        """There is none.

        Raises:
            InvalidTenant: Always.
        """
        raise InvalidTenant(None, "the request names none")


class HostedTenants:
    """The tenants of an application while it serves."""

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants
        self.stopping = asyncio.Event()
        self._when_stopping: list[Callable[[], object]] = []
        self._hosted: WeakKeyDictionary[ActorSystem, _HostedTenant] = WeakKeyDictionary()
        self._server = Server(self.stop_streams)

    def of(self, system: ActorSystem) -> _HostedTenant:
        """What stands for the system of a tenant, the same while it runs."""
        found = self._hosted.get(system)
        if found is None:
            found = self._hosted[system] = _HostedTenant(system, self)
        return found

    def call_when_stopping(self, call: Callable[[], object]) -> None:
        """Have ``call`` called when the server begins to stop; it must not raise."""
        self._when_stopping.append(call)

    def stop_streams(self) -> None:
        """The server begins to stop, or the application does: end what would not end by itself."""
        self.stopping.set()
        while self._when_stopping:
            self._when_stopping.pop()()

    def close(self) -> None:
        """Watch the server no longer."""
        self._server.close()


def tenants_lifespan(
    tenants: Tenants | str | os.PathLike[str] | Callable[[], Tenants], **options: Any
) -> Callable[[Starlette], AbstractAsyncContextManager[dict[str, Any]]]:
    """The lifespan of an application that serves many tenants: ``FastAPI(lifespan=tenants_lifespan("bank.toml"))``.

    It starts and stops them with the application. `add_tenants` says which tenant a request is of.

    Args:
        tenants: The path of a configuration file; or a function that makes a `Tenants`, called each time the
            application starts; or a `Tenants` that has not started.
        **options: With a file: as of `Tenants.from_config`.

    Raises:
        TypeError: ``options`` without a file.
    """
    is_file = isinstance(tenants, (str, os.PathLike))
    if options and not is_file:
        raise TypeError(f"options of tenants_lifespan() go with a file: {', '.join(options)}")

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        if isinstance(tenants, (str, os.PathLike)):
            made = Tenants.from_config(tenants, **options)
        else:
            made = tenants if isinstance(tenants, Tenants) else tenants()
        async with made:
            hosted = HostedTenants(made)
            setattr(app.state, TENANTS, hosted)
            try:
                yield {}
            finally:
                hosted.stop_streams()
                hosted.close()

    return running


def running_tenants(app: Starlette) -> Tenants:
    """The tenants of an application that runs, for tests and for what is done outside of requests.

    Raises:
        NoSystem: Its lifespan is not that of `tenants_lifespan`, or has not started.
    """
    hosted: HostedTenants | None = getattr(app.state, TENANTS, None)
    if hosted is None:
        raise NoSystem
    return hosted.tenants


def from_header(name: str = "X-Tenant") -> TenantOf:
    """The tenant that a header names. Have a proxy set it that has authenticated the client, or check it yourself."""
    return lambda connection: connection.headers.get(name)


def from_path(template: str = "/{tenant}") -> TenantOf:
    """The tenant that the beginning of the path names.

    Args:
        template: Such as ``/t/{tenant}``; the path operations begin with the same.

    Raises:
        ValueError: There is no ``{tenant}`` in it.
    """
    if template.count("{tenant}") != 1:
        raise ValueError(f"expected a path with one {{tenant}}, such as /t/{{tenant}}; found {template!r}")
    pattern = re.compile(
        re.escape(template.rstrip("/")).replace(re.escape("{tenant}"), "([^/]*)") + "(?:/|$)"
    )

    def tenant(connection: HTTPConnection) -> str | None:
        found = pattern.match(connection.scope["path"])
        return None if found is None else found[1]

    return tenant


def add_tenants(application: FastAPI, tenant_of: TenantOf) -> None:
    """Serve each request by the system of its tenant, which does not stop before the answer is complete.

    `System` and all that depends on it then are those of the tenant. A request of a tenant that does not exist is
    answered with 404. Where ``tenant_of`` returns ``None``, the request continues without a system.

    Args:
        application: An application whose lifespan is that of `tenants_lifespan`.
        tenant_of: `from_header`, `from_path`, or a function of the request: of its session or its verified token.
    """
    application.add_middleware(_OfTenants, tenant_of=tenant_of)


class _OfTenants:
    """The ASGI middleware of `add_tenants`."""

    def __init__(self, app: ASGIApp, tenant_of: TenantOf) -> None:
        self._app = app
        self._tenant_of = tenant_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        hosted: HostedTenants | None = getattr(scope["app"].state, TENANTS, None)
        if hosted is None:
            raise NoSystem
        state = scope["state"] = dict(scope.get("state") or {})
        async with AsyncExitStack() as stack:
            try:
                tenant = self._tenant_of(HTTPConnection(scope))
                if isawaitable(tenant):
                    tenant = await tenant
                if tenant is None:
                    state[KEY] = _OfNoTenant()
                else:
                    state[KEY] = hosted.of(await stack.enter_async_context(hosted.tenants.use(tenant)))
            except UnoError as error:
                await self._refuse(error, scope, receive, send)
                return
            await self._app(scope, receive, send)

    async def _refuse(self, error: UnoError, scope: Scope, receive: Receive, send: Send) -> None:
        problem = problem_of(error)
        if problem is None:
            raise error
        get_logger(actor="fastapi").info("request of no tenant", path=scope["path"], error=describe(error))
        if scope["type"] == "websocket":
            await WebSocketClose(POLICY_VIOLATION)(scope, receive, send)
            return
        answer = JSONResponse(body_of(error, problem), problem.status, headers_of(problem), MEDIA_TYPE)
        await answer(scope, receive, send)
