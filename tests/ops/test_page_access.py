"""Who may use the live page, and what an attacker finds."""

import asyncio
import hmac
import json
import logging
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from tests.bank import EVENTS, Account
from tests.ops.client import SAME_SITE, client_of
from uno_actors import ActorSystem
from uno_actors.ops import access, app
from uno_actors.ops.access import CODE_SECONDS, MOST_CODES, SESSION_SECONDS, InvalidToken, Keys, foreign
from uno_actors.ops.api.table import ENDPOINTS
from uno_actors.ops.application import LARGEST_BODY, NotAllowed, Page
from uno_actors.ops.sources import SystemSource
from uno_actors.ops.static import HEADERS, POLICY, page_files

TOKEN = "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {TOKEN}"}
READS = [endpoint.path for endpoint in ENDPOINTS if endpoint.method == "GET"]
STREAMS = [f"{endpoint.path}/events" for endpoint in ENDPOINTS if endpoint.every is not None]
CHANGES = [endpoint.path for endpoint in ENDPOINTS if endpoint.method == "POST"]


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    async with ActorSystem(aggregates=[Account], handlers=[], event_registry=EVENTS) as running:
        yield running


@pytest.fixture
async def client(system: ActorSystem) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app(system, token=TOKEN)) as client:
        yield client


# --- the token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer "])
@pytest.mark.parametrize("path", [*READS, *STREAMS, "/api/openapi.json", "/api/recording"])
async def test_nothing_can_be_read_without_the_token(
    client: httpx.AsyncClient, path: str, given: str | None
) -> None:
    answer = await client.get(path, headers={} if given is None else {"Authorization": given})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["detail"].startswith("log in first")


@pytest.mark.parametrize("path", [*CHANGES, "/api/login-link"])
async def test_nothing_can_be_changed_without_the_token(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={}, headers=SAME_SITE)
    assert answer.status_code == 401


async def test_a_program_sends_the_token_in_a_header(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/about", headers=BEARER)
    assert answer.json()["name"] == "system"


async def test_a_token_in_a_url_is_not_taken(client: httpx.AsyncClient) -> None:
    for name in ("token", "access_token", "code"):
        assert (await client.get("/api/about", params={name: TOKEN})).status_code == 401


async def test_a_browser_without_a_session_is_sent_to_the_login(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "login")
    page = await client.get("/login")
    assert "This page can change the work of the system" in page.text


async def test_a_browser_gets_a_session_for_the_token(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/login", json={"token": TOKEN}, headers=SAME_SITE)
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 200
    assert TOKEN not in cookie
    for rule in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_SECONDS}"):
        assert rule in cookie
    assert (await client.get("/")).status_code == 200
    assert (await client.get("/api/about")).status_code == 200
    assert (await client.get("/login")).headers["location"] == "./"


async def test_the_cookie_is_for_https_alone_where_the_page_is(system: ActorSystem) -> None:
    transport = httpx.ASGITransport(app(system, token=TOKEN))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://page.test") as client:
        answer = await client.post("/api/login", json={"token": TOKEN}, headers=SAME_SITE)
    assert "Secure" in answer.headers["set-cookie"]


async def test_the_cookie_goes_to_the_page_alone_where_it_is_mounted(system: ActorSystem) -> None:
    transport = httpx.ASGITransport(app(system, token=TOKEN), root_path="/ops")  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="https://page.test") as client:
        answer = await client.post("/ops/api/login", json={"token": TOKEN}, headers=SAME_SITE)
        assert "Path=/ops/" in answer.headers["set-cookie"]
        assert (await client.get("/ops/api/about")).status_code == 200


@pytest.mark.parametrize(
    "given", [{}, {"token": "wrong"}, {"token": None}, {"code": TOKEN}, {"token": [TOKEN]}, {"code": 1}]
)
async def test_a_wrong_login_gets_no_session(
    client: httpx.AsyncClient, given: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uno_actors.ops.application.PAUSE_AFTER_WRONG", 0)
    answer = await client.post("/api/login", json=given, headers=SAME_SITE)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_who_logs_out_has_no_session(client: httpx.AsyncClient) -> None:
    await client.post("/api/login", json={"token": TOKEN}, headers=SAME_SITE)
    await client.post("/api/logout", json={}, headers=SAME_SITE)
    assert (await client.get("/api/about")).status_code == 401


async def test_neither_token_nor_code_is_logged(
    system: ActorSystem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keys = Keys(TOKEN)
    page = Page(SystemSource(system), keys)
    code = keys.new_code()
    async with client_of(page) as client:
        await client.post("/api/login", json={"token": f"{TOKEN}?"}, headers=SAME_SITE)
        await client.post("/api/login", json={"code": code}, headers=SAME_SITE)
        await client.post("/api/handlers/pause", json={"name": "mail"}, headers=SAME_SITE)
        session = client.cookies[keys.cookie]
    text = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "login to the live page refused" in text
    for secret in (TOKEN, code, session):
        assert secret not in text


# --- what it is made of --------------------------------------------------------------------------------------


def test_a_token_that_could_be_guessed_is_refused(system: ActorSystem) -> None:
    with pytest.raises(InvalidToken, match="16 characters or more; found 5"):
        app(system, token=TOKEN[:5])


def test_a_token_and_a_check_of_the_program_exclude_each_other(system: ActorSystem) -> None:
    with pytest.raises(NotAllowed):
        app(system, token=TOKEN, allow=lambda _: True)


def test_the_token_comes_from_the_environment_unless_it_is_given(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(access.TOKEN, "a token of the environment")
    page, given = app(system), app(system, token=TOKEN)
    assert page.keys is not None
    assert given.keys is not None
    assert page.keys.is_token("a token of the environment")
    assert given.keys.is_token(TOKEN)


def test_without_a_token_each_page_makes_its_own(
    system: ActorSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(access.TOKEN, raising=False)
    pages = app(system), app(system)
    session = pages[0].keys.new_session()  # type: ignore[union-attr]
    assert pages[0].keys.is_session(session)  # type: ignore[union-attr]
    assert not pages[1].keys.is_session(session)  # type: ignore[union-attr]


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[object, object]] = []
    real = hmac.compare_digest

    def compare(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = Keys(TOKEN)
    assert keys.is_token(TOKEN)
    assert not keys.is_token("wrong")
    assert keys.is_session(keys.new_session())
    assert len(compared) == 3
    assert all(len(a) == len(b) for a, b in compared)  # type: ignore[arg-type]


def test_a_session_is_one_for_all_processes_with_the_token() -> None:
    assert Keys(TOKEN).is_session(Keys(TOKEN).new_session())


@pytest.mark.parametrize(
    "change",
    [
        lambda value: "",
        lambda value: value[:-1] + ("0" if value[-1] != "0" else "1"),
        lambda value: f"9{value}",
        lambda value: value.rpartition(".")[0],
        lambda value: "99999999999.x." + value.rpartition(".")[2],
        lambda value: "ü.ü.ü",
    ],
)
def test_a_session_that_was_changed_is_none(change: Any) -> None:
    keys = Keys(TOKEN)
    assert not keys.is_session(change(keys.new_session()))


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(TOKEN)
    session = keys.new_session()
    begun = time.time()
    monkeypatch.setattr(time, "time", lambda: begun + SESSION_SECONDS - 60)
    assert keys.is_session(session)
    monkeypatch.setattr(time, "time", lambda: begun + SESSION_SECONDS + 1)
    assert not keys.is_session(session)


def test_a_link_logs_in_once() -> None:
    keys = Keys(TOKEN)
    code, other = keys.new_code(), keys.new_code()
    assert [keys.takes_code(code), keys.takes_code(code), keys.takes_code(other)] == [True, False, True]


def test_a_link_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(TOKEN)
    code, now = keys.new_code(), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + CODE_SECONDS + 1)
    assert not keys.takes_code(code)


def test_links_do_not_pile_up() -> None:
    keys = Keys(TOKEN)
    first, *others = [keys.new_code() for _ in range(MOST_CODES + 1)]
    assert not keys.takes_code(first)
    assert all(map(keys.takes_code, others))


def test_pages_of_one_host_have_different_cookies() -> None:
    assert Keys().cookie != Keys().cookie


@pytest.mark.parametrize("is_terminal", [False, True])
async def test_a_person_at_a_terminal_gets_one_link(
    system: ActorSystem,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_terminal: bool,
) -> None:
    monkeypatch.delenv(access.TOKEN, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    async with client_of(app(system)) as client:
        for _ in range(3):
            await client.get("/", headers={"Host": "evil.test"})
        written = capsys.readouterr().err
        assert written.count("/login#") == is_terminal
        assert "evil" not in written
        if is_terminal:
            code = written.strip().partition("#")[2]
            assert (
                await client.post("/api/login", json={"code": code}, headers=SAME_SITE)
            ).status_code == 200


# --- a check of the program's own ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_program_decides_by_its_own_login(system: ActorSystem, *, is_async: bool) -> None:
    async def allow_later(request: Any) -> bool:
        await asyncio.sleep(0)
        return bool(request.headers.get("x-user") == "admin")

    page = app(
        system, allow=allow_later if is_async else lambda request: request.headers.get("x-user") == "admin"
    )
    async with client_of(page) as client:
        assert (await client.get("/api/about")).status_code == 401
        assert (await client.get("/api/about", headers=BEARER)).status_code == 401
        assert (await client.get("/api/about", headers={"X-User": "admin"})).status_code == 200
        assert (await client.get("/", headers={"X-User": "admin"})).status_code == 200


# --- other sites ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"host": "a"}, "a request that changes something needs the header X-Uno-Actors"),
        ({"host": "a", "x-uno-actors": "1"}, None),  # a program
        ({"host": "a:1", "x-uno-actors": "1", "origin": "http://a:1"}, None),
        ({"host": "a:1", "x-uno-actors": "1", "origin": "https://a:1"}, None),  # behind a proxy with TLS
        ({"host": "b", "x-forwarded-host": "a", "x-uno-actors": "1", "origin": "https://a"}, None),
        ({"host": "a:1", "x-uno-actors": "1", "origin": "http://a:2"}, "the request comes from http://a:2"),
        ({"host": "a", "x-uno-actors": "1", "origin": "http://a.evil"}, "the request comes from http://a.evil"),
        ({"host": "a", "x-uno-actors": "1", "origin": "http://evil/a"}, "the request comes from http://evil/a"),
        ({"host": "a", "x-uno-actors": "1", "origin": "http://a@evil"}, "the request comes from http://a@evil"),
        ({"host": "a", "x-uno-actors": "1", "origin": "null"}, "the request comes from null"),
        ({"host": "a", "x-uno-actors": "1", "origin": "http://[a"}, "the request comes from http://[a"),
        ({"host": "", "x-uno-actors": "1", "origin": "null"}, "the request comes from null"),
        ({"host": "a", "x-uno-actors": "1", "sec-fetch-site": "same-origin"}, None),
        *(
            (
                {"host": "a", "x-uno-actors": "1", "sec-fetch-site": site},
                f"the request comes from another site ({site})",
            )
            for site in ("cross-site", "same-site")
        ),
    ],
)  # fmt: skip
def test_only_the_page_itself_and_programs_may_change_something(
    headers: Mapping[str, str], why: str | None
) -> None:
    assert foreign(headers) == why


@pytest.mark.parametrize("path", [*CHANGES, "/api/login", "/api/logout", "/api/login-link"])
async def test_a_post_of_another_site_is_refused_even_with_a_session(
    client: httpx.AsyncClient, path: str
) -> None:
    await client.post("/api/login", json={"token": TOKEN}, headers=SAME_SITE)
    for headers in ({"Origin": "http://evil.test"}, {**SAME_SITE, "Origin": "http://evil.test"}):
        answer = await client.post(path, json={}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_a_form_of_another_site_cannot_send_what_is_taken(client: httpx.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        headers = {**SAME_SITE, **BEARER, "Content-Type": kind}
        answer = await client.post("/api/handlers/pause", content=b'{"name": "mail"}', headers=headers)
        assert answer.status_code == 415


async def test_no_other_origin_may_read_an_answer(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/about", headers={**BEARER, "Origin": "http://evil.test"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}
    asked = await client.options("/api/handlers/pause", headers=preflight)
    assert asked.status_code == 403


# --- requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"", 422, "the request is not JSON"),
        (b"\xff", 422, "the request is not JSON"),
        (b"[]", 422, "the request must be a JSON object"),
        (b"{}", 422, "name: Field required"),
        (b'{"name": 1}', 422, "name: Input should be a valid string"),
        (b'{"name": "a", "other": 1}', 422, "other: Extra inputs are not permitted"),
        (b'{"name": "' + b"x" * LARGEST_BODY + b'"}', 413, "a request has at most 2,097,152 bytes"),
        (b"[" * 100_000, 422, "the request is not JSON"),
    ],
    ids=["empty", "not UTF-8", "a list", "no name", "a number", "more", "too large", "too deep"],
)  # fmt: skip
async def test_a_request_that_is_wrong_is_refused(
    client: httpx.AsyncClient, content: bytes, status: int, detail: str
) -> None:
    headers = {**SAME_SITE, **BEARER, "Content-Type": "application/json"}
    answer = await client.post("/api/handlers/pause", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["detail"].startswith(detail)
    assert problem["status"] == status


@pytest.mark.parametrize(
    "path",
    [
        "/static/../application.py",
        "/static/%2e%2e/application.py",
        "/static/..%2fapplication.py",
        "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/static//etc/passwd",
        "/static/%00page.css",
        "/static/page.css%00",
        "/static/",
        "/static/index.html",
        "/static",
        "/etc/passwd",
        "/login/../api/about",
        "//api/about",
        "/api/about/",
        "/login%2f..%2fapi%2fabout",
    ],
)
async def test_no_path_leads_out_of_the_page_or_around_the_login(
    client: httpx.AsyncClient, path: str
) -> None:
    # httpx would tidy the path: it goes to the application as a client of another kind would send it.
    url = httpx.URL("http://page.test").copy_with(raw_path=path.encode())
    answer = await client.get(url)
    assert answer.status_code in (401, 404, 307)
    assert "root:" not in answer.text
    assert "import" not in answer.text


# --- what a browser is told ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/login", "/api/about", "/nothing", "/static/page.css", "/static/no.css", "/livez"]
)
@pytest.mark.parametrize("is_logged_in", [False, True])
async def test_every_answer_has_the_policy(
    client: httpx.AsyncClient, path: str, *, is_logged_in: bool
) -> None:
    answer = await client.get(path, headers=BEARER if is_logged_in else {})
    for name in HEADERS.keys() - {"cache-control"}:
        assert answer.headers[name] == HEADERS[name], name
    assert answer.headers["cache-control"] in ("no-store", "no-cache")


def test_the_policy_allows_no_code_and_no_style_inside_of_a_document() -> None:
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'; script-src 'self'; style-src 'self'")


class _Inline(HTMLParser):
    """Finds what the policy would refuse, or what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.found += [f"<{tag} {name}>" for name, _ in attrs if name.startswith("on") or name == "style"]
        self.found += [
            f"<{tag} {name}={value}>"
            for name, value in attrs
            if name in ("src", "href") and value and not value.startswith(("static/", "#"))
        ]

    def handle_data(self, data: str) -> None:
        if self._tag in ("script", "style") and data.strip():
            self.found.append(f"<{self._tag}>{data}")


@pytest.mark.parametrize("name", ["index.html", "login.html"])
def test_the_documents_have_nothing_that_the_policy_refuses(name: str) -> None:
    parser = _Inline()
    parser.feed(page_files()[name].content.decode())
    assert parser.found == []


@pytest.mark.parametrize("name", sorted(page_files()))
def test_the_page_loads_nothing_from_elsewhere_and_makes_no_markup_of_texts(name: str) -> None:
    text = page_files()[name].content.decode().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )


def test_all_files_of_the_page_are_served_under_their_names() -> None:
    referenced = set()
    for name, file in page_files().items():
        text = file.content.decode()
        if name.endswith(".html"):
            referenced |= set(re.findall(r'"static/([^"]+)"', text))
        elif name.endswith(".js"):
            referenced |= set(re.findall(r'from "\./([^"]+)"', text))
    assert referenced == page_files().keys() - {"index.html", "login.html"}


async def test_a_file_that_a_browser_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/static/page.css")
    again = await client.get("/static/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_probes_need_no_login(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json() == {"live": True, "reasons": []}
    assert (await client.get("/readyz")).status_code == 200


async def test_an_unknown_path_is_answered_without_details(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/nothing", headers=BEARER)
    assert answer.status_code == 404
    assert json.dumps(answer.text)
