"""``/livez`` and ``/readyz`` (and ``/metrics``) for an ASGI application, as small Starlette routes.

The answers are for probes: 200 or 503, with the reasons as JSON. They need no login, so that the kubelet and load
balancers can ask; they name handlers and supervisors, and the store without its password, and show no payload.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from uno_actors.errors import MissingExtra
from uno_actors.ops.health import Health, HealthReport
from uno_actors.ops.metrics.exporter import Metrics, has_prometheus, metrics_of
from uno_actors.system.system import ActorSystem

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""No proxy may answer a probe, and no browser may take what is shown for a page."""


def operating_routes(health: Health | ActorSystem, metrics: Metrics | None = None) -> "list[Route]":
    """Routes to add to an application: ``Starlette(routes=operating_routes(system))``, or of FastAPI the same.

    Args:
        health: What ``/livez`` and ``/readyz`` check; of a system alone, without watched handlers.
        metrics: What ``/metrics`` shows; default is what the program has made for the system, if prometheus-client is
            installed. Without any there is no such route.

    Returns:
        ``/livez`` answers 503 if only a restart of the process helps, ``/readyz`` if the system cannot serve traffic
        now; both otherwise 200. ``/metrics`` is for Prometheus.

    Raises:
        MissingExtra: Starlette or prometheus-client is not installed.
    """
    try:
        from starlette.responses import JSONResponse, Response  # noqa: PLC0415 - of an extra
        from starlette.routing import Route  # noqa: PLC0415
    except ImportError as missing:
        raise MissingExtra("/livez and /readyz", "page", missing) from missing
    checked = health if isinstance(health, Health) else Health(health)
    if metrics is None and has_prometheus():
        metrics = metrics_of(checked.system)

    async def livez(_: "Request") -> "Response":
        report = await checked.check_live()
        shown = {"live": report.live, "reasons": reasons_of(report)}
        return JSONResponse(shown, 200 if report.live else 503, HEADERS)

    async def readyz(_: "Request") -> "Response":
        report = await checked.check()
        shown = {"ready": report.ready, "live": report.live, "reasons": reasons_of(report)}
        return JSONResponse(shown, 200 if report.ready else 503, HEADERS)

    async def prometheus(request: "Request") -> "Response":
        assert metrics is not None
        await metrics.read()
        body, media_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers=HEADERS, media_type=media_type)

    endpoints: dict[str, Callable[[Request], Coroutine[Any, Any, Response]]] = {
        "/livez": livez,
        "/readyz": readyz,
    }
    if metrics is not None:
        metrics.exposition("")  # finds a missing extra now and not at the first request
        endpoints["/metrics"] = prometheus
    return [Route(path, endpoint, name=path[1:]) for path, endpoint in endpoints.items()]


def endpoints_app(health: Health | ActorSystem, metrics: Metrics | None = None) -> "Starlette":
    """An ASGI application with these routes alone: to be mounted, or served by itself on a port of the operators.

    Args:
        health: As for `operating_routes`.
        metrics: As for `operating_routes`.

    Raises:
        MissingExtra: As `operating_routes`.
    """
    routes = operating_routes(health, metrics)
    from starlette.applications import Starlette  # noqa: PLC0415 - of an extra

    return Starlette(routes=routes)


def reasons_of(report: HealthReport) -> list[dict[str, str]]:
    """The reasons of a report as the endpoints show them in JSON."""
    return [{"check": each.check, "name": each.name, "text": each.text} for each in report.reasons]
