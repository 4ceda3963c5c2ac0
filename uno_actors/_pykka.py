"""The one place where pykka is imported: its public names, and what implementors of a runtime need."""

from pykka import Actor as PykkaActor
from pykka import ActorDeadError, ActorRegistry
from pykka import ActorRef as PykkaActorRef
from pykka import Future as PykkaFuture
from pykka import Timeout as PykkaTimeout
from pykka._envelope import Envelope
from pykka._introspection import get_attr_directly
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr
from pykka.messages import _ActorStop as ActorStop

__all__ = [
    "ActorDeadError",
    "ActorRegistry",
    "ActorStop",
    "Envelope",
    "ProxyCall",
    "ProxyGetAttr",
    "ProxySetAttr",
    "PykkaActor",
    "PykkaActorRef",
    "PykkaFuture",
    "PykkaTimeout",
    "get_attr_directly",
]
