"""uno_actors: event-sourced actors for Python services.

Everything public can be imported from here. The packages, from the bottom up; each may import those above it in this
list, and its docstring says in which order to read it:

- ``errors``, ``logs``, ``clock``, ``topics``, ``causality``, ``backoff`` and their like: leaves, which stand alone.
- ``flight_recorder``: the latest steps of a node, in memory and as a file.
- ``actors``: pykka's actors on an event loop and worker threads. It knows no events.
- ``domain``: events, commands and aggregates, as users write them. It knows no actors.
- ``supervision``: which children a supervisor restarts, and when.
- ``store``: the port that event stores implement, and how events become records.
- ``aggregates``: each aggregate as an actor: load, decide, append, adopt, reply.
- ``handlers``: how recorded events reach their handlers, projections and process managers.
- ``scheduling``: commands that are sent later, by due time.
- ``bus``: events handled in memory, and publishers of events that belong to no aggregate.
- ``inquiry``: why something is not done.
- ``config``: a system as a file; validated, analysed and simulated.
- ``system``: what a service starts.
- ``ops``: what operators see of a running system: health, metrics and the like.
- ``fastapi``: a web service over a system.
- ``cli`` and ``testing``: what people run, and what their tests import.
- ``django``: the system of each process of a Django project.

Importing the package alone loads none of these, so that the half without events can be used without the other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uno_actors._public import *  # noqa: F403
    from uno_actors._public import __all__ as __all__
    from uno_actors.store.expected_version import ANY as ANY
else:  # type checkers would take every name for granted

    def __getattr__(name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        public = import_module("uno_actors._public")
        globals().update({each: getattr(public, each) for each in public.__all__})
        try:
            return globals()[name] if name in globals() else getattr(public, name)
        except AttributeError:
            raise AttributeError(f"module 'uno_actors' has no attribute {name!r}", name=name) from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("uno_actors._public").__all__})
