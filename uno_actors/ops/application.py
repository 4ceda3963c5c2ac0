"""The live page and its API as an ASGI application on starlette."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from uno_actors.errors import CallerError, MissingExtra
from uno_actors.flight_recorder.files import SUFFIX
from uno_actors.logs import get_logger
from uno_actors.ops.access import SESSION_SECONDS, TOKEN, Keys, bearer, foreign
from uno_actors.ops.api.endpoint import Answered, Endpoint, Observed, Refused
from uno_actors.ops.api.openapi import description
from uno_actors.ops.api.table import ENDPOINTS
from uno_actors.ops.endpoints import operating_routes
from uno_actors.ops.problems import problem, problem_of
from uno_actors.ops.sampling import Sampler
from uno_actors.ops.shutdown import is_ending
from uno_actors.ops.sources import Source, SystemSource
from uno_actors.ops.static import HEADERS, page_files
from uno_actors.printable import as_json
from uno_actors.system.system import ActorSystem

try:
    from starlette.applications import Starlette
    from starlette.datastructures import MutableHeaders
    from starlette.requests import Request
    from starlette.responses import RedirectResponse, Response, StreamingResponse
    from starlette.routing import Route
    from starlette.types import Message, Receive, Scope, Send
except ImportError as missing:
    raise MissingExtra("the live page", "page", missing) from missing

T = TypeVar("T")

LARGEST_BODY = 2 << 20
"""Bytes of a request."""
MOST_STREAMS = 64
"""Streams of server-sent events at once."""
HEARTBEAT = 15.0
"""Seconds after which a stream without news sends a comment, so that a proxy keeps it open."""
PAUSE_AFTER_WRONG = 0.5
"""Seconds until the answer to a wrong token."""

Allow = Callable[[Request], bool | Awaitable[bool]]
"""Whether a request of a program's own users may use the page; see `app`."""


class NotAllowed(CallerError):
    """The page is given both a token and a check of the program's own."""

    def __init__(self) -> None:
        super().__init__("give the live page token=... or allow=..., not both")


def app(system: ActorSystem, *, token: str | None = None, allow: Allow | None = None) -> "Page":
    """The live page of a system of this process, to be mounted in an ASGI application or served by itself.

        application.mount("/ops", ops.app(system, token=os.environ["PAGE_TOKEN"]))

    The page can change the work of the system, and shows all that is recorded. So each request needs the token, a
    session of a browser that has logged in by it, or the consent of ``allow``.

    Args:
        system: The system; it may start later.
        token: The token, at least 16 characters. Default is the variable ``UNO_ACTORS_PAGE_TOKEN``. Without either, a
            new token is made; if standard error is a terminal, a link to log in is written there when a browser comes.
        allow: A check of the program's own, in place of a token: a function of Starlette's ``Request``, which may be
            ``async``. It sees requests after the program's own middleware.

    Raises:
        MissingExtra: Starlette is not installed.
        InvalidToken: The token is too short.
        NotAllowed: Both are given.
    """
    if allow is not None:
        if token is not None:
            raise NotAllowed
        return Page(SystemSource(system), allow=allow)
    given = token or os.environ.get(TOKEN)
    return Page(SystemSource(system), Keys(given), offers_link=not given)


@dataclass(slots=True)
class _Offer:
    """The link to log in that is written for a person at a terminal, once."""

    is_open: bool

    def make(self, keys: Keys, request: Request) -> None:
        """Write the link."""
        if self.is_open and sys.stderr is not None and sys.stderr.isatty():
            self.is_open = False
            host, port = request.scope.get("server") or (
                "127.0.0.1",
                None,
            )  # not what the request says of itself
            address = f"[{host}]" if ":" in host else host
            address += f":{port}" if port else ""
            place = f"{request.url.scheme}://{address}{_root(request)}/login"
            print(f"The live page of this process: {place}#{keys.new_code()}", file=sys.stderr)  # noqa: T201


class Page:
    """The ASGI application.

    Args:
        source: What is shown.
        keys: The token and what is derived from it; ``None`` if ``allow`` decides, or if the socket is owner-only.
        allow: See `app`.
        offers_link: Whether a link to log in is written to a terminal when a browser comes.
        links: The keys of another address of the same page, for which this one makes one-time links.

    Attributes:
        observed: What is shown.
        closing: Set when open streams are to end.
    """

    def __init__(
        self,
        source: Source,
        keys: Keys | None = None,
        *,
        allow: Allow | None = None,
        offers_link: bool = False,
        links: Callable[[], str | None] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self.observed = Observed(source, sampler or Sampler(source))
        self.keys = keys
        self.closing = False
        self._allow = allow
        self._links = links
        self._offer = _Offer(offers_link)
        self._streams = 0
        self._log = get_logger(actor="live page")
        routes = [
            Route("/", self._index),
            Route("/login", self._login_page),
            Route("/static/{name}", self._static),
            Route("/api/openapi.json", self._description),
            Route("/api/login", self._login, methods=["POST"]),
            Route("/api/logout", self._logout, methods=["POST"]),
            Route("/api/login-link", self._login_link, methods=["POST"]),
            Route("/api/recording", self._recording),
        ]
        for endpoint in ENDPOINTS:
            routes.append(Route(endpoint.path, partial(self._answer, endpoint), methods=[endpoint.method]))
            if endpoint.every is not None:
                routes.append(Route(f"{endpoint.path}/events", partial(self._stream, endpoint)))
        if isinstance(source, SystemSource):
            routes += operating_routes(source.system)
        self._routes = Starlette(routes=routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        request = Request(scope, receive)
        sent = _with_headers(send)
        refused = await self._refused(request)
        if refused is not None:
            await refused(scope, receive, sent)
            return
        await self._routes(scope, receive, sent)

    def close(self) -> None:
        """End open streams, and take no more samples."""
        self.closing = True
        self.observed.sampler.close()

    # --- who may ask ---

    async def _refused(self, request: Request) -> Response | None:
        """The answer to a request that may not be answered; ``None`` for one that may."""
        path = _path(request)
        changes = request.method not in ("GET", "HEAD")
        if changes and (why := foreign(request.headers)) is not None:
            return _json(problem(403, f"{why}: another site may not use the page"), 403)
        if path in OPEN or path.startswith("/static/"):
            return None
        if await self._is_allowed(request):
            return None
        if path == "/":
            if self.keys is not None:
                self._offer.make(self.keys, request)
            return RedirectResponse("login", 303)
        detail = "log in first, or send the token in the header Authorization: Bearer ..."
        return _json(problem(401, detail), 401, {"www-authenticate": "Bearer"})

    async def _is_allowed(self, request: Request) -> bool:
        if self._allow is not None:
            allowed = self._allow(request)
            return bool(await allowed if isinstance(allowed, Awaitable) else allowed)
        keys = self.keys
        if keys is None:
            return True
        token = bearer(request.headers)
        if token is not None:
            return keys.is_token(token)
        return keys.is_session(request.cookies.get(keys.cookie, ""))

    async def _login(self, request: Request) -> Response:
        keys = self.keys
        if keys is None:
            return _json({"count": 0})
        try:
            given = await _body(request)
        except Refused as error:
            return _json(problem_of(error), error.status)
        token, code = given.get("token"), given.get("code")
        if not (isinstance(token, str) and keys.is_token(token)) and not (
            isinstance(code, str) and keys.takes_code(code)
        ):
            client = request.client.host if request.client else "?"
            self._log.warning("login to the live page refused", client=client)
            await asyncio.sleep(PAUSE_AFTER_WRONG)
            what = "the token is wrong" if token is not None else "the link was used before, or is too old"
            return _json(problem(401, what), 401)
        answer = _json({"count": 1})
        answer.set_cookie(
            keys.cookie,
            keys.new_session(),
            max_age=SESSION_SECONDS,
            path=f"{_root(request)}/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _logout(self, request: Request) -> Response:
        answer = _json({"count": 1})
        if self.keys is not None:
            answer.delete_cookie(
                self.keys.cookie, path=f"{_root(request)}/", httponly=True, samesite="strict"
            )
        return answer

    async def _login_link(self, _: Request) -> Response:
        link = None if self._links is None else self._links()
        if link is None:
            return _json(problem(404, "there is no other address of this page"), 404)
        return _json({"link": link})

    # --- the page ---

    async def _index(self, _: Request) -> Response:
        return _file("index.html")

    async def _login_page(self, request: Request) -> Response:
        if self.keys is None or await self._is_allowed(request):
            return RedirectResponse("./", 303)
        return _file("login.html")

    async def _static(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        if name.endswith(".html"):  # these have addresses of their own
            return _json(problem(404, "there is no such file"), 404)
        return _file(name, request.headers.get("if-none-match"))

    # --- the API ---

    async def _description(self, _: Request) -> Response:
        return _json(description())

    async def _recording(self, _: Request) -> Response:
        """The latest steps of all processes, as a file for ``uno-actors recording``."""
        try:
            lines = await self.observed.source.recordings()
        except Exception as error:  # noqa: BLE001 - as below
            found = problem_of(error)
            return _json(found, found["status"])
        if not lines:
            return _json(problem(404, "no process of this machine and user runs a system on the store"), 404)
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"content-disposition": f'attachment; filename="{moment}{SUFFIX}"'}
        return Response("\n".join(lines) + "\n", headers=headers, media_type="application/x-ndjson")

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        try:
            if endpoint.method == "GET":
                given: Mapping[str, Any] = dict(request.query_params)
            else:
                given = await _body(request)
            answered = await self._ask(endpoint, given)
        except Exception as error:  # noqa: BLE001 - the page of a system must not fail because of one request
            return self._problem(error, endpoint)
        if endpoint.method == "POST":
            self._log.info("requested on the live page", what=endpoint.path, given=as_json(given)[:500])
        return _json(answered.model_dump())

    async def _ask(self, endpoint: Endpoint, given: Mapping[str, Any]) -> Answered:
        asked = endpoint.asked.model_validate(given)
        return await self._on_its_loop(endpoint.call(self.observed, asked))

    async def _on_its_loop(self, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        assert isinstance(work, Coroutine)
        return await self.observed.source.run(work)

    def _problem(self, error: Exception, endpoint: Endpoint) -> Response:
        found = problem_of(error)
        if found["status"] == 500:
            self._log.error("the live page cannot answer", what=endpoint.path, exc_info=error)
        return _json(found, found["status"])

    async def _stream(self, endpoint: Endpoint, request: Request) -> Response:
        if self._streams >= MOST_STREAMS:
            return _json(problem(503, f"{MOST_STREAMS} streams are open: close other windows"), 503)
        try:
            first = await self._ask(endpoint, dict(request.query_params))
        except Exception as error:  # noqa: BLE001 - as above
            return self._problem(error, endpoint)
        events = self._events(endpoint, dict(request.query_params), as_json(first.model_dump()))
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _events(self, endpoint: Endpoint, given: Mapping[str, str], first: str) -> AsyncIterator[str]:
        """Server-sent events: the answer now, and whenever it has changed."""
        self._streams += 1
        try:
            text, sent = first, time.monotonic()
            yield f"data: {text}\n\n"
            while True:
                if await self._ends_within(endpoint.every or 1.0):
                    yield "event: end\ndata: {}\n\n"
                    return
                try:
                    now = as_json((await self._ask(endpoint, given)).model_dump())
                except Exception as error:  # noqa: BLE001 - as above
                    yield f"event: problem\ndata: {as_json(problem_of(error))}\n\n"
                    continue
                if now != text:
                    text, sent = now, time.monotonic()
                    yield f"data: {text}\n\n"
                elif time.monotonic() - sent > HEARTBEAT:
                    sent = time.monotonic()
                    yield ": nothing new\n\n"
        finally:
            self._streams -= 1

    async def _ends_within(self, seconds: float) -> bool:
        """Wait so long; return whether streams must end, because the server or the system does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.closing or is_ending():
                return True
            await asyncio.sleep(min(left, LOOK))
        source = self.observed.source
        return isinstance(source, SystemSource) and source.has_stopped


LOOK = 0.2
"""Seconds between two looks at whether the server ends."""

OPEN = ("/login", "/api/login", "/api/logout", "/livez", "/readyz")
"""Paths that need no login; the files of the page have no secrets either."""


def _path(request: Request) -> str:
    """The path below this application."""
    path: str = request.scope["path"]
    root = request.scope.get("root_path", "")
    return path.removeprefix(root) if path.startswith(root) else path


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root


def _with_headers(send: Send) -> Send:
    """``send`` with the headers that every answer has."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object in a request.

    Raises:
        Refused: It is too large, or something else.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise Refused(413, f"a request has at most {LARGEST_BODY:,} bytes")
        parts.append(part)
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise Refused(415, "send JSON, with the content type application/json")
    try:
        found = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:  # of its encoding, too
        raise Refused(422, f"the request is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(422, "the request must be a JSON object")
    return found


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``value`` as valid JSON in ASCII."""
    kind = "application/json" if status < 400 else "application/problem+json"
    return Response(as_json(value), status, headers, kind)


def _file(name: str, known: str | None = None) -> Response:
    """A file of the page; it is kept by browsers, which ask whether it has changed."""
    found = page_files().get(name)
    if found is None:
        return _json(problem(404, "there is no such file"), 404)
    headers = {"etag": found.tag, "cache-control": "no-cache"}
    if known == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.kind)
