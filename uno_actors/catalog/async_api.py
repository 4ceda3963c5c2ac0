"""The topics of a program as an AsyncAPI 3.0 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0).

A channel for each topic that event classes have by default, with the messages that are sent there: the payload is the
data of the CloudEvent that `uno_actors.outside` sends.
"""

import re
from typing import Any

from uno_actors.catalog.values import Catalog, EventEntry

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


def async_api(catalog: Catalog, release: str) -> dict[str, Any]:
    """The document.

    Args:
        catalog: Of the program.
        release: The version of the program's interface, as the document states it.
    """
    document = _Document()
    for event in catalog.events:
        if event.topic is not None:
            document.add(event, event.topic)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": catalog.program, "version": release},
        "defaultContentType": "application/json",
        "channels": document.channels,
        "operations": document.operations,
        "components": {"messages": document.messages, "schemas": document.schemas},
    }


class _Document:
    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.messages: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {}
        self._keys: dict[str, str] = {}

    def add(self, event: EventEntry, topic: str) -> None:
        channel = self._channel(topic)
        key = _free(f"{event.name}.{event.version}", self.messages)
        schema = {
            name: value for name, value in event.json_schema.items() if name not in ("$schema", "$defs")
        }
        moved = {
            f"#/$defs/{_pointer(name)}": _free(f"{key}.{name}", self.schemas)
            for name in event.json_schema.get("$defs", {})
        }
        for name, definition in event.json_schema.get("$defs", {}).items():
            self.schemas[moved[f"#/$defs/{_pointer(name)}"]] = _moved(definition, moved)
        self.schemas[_free(key, self.schemas)] = _moved(schema, moved)
        self.messages[key] = {
            "name": event.name,
            "title": f"{event.name}, version {event.version}",
            **({"description": event.doc} if event.doc else {}),
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{key}"},
        }
        self.channels[channel]["messages"][key] = {"$ref": f"#/components/messages/{key}"}
        self.operations[f"send.{channel}"]["messages"].append(
            {"$ref": f"#/channels/{channel}/messages/{key}"}
        )

    def _channel(self, topic: str) -> str:
        if topic not in self._keys:
            key = self._keys[topic] = _free(topic, self.channels)
            self.channels[key] = {"address": topic, "messages": {}}
            self.operations[f"send.{key}"] = {
                "action": "send", "channel": {"$ref": f"#/channels/{key}"}, "messages": [],
            }  # fmt: skip
        return self._keys[topic]


def _free(name: str, taken: dict[str, Any]) -> str:
    """A key like ``name`` that AsyncAPI allows and that is not taken."""
    key = plain = _NOT_IN_NAMES.sub("_", name)
    number = 1
    while key in taken:
        number += 1
        key = f"{plain}_{number}"
    return key


def _pointer(name: str) -> str:
    """A name as part of a JSON Pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _moved(schema: Any, moved: dict[str, str]) -> Any:
    """``schema`` with references to where the definitions are now."""
    if isinstance(schema, list):
        return [_moved(each, moved) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _moved(value, moved) for name, value in schema.items()}
    if (reference := found.get("$ref")) in moved:
        found["$ref"] = f"#/components/schemas/{moved[reference]}"
    return found
