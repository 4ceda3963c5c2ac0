"""A FastAPI application over an actor system, in one process with its client."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.websockets import WebSocketDisconnect

from tests.web.theatre import (
    RAISED,
    Counter,
    CountSeats,
    Raise,
    SeatsAreGone,
    SellSeats,
    Theatre,
    failing_system,
)
from uno_actors import (
    ActorSystem,
    AggregateRef,
    AskTimeout,
    CommandRejected,
    InvalidAggregate,
    NoSystem,
    OutcomeUnknown,
    StoreFull,
    SupervisorGaveUp,
    SystemNotRunning,
    UnknownCommand,
)
from uno_actors.fastapi import (
    IdempotencyKey,
    System,
    add_page,
    add_probes,
    add_problem_details,
    aggregate,
    command,
    lifespan,
    running_system,
)
from uno_actors.ops import MaxLag

ATheatre = Annotated[AggregateRef, aggregate(Theatre)]
KnownTheatre = Annotated[AggregateRef, aggregate(Theatre, must_exist=True)]


def new_system(**options: Any) -> ActorSystem:
    return ActorSystem("memory:", aggregates=[Theatre], handlers=[], **options)


def new_app(**options: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan(new_system), **options)
    add_problem_details(app)
    add_routes(app)
    return app


def add_routes(app: FastAPI | APIRouter) -> None:
    @app.post("/theatres/{id}/sales")
    async def sell(theatre: ATheatre, sale: Annotated[SellSeats, command(SellSeats)]) -> int:
        return await theatre.ask(sale)

    @app.get("/theatres/{id}")
    async def look(theatre: KnownTheatre) -> int:
        return await theatre.ask(CountSeats())

    @app.post("/theatres/{id}/failures")
    async def fail(theatre: ATheatre, key: IdempotencyKey) -> None:
        await theatre.ask(Raise(command_id=key))

    @app.get("/name")
    async def name(system: System) -> str:
        return system.name

    @app.get("/plain")
    async def plain(number: int = 0) -> int:
        return number


# --- the life of the system --------------------------------------------------------------------------------


def test_the_system_starts_and_stops_with_the_application() -> None:
    app = new_app()
    with TestClient(app) as client:
        assert client.get("/name").json() == "system"
        system = running_system(app)
        assert repr(system) == "<ActorSystem system (running)>"
    assert repr(system) == "<ActorSystem system (stopped)>"


def test_a_function_or_a_file_makes_a_new_system_at_each_start(tmp_path: Path) -> None:
    """Each test of a program may run its application, which is made once."""
    file = tmp_path / "theatre.toml"
    file.write_text('[system]\nname = "from a file"\n\n[aggregates]\ntypes = ["tests.web.theatre:Theatre"]\n')
    for made, name in ((new_system, "system"), (file, "from a file"), (str(file), "from a file")):
        app = FastAPI(lifespan=lifespan(made))
        add_routes(app)
        for _ in range(2):
            with TestClient(app) as client:
                assert client.get("/name").json() == name
                assert client.post("/theatres/a/sales", json={"seats": 1}).json() == 99


def test_options_override_those_of_the_file_and_go_with_a_file_only(tmp_path: Path) -> None:
    file = tmp_path / "theatre.toml"
    file.write_text('[system]\nname = "from a file"\n')
    app = FastAPI(lifespan=lifespan(file, name="other"))
    add_routes(app)
    with TestClient(app) as client:
        assert client.get("/name").json() == "other"
    with pytest.raises(TypeError, match="go with a file; give them to the system: cluster"):
        lifespan(new_system, cluster=True)


def test_a_system_can_be_given_itself_and_serves_one_start() -> None:
    app = FastAPI(lifespan=lifespan(new_system(name="given")))
    add_routes(app)
    with TestClient(app) as client:
        assert client.get("/name").json() == "given"
    with pytest.raises(SystemNotRunning, match="cannot be started again"), TestClient(app):
        pass


def test_a_system_that_cannot_start_ends_the_start_of_the_application(tmp_path: Path) -> None:
    file = tmp_path / "no.toml"
    file.write_text("[system]\nnam = 1\n")
    with pytest.raises(Exception, match="nam"), TestClient(FastAPI(lifespan=lifespan(file))):
        pass


def test_a_mounted_application_has_the_system_of_the_one_around_it() -> None:
    """Servers start the outermost application alone, which surprises many."""
    inner = FastAPI()
    add_routes(inner)
    add_problem_details(inner)
    app = new_app()
    app.mount("/inner", inner)
    with TestClient(app) as client:
        assert client.get("/inner/name").json() == "system"
        assert client.post("/inner/theatres/a/sales", json={"seats": 101}).status_code == 409


def test_a_lifespan_of_the_program_can_do_more_around_it() -> None:
    seen = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with lifespan(new_system)(app) as state:
            seen.append("started")
            yield {**state, "mine": 1}
        seen.append("stopped")

    app = FastAPI(lifespan=own)
    add_routes(app)
    with TestClient(app) as client:
        assert client.get("/name").json() == "system"
    assert seen == ["started", "stopped"]


async def test_a_client_that_passes_no_state_of_the_lifespan_reaches_the_system_too() -> None:
    """httpx's transport for ASGI is such a client."""
    app = new_app()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        assert (await client.get("/name")).json() == "system"


def test_an_application_that_was_not_started_says_how_to_start_it() -> None:
    with pytest.raises(NoSystem, match="with TestClient"):
        TestClient(new_app()).get("/name")
    with pytest.raises(NoSystem, match="FastAPI\\(lifespan="):
        running_system(FastAPI())


def test_the_system_can_be_replaced_by_another_for_a_test() -> None:
    from uno_actors.fastapi.dependencies import needs_system

    app = new_app()
    other = new_system(name="other")
    app.dependency_overrides[needs_system] = lambda: other
    with TestClient(app) as client:
        assert client.get("/name").json() == "other"


def test_a_websocket_has_the_system_too() -> None:
    app = new_app()

    @app.websocket("/ws/{id}")
    async def talk(websocket: WebSocket, theatre: ATheatre) -> None:
        await websocket.accept()
        await websocket.send_json(await theatre.ask(CountSeats()))
        await theatre.ask(SellSeats(seats=101))

    with (
        TestClient(app) as client,
        pytest.raises(CommandRejected),
        client.websocket_connect("/ws/a") as socket,
    ):
        assert socket.receive_json() == 100
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


class Broken(Exception):
    pass


def test_in_a_test_an_application_whose_supervisors_gave_up_answers_503_and_ends_with_the_error() -> None:
    """The process of a test is not ended, nor does it get an exit code."""
    app = FastAPI(lifespan=lifespan(failing_system))
    add_problem_details(app)
    add_routes(app)
    with pytest.raises(SupervisorGaveUp), TestClient(app) as client:
        client.post("/theatres/a/sales", json={"seats": 1})
        while (answer := client.get("/theatres/a")).status_code == 200:
            pass
        assert answer.status_code == 503
        assert answer.json()["title"] == "Service is not running"
        assert answer.headers["retry-after"] == "5"


def test_probes_say_whether_the_system_is_ready() -> None:
    app = FastAPI(lifespan=lifespan(lambda: ActorSystem(aggregates=[Theatre], handlers=[Counter()])))
    add_routes(app)
    add_probes(app, watch=MaxLag(events=1))
    with TestClient(app) as client:
        assert client.get("/livez").json() == {"live": True, "reasons": []}
        assert client.get("/readyz").status_code == 200
        assert client.portal is not None
        (name,) = running_system(app).statistics().handlers
        client.portal.call(running_system(app).pause, name)
        for _ in range(3):
            client.post("/theatres/a/sales", json={"seats": 1})
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert name in answer.text
    other = new_app()
    add_probes(other)
    for _ in range(2):
        with TestClient(other) as client:
            assert client.get("/readyz").json() == {"ready": True, "live": True, "reasons": []}
            assert client.portal is not None
            client.portal.call(running_system(other).stop)
            assert client.get("/readyz").status_code == 503
    assert "/livez" not in app.openapi()["paths"]


def test_the_live_page_can_be_mounted_and_needs_its_token() -> None:
    app = new_app()
    add_page(app, "/page", token="a token of the test")  # noqa: S106
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/page/", follow_redirects=False).status_code == 303
            assert client.get("/page/api/now").status_code == 401
            shown = client.get("/page/api/now", headers={"Authorization": "Bearer a token of the test"})
            assert (shown.status_code, shown.headers["content-type"]) == (200, "application/json")


# --- dependencies ------------------------------------------------------------------------------------------


def test_a_command_comes_from_the_body_and_a_repeated_request_takes_effect_once() -> None:
    with TestClient(new_app()) as client:

        def sell(seats: int, **headers: str) -> httpx.Response:
            return client.post("/theatres/a/sales", json={"seats": seats}, headers=headers)

        key = {"Idempotency-Key": "k1"}
        assert [sell(2, **key).json(), sell(2, **key).json(), sell(2).json(), sell(2).json()] == [
            98,
            98,
            96,
            94,
        ]
        other = sell(3, **key)
        assert (other.status_code, other.json()["type"]) == (422, "urn:uno-actors:command-id-reused")


def test_a_quoted_key_is_the_same_as_the_bare_one() -> None:
    """RFC 9651 writes strings in quotes; few clients do."""
    with TestClient(new_app()) as client:
        replies = [
            client.post("/theatres/a/sales", json={"seats": 2}, headers={"Idempotency-Key": key}).json()
            for key in ('k"1', '"k\\"1"', '"')
        ]
        assert replies == [98, 98, 96]


@pytest.mark.parametrize("key", ["", '""', "x" * 256], ids=["empty", "empty in quotes", "too long"])
def test_a_key_that_names_nothing_is_refused(key: str) -> None:
    with TestClient(new_app()) as client:
        answer = client.post("/theatres/a/sales", json={"seats": 2}, headers={"Idempotency-Key": key})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["parameter"] == "idempotency-key"


@pytest.mark.parametrize("name", ["command_id", "correlation_id", "causation_id"])
def test_a_body_cannot_set_the_ids_of_its_command(name: str) -> None:
    with TestClient(new_app()) as client:
        answer = client.post("/theatres/a/sales", json={"seats": 2, name: "mine"})
        assert answer.status_code == 422
        assert f"{name} cannot be in the body" in answer.json()["detail"]


def test_an_aggregate_that_must_exist_is_found_once_something_is_recorded() -> None:
    with TestClient(new_app()) as client:
        missing = client.get("/theatres/a")
        assert (missing.status_code, missing.json()["type"]) == (404, "urn:uno-actors:aggregate-not-found")
        client.post("/theatres/a/sales", json={"seats": 2})
        assert client.get("/theatres/a").json() == 98


def test_an_id_that_no_aggregate_can_have_is_422() -> None:
    with TestClient(new_app()) as client:
        answer = client.post(f"/theatres/{'x' * 256}/sales", json={"seats": 2})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:uno-actors:invalid-aggregate-id")


def test_the_path_parameter_may_have_any_name_and_the_class_is_checked_at_once() -> None:
    app = FastAPI(lifespan=lifespan(new_system))

    @app.get("/{town}/{house}")
    async def look(theatre: Annotated[AggregateRef, aggregate(Theatre, "house")], town: str) -> str:
        return f"{town} {theatre.stream.aggregate_id}"

    with TestClient(app) as client:
        assert client.get("/paris/odeon").json() == "paris odeon"
    with pytest.raises(InvalidAggregate):
        aggregate(dict)  # type: ignore[type-var]


# --- errors ------------------------------------------------------------------------------------------------


def test_an_error_of_an_aggregate_is_a_problem_with_its_status() -> None:
    with TestClient(new_app()) as client:
        answer = client.post("/theatres/a/sales", json={"seats": 101})
        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json() == {
            "type": "urn:uno-actors:command-rejected",
            "title": "Command rejected",
            "status": 409,
            "detail": "only 100 seats are free",
        }


def failing(error: Exception) -> Any:
    RAISED[0] = lambda: error
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreFull("lmdb:/srv/x", "disk"), 503),
        (OutcomeUnknown("append", "no answer"), 503),
        (AskTimeout("Theatre<a>", "Raise", 1, started=True, doing="?"), 504),
    ],
    ids=["full", "outcome unknown", "timeout"],
)
def test_what_may_be_repeated_says_when_and_with_which_key(error: Exception, status: int) -> None:
    failing(error)
    with TestClient(new_app()) as client:
        with_key = client.post("/theatres/a/failures", headers={"Idempotency-Key": "k1"})
        assert (with_key.status_code, int(with_key.headers["retry-after"]) > 0) == (status, True)
        assert "srv" not in with_key.text
        if not isinstance(error, StoreFull):
            assert with_key.json()["idempotency_key"] == "k1"
            made = client.post("/theatres/a/failures").json()["idempotency_key"]
            assert len(made) == 32


def test_a_fault_of_the_program_stays_a_500_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    failing(UnknownCommand("Theatre", object(), []))
    app = new_app()
    with TestClient(app) as client, pytest.raises(UnknownCommand):
        client.post("/theatres/a/failures")
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/theatres/a/failures").status_code == 500


def test_handlers_and_status_codes_of_the_program_go_first() -> None:
    async def own(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"mine": str(error)}, status_code=402)

    app = FastAPI(
        lifespan=lifespan(new_system), exception_handlers={CommandRejected: own, RequestValidationError: own}
    )
    add_problem_details(app, also={Broken: 418})
    add_routes(app)
    with TestClient(app) as client:
        assert client.post("/theatres/a/sales", json={"seats": 101}).status_code == 402
        assert "mine" in client.post("/theatres/a/sales", json={"seats": -1}).json()
        failing(Broken("tea"))
        answer = client.post("/theatres/a/failures")
        assert (answer.status_code, answer.json()["detail"], answer.json()["type"]) == (
            418,
            "tea",
            "about:blank",
        )


def test_a_refusal_of_the_programs_own_class_may_have_a_status_of_its_own() -> None:
    app = FastAPI(lifespan=lifespan(new_system))
    add_problem_details(app, also={SeatsAreGone: 410})
    add_routes(app)
    with TestClient(app) as client:
        assert client.post("/theatres/a/sales", json={"seats": 101}).status_code == 410


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"seats": 0}', "#/seats"),
        (b'{"seats": 1, "a/b~c d": 1}', "#/a~1b~0c%20d"),
        (b'{"seats": 1, "\\ud800": 1}', "#"),
        (b'{"seats": "\\ud800"}', "#/seats"),
        (b"{", "#/1"),
        (b"[]", "#"),
    ],
)
def test_a_body_that_does_not_fit_is_answered_with_the_place_and_without_its_values(
    body: bytes, pointer: str
) -> None:
    """Invalid Unicode too, which FastAPI's own answer fails to encode."""
    with TestClient(new_app()) as client:
        answer = client.post("/theatres/a/sales", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


def test_a_parameter_that_does_not_fit_is_named() -> None:
    with TestClient(new_app()) as client:
        (error,) = client.get("/plain?number=x").json()["errors"]
        assert (error["in"], error["parameter"]) == ("query", "number")


def test_a_flood_of_errors_in_one_request_is_cut() -> None:
    with TestClient(new_app()) as client:
        answer = client.post("/theatres/a/sales", json={f"f{n}": n for n in range(10_000)})
        assert len(answer.json()["errors"]) == 100
        assert len(answer.json()["detail"]) < 2_100


def test_errors_are_answered_behind_middleware_and_in_routers() -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    router = APIRouter(prefix="/v1")
    add_routes(router)
    app = FastAPI(lifespan=lifespan(new_system))
    app.add_middleware(Passing)
    app.include_router(router)
    add_problem_details(app)
    with TestClient(app) as client:
        assert client.post("/v1/theatres/a/sales", json={"seats": 101}).status_code == 409
    shown = app.openapi()["paths"]["/v1/theatres/{id}"]["get"]["responses"]
    assert "503" in shown


# --- OpenAPI -----------------------------------------------------------------------------------------------


def test_openapi_shows_the_problems_where_they_can_occur() -> None:
    schema = new_app().openapi()
    shown = {
        f"{method} {path}": sorted(operation["responses"])
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert shown == {
        "post /theatres/{id}/sales": ["200", "409", "422", "503", "504"],
        "get /theatres/{id}": ["200", "404", "409", "422", "503", "504"],
        "post /theatres/{id}/failures": ["200", "409", "422", "503", "504"],
        "get /name": ["200", "409", "422", "503", "504"],
        "get /plain": ["200", "422"],
    }
    contents = {
        media
        for methods in schema["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if status != "200"
        for media in answer["content"]
    }
    assert contents == {"application/problem+json"}
    assert set(schema["components"]["schemas"]) == {"Problem"}


def test_openapi_shows_the_body_of_a_command_without_its_ids() -> None:
    operation = new_app().openapi()["paths"]["/theatres/{id}/sales"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body["title"] == "SellSeats"
    assert set(body["properties"]) == {"seats", "note"}
    assert [each["name"] for each in operation["parameters"]] == ["id", "idempotency-key"]


def test_answers_that_a_route_describes_itself_stay_and_later_routes_are_shown_too() -> None:
    app = new_app()
    app.openapi()

    @app.get("/later", responses={409: {"description": "Mine"}})
    async def later(system: System) -> None: ...

    app.openapi_schema = None
    shown = app.openapi()["paths"]["/later"]["get"]["responses"]
    assert (shown["409"]["description"], "503" in shown) == ("Mine", True)


# --- names -------------------------------------------------------------------------------------------------

PROGRAM = """
import fastapi
import uno_actors.fastapi
from fastapi import FastAPI
assert FastAPI is fastapi.FastAPI
assert "site-packages" in fastapi.__file__, fastapi.__file__
assert not hasattr(fastapi, "lifespan")
assert callable(uno_actors.fastapi.lifespan)
"""


@pytest.mark.parametrize("first", ["import fastapi", "import uno_actors.fastapi"])
def test_the_module_hides_neither_fastapi_nor_is_hidden_by_it(tmp_path: Path, first: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(first + "\n" + PROGRAM)
    subprocess.run([sys.executable, program], check=True)


@pytest.mark.parametrize("path", sorted(Path("uno_actors/fastapi").glob("*.py")), ids=lambda path: path.name)
def test_each_module_can_be_run_as_a_script(path: Path) -> None:
    """Python then puts the module's own folder first on its path."""
    subprocess.run([sys.executable, path], check=True)


def test_without_fastapi_the_import_names_the_extra() -> None:
    program = "import sys; sys.modules['fastapi'] = None\nimport uno_actors.fastapi"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'uno-actors[fastapi]'" in run.stderr.splitlines()[-1]
