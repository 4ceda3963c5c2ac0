"""A FastAPI service over one actor system; ``pip install "uno_actors[fastapi]"``.

    app = FastAPI(lifespan=lifespan("bank.toml"))
    add_problem_details(app)

    @app.post("/accounts/{id}/deposits")
    async def deposit(
        account: Annotated[AggregateRef, aggregate(Account)], command: Annotated[Deposit, command(Deposit)]
    ) -> int:
        return await account.ask(command)

- `lifespan` starts and stops the system with the application, and stops serving when its supervisors give up.
- `System`, `IdempotencyKey`, `aggregate` and `command` are dependencies of path operations.
- `wait_for` makes a path operation that reads show what the client has recorded.
- `add_problem_details` answers errors with problem details (RFC 9457), and shows them in OpenAPI.
- `add_probes` answers ``/livez`` and ``/readyz``; `add_page` mounts the live page.
- `tenants_lifespan` and `add_tenants` serve each request by the system of its tenant.
- `events` streams recorded events to browsers as server-sent events.
"""

from uno_actors.errors import MissingExtra

try:
    import fastapi as _fastapi  # noqa: F401 - asked for here, so that the error names the extra
except ImportError as missing:
    raise MissingExtra("uno_actors.fastapi", "fastapi", missing) from missing

from uno_actors.fastapi.dependencies import IdempotencyKey, System, aggregate, command
from uno_actors.fastapi.event_stream import EventStream, events
from uno_actors.fastapi.hosting import lifespan, running_system
from uno_actors.fastapi.page import add_page
from uno_actors.fastapi.positions import wait_for
from uno_actors.fastapi.probes import add_probes
from uno_actors.fastapi.problem_details import add_problem_details
from uno_actors.fastapi.tenants import (
    add_tenants,
    from_header,
    from_path,
    running_tenants,
    tenants_lifespan,
)
from uno_actors.giving_up import GAVE_UP

__all__ = [
    "GAVE_UP",
    "EventStream",
    "IdempotencyKey",
    "System",
    "add_page",
    "add_probes",
    "add_problem_details",
    "add_tenants",
    "aggregate",
    "command",
    "events",
    "from_header",
    "from_path",
    "lifespan",
    "running_system",
    "running_tenants",
    "tenants_lifespan",
    "wait_for",
]
