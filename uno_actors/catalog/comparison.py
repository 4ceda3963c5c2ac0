"""What the changes from one program to the next mean for what is recorded, and for programs that use both."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from uno_actors.catalog.fitting import Fit
from uno_actors.catalog.values import Catalog, CommandEntry, EventEntry, ModelEntry

Verdict = Literal["breaks", "needs an upcast", "compatible"]
VERDICTS: tuple[Verdict, ...] = ("breaks", "needs an upcast", "compatible")
"""The gravest first."""

M = TypeVar("M", EventEntry, CommandEntry)


@dataclass(frozen=True, slots=True)
class Change:
    """A change from an old program to a new one.

    Attributes:
        verdict: ``compatible``: the new program reads what the old one has written. ``needs an upcast``: it does once a
            step is registered. ``breaks``: neither.
        kind: Of what has changed.
        name: Its name in the old program; in the new one if it is new.
        field: The field, if one field has changed.
        reason: What has changed, and the remedy.
    """

    verdict: Verdict
    kind: Literal["event", "command"]
    name: str
    field: str | None
    reason: str


def compare(old: Catalog, new: Catalog) -> tuple[Change, ...]:
    """All changes from ``old`` to ``new``, the gravest first."""
    changes = [*_events(old, new), *_commands(old, new)]
    return tuple(sorted(changes, key=lambda change: VERDICTS.index(change.verdict)))


# --- events ------------------------------------------------------------------------------------------------


def _events(old: Catalog, new: Catalog) -> Iterator[Change]:
    fit = Fit(old.models, new.models, judged=False)
    for before in old.events:
        after = _nearest(before, [event for event in new.events if before.name in event.names])
        if after is None:
            reason = (
                f"no class reads it any more: keep the class, or write @register_event(name={before.name!r}) above the"
                " class that replaces it"
            )
            yield Change("breaks", "event", before.name, None, reason)
            continue
        yield from _of_event(before, after, fit)
        for name in sorted(set(before.names) - {before.name} - _names(new)):
            reason = (
                f"events recorded as {name!r} are not read any more: write @register_event(name={name!r})"
            )
            yield Change("breaks", "event", before.name, None, reason)
    known = _names(old)
    for event in new.events:
        if known.isdisjoint(event.names):
            yield Change("compatible", "event", event.name, None, "it is new")


def _names(catalog: Catalog) -> set[str]:
    return {name for event in catalog.events for name in event.names}


def _nearest(entry: M, found: list[M]) -> M | None:
    """The one of ``found`` that stands for ``entry``: the same class, else that of the same aggregate."""
    same = [each for each in found if each.code == entry.code]
    near = [each for each in found if set(_aggregates(each)) & set(_aggregates(entry))]
    return next(iter(same or near or found), None)


def _aggregates(entry: EventEntry | CommandEntry) -> tuple[str, ...]:
    return entry.registered_by if isinstance(entry, EventEntry) else entry.handled_by


def _of_event(before: EventEntry, after: EventEntry, fit: Fit) -> Iterator[Change]:
    changes = [*_of_versions(before, after, fit), *_of_surroundings(before, after)]
    yield from (Change(verdict, "event", before.name, field, reason) for verdict, reason, field in changes)


def _of_versions(
    before: EventEntry, after: EventEntry, fit: Fit
) -> Iterator[tuple[Verdict, str, str | None]]:
    """What today's class makes of the payloads that are recorded."""
    if before.name != after.name:
        yield "compatible", f"{after.name} reads it", None
    if after.version < before.version:
        reason = f"version {before.version} is recorded, and the class has version {after.version}: raise it"
        yield "breaks", reason, None
    elif after.version == before.version:
        for field, reason, fits in _of_fields(before.model, after.model, fit):
            remedy = f"; write `version: int = {after.version + 1}` and {_step(after.name, after.version)}"
            verdict: Verdict = "compatible" if fits else "needs an upcast"
            yield verdict, reason if fits else f"{reason}{remedy}", field
    for version in sorted({*before.upcasts, *range(before.version, after.version)} - {*after.upcasts}):
        if version < after.version:
            gone = "is gone" if version in before.upcasts else "is missing"
            yield (
                "needs an upcast",
                f"the step from version {version} {gone}: {_step(after.name, version)}",
                None,
            )
    if after.version > before.version and {*range(before.version, after.version)} <= {*after.upcasts}:
        yield "compatible", f"version {after.version} reads version {before.version} through upcasts", None


def _of_surroundings(before: EventEntry, after: EventEntry) -> Iterator[tuple[Verdict, str, str | None]]:
    """What aggregates and handlers make of the event."""
    if before.topic != after.topic:
        verdict: Verdict = "compatible" if before.topic is None else "breaks"
        subscribers = (
            "" if before.topic is None else f": subscribers of {before.topic} do not receive new events"
        )
        yield verdict, f"its topic was {before.topic} and is {after.topic}{subscribers}", None
    for aggregate in sorted(set(before.registered_by) - set(after.registered_by)):
        reason = f"{aggregate} does not apply it any more, and its streams hold it: keep the apply_ method"
        yield "breaks", reason, None
    old, new = ({each.name for each in event.handled_by} for event in (before, after))
    for names, verb in ((old - new, "does not receive it any more"), (new - old, "receives it")):
        for each in sorted(names):
            yield "compatible", f"{each} {verb}", None


def _step(name: str, version: int) -> str:
    return f"register @upcasts({name!r}, from_version={version})"


# --- commands ----------------------------------------------------------------------------------------------


def _commands(old: Catalog, new: Catalog) -> Iterator[Change]:
    fit = Fit(old.models, new.models, judged=True)
    for before in old.commands:
        after = _nearest(before, [command for command in new.commands if command.name == before.name])
        lost = sorted(set(before.handled_by) - set(() if after is None else after.handled_by))
        for aggregate in lost:
            reason = (
                f"{aggregate} does not handle it any more; its senders, schedules and processes still send it"
            )
            yield Change("breaks", "command", before.name, None, reason)
        if after is None:
            continue
        for field, reason, fits in _of_fields(before.model, after.model, fit):
            yield Change("compatible" if fits else "breaks", "command", before.name, field, reason)
        if before.reply != after.reply:
            reason = f"its reply was {before.reply} and is {after.reply}: its senders may take it for another"
            yield Change("breaks", "command", before.name, None, reason)
    known = {command.name for command in old.commands}
    for command in new.commands:
        if command.name not in known:
            yield Change("compatible", "command", command.name, None, "it is new")


# --- fields ------------------------------------------------------------------------------------------------


def _of_fields(old: ModelEntry, new: ModelEntry, fit: Fit) -> Iterator[tuple[str | None, str, bool]]:
    """The changed fields, each with the reason, and whether old values fit."""
    faulty = set()
    for name, reason in fit.faults(old, new):
        faulty.add(name)
        yield name or None, reason, False
    if "" in faulty:
        return
    for name in sorted((old.fields.keys() | new.fields.keys()) - faulty):
        before, after = old.fields.get(name), new.fields.get(name)
        if before is None:
            yield name, "the field is new and has a default", True
        elif after is None:
            yield (
                name,
                "the field is gone, and what old payloads have there is ignored or kept as it is",
                True,
            )
        elif before.type != after.type:
            yield name, f"{before.type} has become {after.type}, which reads it", True
        elif not fit.is_same(before.shape, after.shape):
            yield name, f"{after.type} has changed, and old values fit", True
        elif (before.required, before.default) != (after.required, after.default):
            yield name, f"its default was {_default(before.default)} and is {_default(after.default)}", True


def _default(text: str | None) -> str:
    return "absent" if text is None else text
