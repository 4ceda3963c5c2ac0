"""The values of a configuration file: numbers, durations, sizes, words.

Each kind of value says what is allowed: in one sentence for error messages, and as JSON Schema for editors.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from uno_actors.cluster.settings import LARGEST_CAPACITY, ROLES, SMALLEST_CAPACITY, Role
from uno_actors.cluster.workers import ALLOWED as ALLOWED_WORKERS
from uno_actors.cluster.workers import MOST_WORKERS, Workers
from uno_actors.errors import CallerError, InvalidTopic
from uno_actors.handlers.spec import (
    _BARRED,
    MAX_NAME_BYTES,
    EventPriority,
    Start,
)
from uno_actors.quantities import MOST, is_count, is_number
from uno_actors.shards import SHARDS
from uno_actors.store.opening import store_openers
from uno_actors.tenants import EXPECTED as EXPECTED_TENANT
from uno_actors.tenants import check_tenant
from uno_actors.topics import TopicPattern
from uno_actors.units import DURATION, SIZE, as_duration, duration, size


class FromEnvironment(str):
    """A string with environment variables filled in, which may be a number.

    Attributes:
        written: The string in the file.
    """

    __slots__ = ("written",)

    def __new__(cls, text: str, written: str) -> "FromEnvironment":
        """``text``, made from ``written``."""
        made = super().__new__(cls, text)
        made.written = written
        return made

    written: str


def plain(value: Any) -> Any:
    """``value`` with plain strings in place of `FromEnvironment`."""
    match value:
        case FromEnvironment():
            return str(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
    return value


def as_it_is(value: Any) -> Any:
    """``value``, which a file can hold as it is."""
    return value


@dataclass(frozen=True, eq=False)
class Allowed:
    """How a value is read: an annotation for pydantic.

    Args:
        text: What is allowed.
        parse: Returns the value, or raises `ValueError` with a reason, which may be empty.
        schema: JSON Schema of the value in the file. A string with variables is always allowed.
        write: Returns what ``parse`` reads as the given value.
    """

    text: str
    parse: Callable[[Any], Any]
    schema: dict[str, Any]
    write: Callable[[Any], Any] = as_it_is

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        alternatives = self.schema.get("anyOf", [self.schema])
        if any("string" in one.get("type", ()) and "pattern" not in one for one in alternatives):
            return dict(self.schema)
        return {"anyOf": [*alternatives, {"type": "string", "pattern": r"\$\{"}]}

    def _check(self, found: Any) -> Any:
        try:
            return self.parse(found)
        except (ValueError, TypeError, CallerError) as error:
            why = str(error)
            why += "" if why.endswith("?") else "."
            text = f"{why} Expected {self.text}" if str(error) else f"expected {self.text}"
            raise PydanticCustomError("not_allowed", "{reason}", {"reason": text}) from None


# --- plain values ------------------------------------------------------------------------------------------


def a_string(found: Any) -> str:
    """``found`` as a plain string.

    Raises:
        ValueError: ``found`` is not a string.
    """
    if not isinstance(found, str):
        raise ValueError
    return str(found)


def _name(found: Any) -> str:
    text = a_string(found)
    if not 0 < len(text.encode("utf-8", "replace")) <= MAX_NAME_BYTES or not text.isprintable():
        raise ValueError
    return text


def _handler_name(found: Any) -> str:
    if not _BARRED.isdisjoint(text := _name(found)):
        raise ValueError
    return text


def _number(found: Any) -> float:
    if isinstance(found, FromEnvironment):
        found = float(found)
    if not is_number(found):
        raise ValueError
    return found


def _whole(found: Any) -> int:
    if isinstance(found, FromEnvironment):
        found = int(found) if re.fullmatch(r"[+-]?[0-9]{1,18}", found) else None
    if not is_count(found, -MOST):
        raise ValueError
    return found


def _truth(found: Any) -> bool:
    if isinstance(found, FromEnvironment) and found in ("true", "false"):
        return found == "true"
    if not isinstance(found, bool):
        raise ValueError
    return found


def _count(least: int) -> Allowed:
    def parse(found: Any) -> int:
        number = _whole(found)
        if number < least:
            raise ValueError
        return number

    return Allowed(f"a whole number, {least} or more", parse, {"type": "integer", "minimum": least})


def _share(found: Any) -> float:
    if not 0 <= (number := _number(found)) <= 1:
        raise ValueError
    return number


def _growth(found: Any) -> float:
    if (number := _number(found)) < 1:
        raise ValueError
    return number


def _one_of(*words: str) -> Allowed:
    def parse(found: Any) -> str:
        if not isinstance(found, str) or found not in words:
            near = get_close_matches(found, words, 1) if isinstance(found, str) else []
            raise ValueError(f'did you mean "{near[0]}"?' if near else "")
        return str(found)

    *others, last = [f'"{word}"' for word in words]
    return Allowed(f"{', '.join(others)} or {last}", parse, {"enum": list(words)})


Text = Annotated[str, Allowed("a string", a_string, {"type": "string"})]

Name = Annotated[
    str,
    Allowed(f"a string of 1 to {MAX_NAME_BYTES} printable bytes", _name, {"type": "string", "minLength": 1}),
]

HandlerName = Annotated[
    str,
    Allowed(
        f"a string of 1 to {MAX_NAME_BYTES} printable bytes without @",
        _handler_name,
        {"type": "string", "minLength": 1, "pattern": "^[^@]*$"},
    ),
]


def _partitions(found: Any) -> bool | int:
    if isinstance(found, bool) or (isinstance(found, FromEnvironment) and found in ("true", "false")):
        return _truth(found)
    if not 2 <= (number := _whole(found)) <= SHARDS:
        raise ValueError
    return number


def _recorder(found: Any) -> bool | int:
    if isinstance(found, bool) or (isinstance(found, FromEnvironment) and found in ("true", "false")):
        return _truth(found)
    if (number := _whole(found)) < 0:
        raise ValueError
    return number


RecorderSteps = Annotated[
    bool | int,
    Allowed(
        "true, false or a number of steps",
        _recorder,
        {"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0}]},
    ),
]

Partitions = Annotated[
    bool | int,
    Allowed(
        f"true, false or a number of partitions from 2 to {SHARDS}",
        _partitions,
        {"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 2, "maximum": SHARDS}]},
    ),
]

Truth = Annotated[bool, Allowed("true or false", _truth, {"type": "boolean"})]

AtLeastOne = Annotated[int, _count(1)]

AtLeastZero = Annotated[int, _count(0)]

Share = Annotated[
    float, Allowed("a number from 0 to 1", _share, {"type": "number", "minimum": 0, "maximum": 1})
]


def _capacity(found: Any) -> float:
    if not SMALLEST_CAPACITY <= (number := _number(found)) <= LARGEST_CAPACITY:
        raise ValueError
    return number


Capacity = Annotated[
    float,
    Allowed(
        f"a number from {SMALLEST_CAPACITY:g} to {LARGEST_CAPACITY:g}",
        _capacity,
        {"type": "number", "minimum": SMALLEST_CAPACITY, "maximum": LARGEST_CAPACITY},
    ),
]

_COUNT = {"type": "integer", "minimum": 0, "maximum": MOST_WORKERS}

TenantName = Annotated[
    str,
    Allowed(
        EXPECTED_TENANT,
        lambda found: check_tenant(a_string(found)),
        {"type": "string", "pattern": "^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$"},
    ),
]


def _kept(found: Any) -> tuple[str, ...] | Literal["all"]:
    if found == "all":
        return "all"
    if not isinstance(found, list):
        raise ValueError
    return tuple(check_tenant(a_string(name)) for name in found)


TenantsKept = Annotated[
    tuple[str, ...] | Literal["all"],
    Allowed(
        'a list of names of tenants, or "all"',
        _kept,
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "string", "enum": ["all"], "pattern": "^all$"},
            ]
        },
        lambda value: value if isinstance(value, str) else list(value),
    ),
]

WorkersValue = Annotated[
    Workers,
    Allowed(
        ALLOWED_WORKERS,
        lambda found: Workers.of(plain(found)),
        {
            "anyOf": [
                {**_COUNT, "minimum": 1},
                {"type": "string", "enum": ["cores"], "pattern": "^cores$"},
                {
                    "type": "object",
                    "properties": dict.fromkeys(ROLES, _COUNT),
                    "additionalProperties": False,
                },
            ]
        },
        lambda workers: workers.written,
    ),
]

Growth = Annotated[float, Allowed("a number, 1 or more", _growth, {"type": "number", "minimum": 1})]


def _store_url(found: Any) -> str:
    scheme, colon, _ = a_string(found).partition(":")
    schemes = store_openers()
    if not colon or scheme not in schemes:
        raise ValueError(f"there are stores for {', '.join(sorted(schemes))}")
    return str(found)


StoreUrl = Annotated[
    str,
    Allowed(
        'the URL of a store, such as "lmdb:./data" or "memory:"',
        _store_url,
        {"type": "string", "examples": ["lmdb:./data", "memory:"]},
    ),
]


# --- durations and sizes -----------------------------------------------------------------------------------


def _positive_duration(found: Any) -> float:
    if (seconds := duration(found)) <= 0:
        raise ValueError("it must be longer than zero")
    return seconds


def store_option(found: Any) -> str:
    """The text of an option in a store's URL: a size in bytes, a number, a word.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(found, str) and SIZE.fullmatch(found):
        return str(size(found))
    if isinstance(found, (bool, str)):
        return str(found).lower() if isinstance(found, bool) else found
    return str(_whole(found))


_A_DURATION = 'a duration such as "250ms", "30s", "5m", "1h30m" or "1d"'

_DURATION_SCHEMA = {"type": "string", "pattern": f"^({DURATION} ?)+$", "examples": ["250ms", "30s", "5m"]}

Seconds = Annotated[float, Allowed(_A_DURATION, _positive_duration, _DURATION_SCHEMA, as_duration)]

SecondsOrZero = Annotated[float, Allowed(_A_DURATION, duration, _DURATION_SCHEMA, as_duration)]
"""Zero is allowed."""

StoreOption = Annotated[
    str,
    Allowed(
        'a size such as "64GiB", a whole number, true, false or a word',
        store_option,
        {"type": ["string", "integer", "boolean"]},
    ),
]


def _shutdown(found: Any) -> float | str:
    return str(found) if found in ("kill", "infinity") else duration(found)


ShutdownValue = Annotated[
    float | Literal["kill", "infinity"],
    Allowed(
        f'{_A_DURATION}, or "kill" or "infinity"',
        _shutdown,
        {"anyOf": [{"enum": ["kill", "infinity"]}, _DURATION_SCHEMA]},
        lambda value: value if isinstance(value, str) else as_duration(value),
    ),
]


def _restarts(found: Any) -> int | None:
    if found == "unlimited":
        return None
    if (number := _whole(found)) < 0:
        raise ValueError
    return number


MaxRestarts = Annotated[
    int | None,
    Allowed(
        'a whole number, 0 or more, or "unlimited"',
        _restarts,
        {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "unlimited"}]},
        lambda value: "unlimited" if value is None else value,
    ),
]

# --- words -------------------------------------------------------------------------------------------------

StrategyWord = Annotated[
    Literal["one_for_one", "one_for_all", "rest_for_one"],
    _one_of("one_for_one", "one_for_all", "rest_for_one"),
]

RestartWord = Annotated[
    Literal["permanent", "transient", "temporary"], _one_of("permanent", "transient", "temporary")
]

BudgetWord = Annotated[Literal["supervisor", "child"], _one_of("supervisor", "child")]

AutoShutdownWord = Annotated[
    Literal["never", "any_significant", "all_significant"],
    _one_of("never", "any_significant", "all_significant"),
]

DirectiveWord = Annotated[
    Literal["restart", "resume", "stop", "escalate"], _one_of("restart", "resume", "stop", "escalate")
]

RoleWord = Annotated[Role, _one_of(*ROLES)]

DispatcherWord = Annotated[Literal["shared", "thread"], _one_of("shared", "thread")]

LevelWord = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    _one_of("debug", "info", "warning", "error", "critical"),
]

FormatWord = Annotated[Literal["text", "json"], _one_of("text", "json")]

_priority = _one_of("high", "normal", "low")

PriorityWord = Annotated[
    EventPriority,
    Allowed(
        _priority.text,
        lambda found: EventPriority[_priority.parse(found).upper()],
        _priority.schema,
        lambda priority: EventPriority(priority).name.lower(),
    ),
]


def _start(found: Any) -> Start:
    if isinstance(found, datetime):
        return found
    if found == "latest":
        return "latest"
    if found == "earliest":
        return "earliest"
    if isinstance(found, str) and "-" in found:
        with suppress(ValueError):
            return datetime.fromisoformat(found)
    if (position := _whole(found)) < 0:
        raise ValueError
    return position


StartValue = Annotated[
    Start,
    Allowed(
        '"latest", "earliest", a position (0 or more) or a time such as 2026-01-31T00:00:00Z',
        _start,
        {"anyOf": [{"enum": ["latest", "earliest"]}, {"type": "integer", "minimum": 0}, {"type": "string"}]},
    ),
]


def _topic(found: Any) -> TopicPattern:
    try:
        return TopicPattern(a_string(found))
    except InvalidTopic as error:
        raise ValueError(error.reason) from error


Topic = Annotated[
    TopicPattern,
    Allowed(
        "a topic pattern: tokens separated by '.', '*' for one token, a trailing '>' for one or more",
        _topic,
        {"type": "string", "examples": ["accounts.*", "accounts.>"]},
        lambda pattern: pattern.text,
    ),
]
