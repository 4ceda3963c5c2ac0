"""The world outside: recorded events go to brokers and webhooks, and messages of brokers are recorded.

The log is the outbox: what is recorded is handed on, at least once and in order per aggregate, by an ordinary handler
with a checkpoint. It stands on ``handlers`` and the store's port; no other package imports it. The extras ``brokers``
and ``webhooks`` bring what it needs. Read in this order:

- `uno_actors.outside.cloud_events`: events as CloudEvents 1.0, and messages read as such.
- `uno_actors.outside.destination`: what a destination is, and how it says that something went wrong.
- `uno_actors.outside.brokers`: NATS, Kafka, RabbitMQ and Redis through FastStream.
- `uno_actors.outside.webhook` and `uno_actors.outside.public_addresses`: signed HTTP requests.
- `uno_actors.outside.forwarding`: the handler that sends.
- `uno_actors.outside.messages`, `uno_actors.outside.subscribers` and `uno_actors.outside.receiving`: the way in.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from uno_actors.errors import MissingExtra

if TYPE_CHECKING:
    from uno_actors.outside.brokers import ToKafka as ToKafka
    from uno_actors.outside.brokers import ToNats as ToNats
    from uno_actors.outside.brokers import ToRabbit as ToRabbit
    from uno_actors.outside.brokers import ToRedis as ToRedis
    from uno_actors.outside.destination import DeliveryRefused as DeliveryRefused
    from uno_actors.outside.destination import Destination as Destination
    from uno_actors.outside.destination import DestinationGone as DestinationGone
    from uno_actors.outside.destination import Outgoing as Outgoing
    from uno_actors.outside.forwarding import forward as forward
    from uno_actors.outside.messages import Message as Message
    from uno_actors.outside.messages import ReceivedMessage as ReceivedMessage
    from uno_actors.outside.receiving import Send as Send
    from uno_actors.outside.receiving import receive as receive
    from uno_actors.outside.webhook import Webhook as Webhook
else:
    _PUBLIC = {
        "DeliveryRefused": ("destination", "brokers"),
        "Destination": ("destination", "brokers"),
        "DestinationGone": ("destination", "brokers"),
        "Message": ("messages", "brokers"),
        "Outgoing": ("destination", "brokers"),
        "ReceivedMessage": ("messages", "brokers"),
        "Send": ("receiving", "brokers"),
        "ToKafka": ("brokers", "brokers"),
        "ToNats": ("brokers", "brokers"),
        "ToRabbit": ("brokers", "brokers"),
        "ToRedis": ("brokers", "brokers"),
        "Webhook": ("webhook", "webhooks"),
        "forward": ("forwarding", "brokers"),
        "receive": ("receiving", "brokers"),
    }

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'uno_actors.outside' has no attribute {name!r}", name=name)
        module, extra = _PUBLIC[name]
        try:
            return getattr(import_module(f"uno_actors.outside.{module}"), name)
        except ModuleNotFoundError as missing:
            raise MissingExtra(f"uno_actors.outside.{name}", extra, missing) from missing

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PUBLIC})
