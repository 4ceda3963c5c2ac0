"""The one place where pykka is imported: its public names, and what implementors of a runtime need."""

from pykka import Actor as PykkaActor
from pykka import ActorDeadError, ActorRegistry
from pykka import ActorRef as PykkaActorRef
from pykka import Future as PykkaFuture
from pykka import Timeout as PykkaTimeout
from pykka._envelope import Envelope as PykkaEnvelope
from pykka._introspection import get_attr_directly
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr
from pykka.messages import _ActorStop as ActorStop

__all__ = [
    "ActorDeadError",
    "ActorRegistry",
    "ActorStop",
    "ProxyCall",
    "ProxyGetAttr",
    "ProxySetAttr",
    "PykkaActor",
    "PykkaActorRef",
    "PykkaEnvelope",
    "PykkaFuture",
    "PykkaTimeout",
    "get_attr_directly",
]
