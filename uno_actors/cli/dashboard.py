"""``uno-actors dashboard``: the live page of a store, whether a system works on it or not."""

import asyncio
import http.client
import json
import os
import signal
import socket
from pathlib import Path
from typing import Annotated, Any

import typer
from typing_extensions import override

from uno_actors.cli.opening import Tenant, has_effect, of_tenant
from uno_actors.cli.service import on_signal
from uno_actors.cli.terminal import say
from uno_actors.clock import SystemClock
from uno_actors.cluster.settings import Cluster
from uno_actors.config.reader import Config, control_key, load, load_system
from uno_actors.errors import CallerError
from uno_actors.handlers.subscription import Subscription
from uno_actors.ops.access import TOKEN
from uno_actors.ops.serving import PREFIX, SUFFIX, Address, Served, check_page
from uno_actors.ops.sources import StoreSource
from uno_actors.store.opening import open_store
from uno_actors.store_urls import without_password
from uno_actors.system.control_socket import control_directories, key_of
from uno_actors.system.tree import assign, handlers_in

PATIENCE = 5.0
"""Seconds that a running system may take to make a link."""

Place = Annotated[
    str, typer.Argument(metavar="FILE|URL", help="A configuration file, or the URL of a store.")
]


class NoPage(CallerError):
    """No process of a place serves the live page at a port."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"no process that works on {place} serves the live page at a port: start it by `uno-actors run FILE --page"
            " 127.0.0.1:8700`, or leave --link out"
        )


def dashboard(
    context: typer.Context,
    place: Place,
    page: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Where to serve it; default is 127.0.0.1:8700 or a free port."
        ),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Print a new link to the page of the running system, and exit.")
    ] = False,
    tenant: Tenant = None,
) -> None:
    """Serve the live page of a store until Ctrl-C, and print a link that logs a browser in once.

    The store may be in use, or not. With a configuration file the page also shows the state of aggregates at each
    version, for which it imports the program's modules. UNO_ACTORS_PAGE_TOKEN is the token for programs and further
    browsers.
    """
    has_effect(context, not link, "with --link", "page")
    is_url = ":" in place and not Path(place).exists()
    if link:
        url = of_tenant(place if is_url else load_system(place).url, tenant)
        key = key_of(url) if is_url else control_key(place, tenant)
        say(_link_of(url, key, place))
        return
    check_page()
    if is_url:
        url = of_tenant(place, tenant)
        asyncio.run(_serve(url, key_of(url), page))
    else:
        config = load(place)
        url = of_tenant(config.system.url, tenant)
        asyncio.run(_serve(url, control_key(config.file, tenant), page, config))


async def _serve(url: str, key: str, page: str | None, config: Config | None = None) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        on_signal(asyncio.get_running_loop(), number, over.set)
    async with open_store(url, create=False) as store:
        subscriptions = None
        if config is not None:
            specs = [
                spec for each in assign(config.handlers, config.supervisors) for spec in handlers_in(each)
            ]
            subscriptions = [Subscription(spec, 0, store.event_registry, SystemClock()) for spec in specs]
        cluster = Cluster() if config is None else config.cluster
        source = StoreSource(store, url, key, subscriptions=subscriptions, cluster=cluster)
        async with Served(source, os.environ.get(TOKEN)) as served:
            await served.at_any_port(None if page is None else Address.of(page))
            say(f"The live page of {without_password(url)}: {served.link()}")
            say("The link works once, within ten minutes. Ctrl-C ends the page.")
            await over.wait()


def _link_of(url: str, key: str, place: str) -> str:
    """A link from a running process.

    Raises:
        NoPage: None serves the page at a port.
    """
    for directory in control_directories(url, key):
        for path in sorted(directory.glob(f"{PREFIX}*{SUFFIX}")):
            try:
                answer = _posted(path, "/api/login-link")
            except (OSError, ValueError, http.client.HTTPException):  # it has just ended
                continue
            if isinstance(answer.get("link"), str):
                return str(answer["link"])
    raise NoPage(without_password(place))


def _posted(path: Path, what: str) -> dict[str, Any]:
    connection = _UnixConnection(path)
    try:
        headers = {"Content-Type": "application/json", "X-Uno-Actors": "cli"}
        connection.request("POST", what, "{}", headers)
        found: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return found


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
