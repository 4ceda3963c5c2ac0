"""What an endpoint of the API is: a function from what was asked to an answer, both with a schema."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from uno_actors.ops.sampling import Sampler
from uno_actors.ops.sources import Source


class Asked(BaseModel):
    """The parameters of a question, or the body of a request; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answered(BaseModel):
    """An answer. Whatever a payload holds in it becomes valid JSON; see `uno_actors.printable.as_json`."""

    model_config = ConfigDict(frozen=True)


class Nothing(Asked):
    """A question without parameters."""


class Done(Answered):
    """What a request has changed."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Observed:
    """What the API shows.

    Attributes:
        source: The system or the store.
        sampler: Its figures of the last minutes.
    """

    source: Source
    sampler: Sampler


Call = Callable[[Observed, Any], Awaitable[Answered]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        method: ``GET`` for what only reads.
        path: Below the application, such as ``/api/now``.
        summary: One sentence, for the description.
        call: The function.
        asked: The class of its second argument: parameters of a ``GET``, the body of a ``POST``.
        answered: The class of its result.
        every: Seconds between two looks of the stream of its answers at ``path/events``; ``None`` for no stream.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    call: Call
    asked: type[Asked]
    answered: type[Answered]
    every: float | None = None


class Refused(Exception):
    """A question that has no answer.

    Attributes:
        status: Status code of HTTP.
        detail: Why, and what to do instead.
    """

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(detail)
