"""``/livez`` and ``/readyz`` of an application, for Kubernetes and load balancers."""

from collections.abc import Awaitable, Callable, Mapping
from weakref import WeakKeyDictionary

from fastapi import FastAPI, Request
from starlette.responses import Response

from uno_actors.fastapi.hosting import Hosted, hosted_of
from uno_actors.ops.endpoints import operating_routes
from uno_actors.ops.health import Health, MaxLag

PATHS = ("/livez", "/readyz")

Endpoint = Callable[[Request], Awaitable[Response]]


def add_probes(app: FastAPI, watch: MaxLag | Mapping[str, MaxLag] | None = None) -> None:
    """Add the routes ``/livez`` and ``/readyz``, which say whether the system lives and is ready for traffic.

    They need no login, and OpenAPI does not show them.

    Args:
        app: The application.
        watch: How far handlers may lag in a service that is ready; see `uno_actors.ops.health.Health`.
    """
    endpoints: WeakKeyDictionary[Hosted, dict[str, Endpoint]] = WeakKeyDictionary()

    def endpoint_of(hosted: Hosted, path: str) -> Endpoint:
        if hosted not in endpoints:
            routes = operating_routes(Health(hosted.system, watch))
            endpoints[hosted] = {route.path: route.endpoint for route in routes}
        return endpoints[hosted][path]

    def route(path: str) -> Endpoint:
        async def probe(request: Request) -> Response:
            return await endpoint_of(hosted_of(request), path)(request)

        return probe

    for path in PATHS:
        app.add_api_route(path, route(path), include_in_schema=False, response_class=Response)
