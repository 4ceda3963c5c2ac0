"""The jobs of one transaction, and their results."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from uno_actors.errors import UnoError
from uno_actors.store.records import Append, Appended
from uno_actors.tasks import settle
from uno_stores.sql.jobs import Commit, Job
from uno_stores.sql.quick_append import Placed


@dataclass(slots=True)
class Waiting:
    """A job whose caller waits for its result."""

    job: Job
    future: asyncio.Future[Any]

    def answer(self, result: Any) -> None:
        """Hand the caller its result, which may be an error."""
        settle(self.future, result)


@dataclass(slots=True)
class Attempt:
    """How far a transaction got.

    Attributes:
        results: Of the jobs.
        rows: To be inserted, with their positions.
        committing: Whether the commit was sent.
        is_first: Whether this is not another attempt.
        inserted: Whether the rows are in the log.
        sent: What was sent in one statement that commits by itself, while its outcome is not known.
        late: What an earlier attempt sent so. It was not in the log, and the server may still execute it.
        moved: The checkpoints that commits move, with their new positions.
    """

    results: list[Any] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    committing: bool = False
    is_first: bool = True
    inserted: bool = False
    sent: Placed | None = None
    late: Placed | None = None
    moved: Mapping[str, int] = field(default_factory=dict)


def requests_of(jobs: Sequence[Job]) -> list[Append]:
    """Everything that ``jobs`` append to the log."""
    return [request for job in jobs if isinstance(job, Commit) for request in job.requests]


def held_by(jobs: Sequence[Job]) -> dict[str, int]:
    """The names that the store has leased, as the commits among ``jobs`` have them."""
    return {
        name: taken for job in jobs if isinstance(job, Commit) for name, taken in (job.held or {}).items()
    }


def with_outcomes(
    jobs: Sequence[Job], results: list[Any], outcomes: Sequence[Appended | UnoError]
) -> list[Any]:
    """The results of all jobs: those of commits from ``outcomes``, the others from ``results``."""
    each = iter(outcomes)
    return [
        list(islice(each, len(job.requests))) if isinstance(job, Commit) else result
        for job, result in zip(jobs, results, strict=True)
    ]


def failure_of(job: Job, error: UnoError) -> Any:
    """The result of a job that failed as a whole with ``error``."""
    return [error] * len(job.requests) if isinstance(job, Commit) else error


def parts_of(jobs: Sequence[Job]) -> list[Job]:
    """``jobs`` split into the smallest parts that can be written alone."""
    return [
        part
        for job in jobs
        for part in (
            [Commit((request,), job.held) for request in job.requests] if isinstance(job, Commit) else [job]
        )
    ]


def joined(jobs: Sequence[Job], results: Sequence[Any]) -> list[Any]:
    """The results of ``jobs`` from those of their `parts_of`."""
    each = iter(results)
    return [
        [outcome for _ in job.requests for outcome in next(each)] if isinstance(job, Commit) else next(each)
        for job in jobs
    ]
