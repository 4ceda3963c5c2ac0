"""The page Dead letters, and what is done with them; ``uno-actors deadletters`` uses the same functions."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from uno_actors.errors import NoDeadLetter
from uno_actors.handlers.control import HandlerControl
from uno_actors.ops.api.endpoint import Answered, Asked, Done, Observed
from uno_actors.ops.api.records import LARGEST_ALONE, EventShown, shown
from uno_actors.printable import bounded
from uno_actors.store.port import EventStore
from uno_actors.store.records import DeadLetter

LONGEST = 300
"""Characters of an error's text in a list."""
LISTED = 500
"""Letters of a list."""


async def chosen(store: EventStore, handler: str, positions: Collection[int] | None) -> list[DeadLetter]:
    """The dead letters of a handler at these positions, or all of them.

    Raises:
        UnknownHandler: No handler of this name has run on the store.
        NoDeadLetter: There is none at one of the positions.
    """
    letters = {letter.position: letter for letter in await HandlerControl(store).dead_letters(handler)}
    for position in positions or ():
        if position not in letters:
            raise NoDeadLetter(handler, position)
    return [letters[each] for each in (letters if positions is None else dict.fromkeys(positions))]


async def drop_letters(store: EventStore, handler: str, positions: Collection[int] | None) -> int:
    """Remove dead letters of a handler, or all of them; the handler never handles their events. Return their number.

    Raises:
        UnknownHandler, NoDeadLetter: See `chosen`.
    """
    letters = await chosen(store, handler, positions)
    await store.save_progress({}, dropped=[(letter.handler, letter.position) for letter in letters])
    return len(letters)


def letter_fields(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for JSON, without its traceback."""
    times = {"first_failed": letter.first_failed.isoformat(), "last_failed": letter.last_failed.isoformat()}
    fields = {**letter._asdict(), **times}
    del fields["traceback"]
    return fields


def reason_of(error: str) -> str:
    """What the texts of similar errors have in common: words with digits or quotes are left out."""
    words = error.split("\n", 1)[0].split()
    plain = ["…" if any(c.isdigit() or c in "'\"" for c in word) else word for word in words]
    joined = [word for place, word in enumerate(plain) if word != "…" or plain[place - 1 : place] != ["…"]]
    return bounded(" ".join(joined), LONGEST)


class LetterShown(Answered):
    """An event that a handler could not handle.

    Attributes:
        handler: Its name; with ``position`` it names the letter.
        position: Place of the event in the log.
        reason: What the texts of similar errors have in common.
        is_retried: Whether the handler is to try it once more.
    """

    handler: str
    position: int
    event_type: str
    attempts: int
    error: str
    reason: str
    first_failed: datetime
    last_failed: datetime
    is_retried: bool


class LetterGroup(Answered):
    """Letters of one handler with similar errors.

    Attributes:
        positions: Those of all its letters.
        last_failed: The latest time.
    """

    handler: str
    reason: str
    positions: list[int]
    last_failed: datetime


class DeadLetters(Answered):
    """Dead letters.

    Attributes:
        groups: All, by handler and reason; the largest group first.
        letters: Those that were asked for, at most `LISTED`, the latest failure first.
        total: Number of all letters.
    """

    groups: list[LetterGroup]
    letters: list[LetterShown]
    total: int


class AskedLetters(Asked):
    """Which letters are listed.

    Attributes:
        handler: Only those of this handler.
        reason: Only those with this reason.
        limit: At most so many.
    """

    handler: str | None = None
    reason: str | None = None
    limit: int = Field(LISTED, ge=0, le=LISTED)


async def dead_letters(observed: Observed, asked: AskedLetters) -> DeadLetters:
    """Dead letters, in groups by handler and reason."""
    store = observed.source.store
    letters = await store.dead_letters()
    retried = await _retried(store)
    groups: defaultdict[tuple[str, str], list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        groups[letter.handler, reason_of(letter.error)].append(letter)
    wanted = [
        letter
        for (handler, reason), each in groups.items()
        for letter in each
        if asked.handler in (None, handler) and asked.reason in (None, reason)
    ]
    wanted.sort(key=lambda letter: (letter.last_failed, letter.position), reverse=True)
    return DeadLetters(
        groups=sorted(
            (_group(*name, each) for name, each in groups.items()), key=lambda one: -len(one.positions)
        ),
        letters=[_shown(letter, retried) for letter in wanted[: asked.limit]],
        total=len(letters),
    )


async def _retried(store: EventStore) -> set[tuple[str, int]]:
    requests = await HandlerControl(store).requests()
    return {(name, position) for name, each in requests.items() for position in each.retry}


def _group(handler: str, reason: str, letters: Sequence[DeadLetter]) -> LetterGroup:
    return LetterGroup(
        handler=handler,
        reason=reason,
        positions=[letter.position for letter in letters],
        last_failed=max(letter.last_failed for letter in letters),
    )


def _shown(letter: DeadLetter, retried: Collection[tuple[str, int]]) -> LetterShown:
    return LetterShown(
        handler=letter.handler,
        position=letter.position,
        event_type=letter.event_type,
        attempts=letter.attempts,
        error=bounded(letter.error, LONGEST),
        reason=reason_of(letter.error),
        first_failed=letter.first_failed,
        last_failed=letter.last_failed,
        is_retried=(letter.handler, letter.position) in retried,
    )


class AskedLetter(Asked):
    """One letter."""

    handler: str
    position: int = Field(ge=1, lt=2**63)


class WholeLetter(Answered):
    """A dead letter with its event and the traceback of the last attempt."""

    letter: LetterShown
    error: str
    traceback: str
    event: EventShown


async def dead_letter(observed: Observed, asked: AskedLetter) -> WholeLetter:
    """One dead letter: its event, and the traceback of the last attempt."""
    store = observed.source.store
    (letter,) = await chosen(store, asked.handler, [asked.position])
    return WholeLetter(
        letter=_shown(letter, await _retried(store)),
        error=letter.error,
        traceback=letter.traceback,
        event=shown(await store.record_at(asked.position), LARGEST_ALONE),
    )


class ChosenLetters(Asked):
    """Letters of one handler.

    Attributes:
        handler: Its name.
        positions: Those of the letters; ``None`` for all.
    """

    handler: str
    positions: list[int] | None = Field(max_length=100_000)


async def retry(observed: Observed, asked: ChosenLetters) -> Done:
    """Let a handler try dead letters once more, each between two other events of the log."""
    return Done(count=await observed.source.retry(asked.handler, asked.positions))


async def drop(observed: Observed, asked: ChosenLetters) -> Done:
    """Remove dead letters; the handler never handles their events."""
    return Done(count=await drop_letters(observed.source.store, asked.handler, asked.positions))
