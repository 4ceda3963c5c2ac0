"""Operating a running system: health, metrics, traces, a page, and the HTTP endpoints of these.

Nothing below imports this package, and each part imports the library that it needs only when it is used: a system that
is not observed pays nothing. The extras in brackets bring these libraries. Read in this order:

- `uno_actors.ops.health`: whether a system lives and is ready for traffic, with reasons.
- `uno_actors.ops.tracing`: traces through OpenTelemetry (``otel``), an observer of `uno_actors.observing`;
  `uno_actors.ops.span_attributes` has the attributes of its spans.
- `uno_actors.ops.application`: the live page as an ASGI application (``page``). `uno_actors.ops.sources` says where it
  finds what it shows, `uno_actors.ops.api` has one module for each subject, `uno_actors.ops.access` decides who may
  read and change, and the folder ``page`` has the files that a browser loads.
- `uno_actors.ops.serving`: the page at a private socket, and at a port with a token.
- `uno_actors.ops.metrics`: what is measured, and how it is exported (``metrics``, ``otel``).
- `uno_actors.ops.endpoints`: ``/livez``, ``/readyz`` and ``/metrics`` for an ASGI application (``page``, ``metrics``).

The names below can be imported from here. A public function must not have the name of a module of this package, which
would hide it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uno_actors.ops.application import app as app
    from uno_actors.ops.endpoints import endpoints_app as endpoints_app
    from uno_actors.ops.endpoints import operating_routes as operating_routes
    from uno_actors.ops.health import Health as Health
    from uno_actors.ops.health import MaxLag as MaxLag
    from uno_actors.ops.metrics.exporter import Metrics as Metrics
    from uno_actors.ops.serving import serve_page as serve_page
    from uno_actors.ops.tracing import Tracing as Tracing
else:
    _PUBLIC = {
        "Health": "health",
        "MaxLag": "health",
        "Tracing": "tracing",
        "app": "application",
        "Metrics": "metrics.exporter",
        "endpoints_app": "endpoints",
        "operating_routes": "endpoints",
        "serve_page": "serving",
    }

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'uno_actors.ops' has no attribute {name!r}", name=name)
        return getattr(import_module(f"uno_actors.ops.{_PUBLIC[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PUBLIC})
