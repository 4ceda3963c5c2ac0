"""What old and new code report, brought together: pure, and independent of the order in which it comes in."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from uno_actors.printable import bounded, counted
from uno_actors.rehearsal.findings import Finding
from uno_actors.rehearsal.reading import LONGEST, Judged, Kind, Readable
from uno_actors.rehearsal.states import text_of
from uno_actors.store.codec import StreamId

Name = Literal["old", "new"]
EXAMPLES = 10
"""Streams that are looked at closely for each field that differs."""
FEW_NAMES = 5
FRAMEWORK = "uno_actors."
"""How the names of the framework's own events and streams begin."""


@dataclass
class Parted:
    """A field of a type of aggregates whose values differ.

    Attributes:
        count: Number of aggregates.
        missing: In which program the field is missing everywhere so far; ``None`` if both have it.
        examples: Some of the streams, with their versions.
    """

    count: int = 0
    missing: Name | None = None
    examples: list[tuple[StreamId, int]] = field(default_factory=list)


@dataclass
class Failing:
    """Aggregates of one type that one program cannot load.

    Attributes:
        count: Number of aggregates.
        stream: The first by its name.
        reason: Why that cannot be loaded.
    """

    count: int
    stream: StreamId
    reason: str

    def add(self, stream: StreamId, reason: str) -> None:
        """Count one more."""
        self.count += 1
        if stream < self.stream:
            self.stream, self.reason = stream, reason


def _length(example: tuple[StreamId, int]) -> tuple[int, StreamId]:
    """By which the shortest of several examples is found, the same one each time."""
    stream, version = example
    return version, stream


Result = tuple[Mapping[str, bytes] | None, str, int]


class ComparedStreams:
    """Matches the streams of both programs as they are reported.

    Attributes:
        equal: Number of streams whose states are equal.
        compared: Number of streams that both programs have loaded.
        parted: What differs, by type and field.
        failing: What only one program can load, by program that fails and type.
        both_fail: What neither can load, by type.
    """

    def __init__(self) -> None:
        self.equal = 0
        self.compared = 0
        self.parted: dict[tuple[str, str], Parted] = {}
        self.failing: dict[tuple[Name, str], Failing] = {}
        self.both_fail: dict[str, Failing] = {}
        self._waiting: dict[Name, dict[StreamId, Result]] = {"old": {}, "new": {}}

    def add(self, name: Name, streams: Iterable[Sequence[Any]]) -> None:
        """Take in streams of one program: type, id, version, digests by field or ``None``, failure."""
        other: Name = "new" if name == "old" else "old"
        mine, others = self._waiting[name], self._waiting[other]
        for aggregate_type, aggregate_id, version, digests, failure in streams:
            stream, result = StreamId(aggregate_type, aggregate_id), (digests, failure, version)
            counterpart = others.pop(stream, None)
            if counterpart is None:
                mine[stream] = result
            elif name == "old":
                self._compare(stream, result, counterpart)
            else:
                self._compare(stream, counterpart, result)

    def _compare(self, stream: StreamId, old: Result, new: Result) -> None:
        (olds, why_old, version), (news, why_new, _) = old, new
        if olds is None or news is None:
            self._note_failure(stream, why_old, why_new)
            return
        self.compared += 1
        if olds == news:
            self.equal += 1
            return
        for name in olds.keys() | news.keys():
            if olds.get(name) == news.get(name):
                continue
            parted = self.parted.setdefault((stream.aggregate_type, name), Parted())
            missing: Name | None = "old" if name not in olds else "new" if name not in news else None
            parted.missing = missing if not parted.count or missing == parted.missing else None
            parted.count += 1
            parted.examples.append((stream, version))
            if len(parted.examples) > EXAMPLES:
                parted.examples.remove(max(parted.examples, key=_length))

    def _note_failure(self, stream: StreamId, why_old: str, why_new: str) -> None:
        kind = stream.aggregate_type
        if why_old and why_new:
            self.both_fail.setdefault(kind, Failing(0, stream, why_new)).add(stream, why_new)
        elif why_new:
            self.failing.setdefault(("new", kind), Failing(0, stream, why_new)).add(stream, why_new)
        else:
            self.failing.setdefault(("old", kind), Failing(0, stream, why_old)).add(stream, why_old)

    def findings(self) -> Iterator[Finding]:
        """The aggregates that a program cannot load."""
        for (name, kind), failing in self.failing.items():
            example = f"{failing.stream} {failing.reason}"
            if name == "new":
                remedy = "mend the upcast or the apply_ method that raises: a replay must take every recorded event"
                yield Finding("grave", "cannot be loaded", kind, failing.count, example, remedy)
            else:
                yield Finding("note", "is loaded by the new code alone", kind, failing.count, example)
        for kind, failing in self.both_fail.items():
            example = f"{failing.stream} {failing.reason}"
            yield Finding("note", "is loaded by neither", kind, failing.count, example)


# --- events ------------------------------------------------------------------------------------------------


def event_findings(old: Mapping[Any, Readable], new: Mapping[Any, Readable]) -> Iterator[Finding]:
    """The kinds of events that a program cannot read, by name and version."""
    for kind in sorted(old.keys() | new.keys()):
        name, version = kind
        before, after = old.get(kind, Readable()), new.get(kind, Readable())
        of = f"{name} v{version}"
        if after.unreadable > before.unreadable:
            count = after.unreadable
            example = f"position {after.position}: {after.reason}"
            remedy = remedy_for(name, version, after.error)
            yield Finding("grave", "cannot be read", of, count, example, remedy)
        elif after.unreadable:
            example = f"position {after.position}: {after.reason}"
            yield Finding("note", "is read by neither", of, after.unreadable, example)
        elif before.unreadable:
            example = f"position {before.position}: {before.reason}"
            yield Finding("note", "is read by the new code alone", of, before.unreadable, example)


def remedy_for(name: str, version: int, error: str) -> str:
    """What makes an event readable, by the class of the error."""
    match error:
        case "UnknownEventType":
            return f"keep its class, or register the old name on the new one: @register_event(name={name!r})"
        case "AmbiguousEventType":
            return (
                "give one of the classes another name: event_type in the class, or @register_event(name=...)"
            )
        case "CorruptRecord":
            return "the record is damaged: rehearse on another backup"
        case _:
            step = f"@upcasts({name!r}, from_version={version})"
            return f"give it an upcast: {step}, and the class version: int = {version + 1} or more"


def why_nothing_is_read(old: Mapping[Kind, Readable], new: Mapping[Kind, Readable]) -> str:
    """Why two programs cannot be called equal: neither reads any event that a program has recorded; else empty."""
    theirs = {kind: each for kind, each in new.items() if not kind[0].startswith(FRAMEWORK)}
    if not theirs or any(kinds[kind].count for kinds in (old, new) for kind in theirs.keys() & kinds.keys()):
        return ""
    (name, version), first = min(theirs.items(), key=lambda item: item[1].position)
    return (
        f"neither program reads any event of the store, such as {name} v{version} at position {first.position:,}:"
        f" {first.reason}. Name all modules of the program, or its configuration file"
    )


def unknown_findings(
    old: Mapping[str, int], new: Mapping[str, int], old_types: Iterable[str]
) -> Iterator[Finding]:
    """The types of aggregates for which the programs have no class."""
    had = set(old_types)
    for kind, count in sorted(new.items()):
        if kind in had:
            remedy = f"keep the class; if it was renamed, set aggregate_type = {kind!r} on the new one"
            yield Finding("grave", "has no class any more", kind, count, counted(count, "stream"), remedy)
        elif not kind.startswith(FRAMEWORK):
            yield Finding("note", "has no class in either", kind, count, counted(count, "stream"))
    for kind, count in sorted(old.items()):
        if kind not in new and not kind.startswith(FRAMEWORK):
            yield Finding("note", "has a class in the new code alone", kind, count, counted(count, "stream"))


# --- snapshots ---------------------------------------------------------------------------------------------


def merged(parts: Iterable[Mapping[str, Sequence[Any]]]) -> dict[str, Judged]:
    """The snapshots that several workers have judged, together."""
    found: dict[str, Judged] = {}
    for part in parts:
        for kind, fields in part.items():
            judged, so_far = Judged(*fields), found.get(kind, Judged())
            example = judged if judged.comes_before(so_far) else so_far
            found[kind] = example._replace(
                used=judged.used + so_far.used,
                ignored=judged.ignored + so_far.ignored,
                wrong=judged.wrong + so_far.wrong,
            )
    return found


def snapshot_findings(judged: Mapping[str, Judged]) -> Iterator[Finding]:
    """Snapshots that the new code would use although they are wrong, and those that it would ignore."""
    for kind, each in sorted(judged.items()):
        example = f"{each.stream} at version {each.version}: {each.reason}"
        if each.wrong:
            remedy = f"raise schema_version of {kind}: its snapshots are then ignored, and taken anew"
            yield Finding("grave", "snapshot is wrong", kind, each.wrong, example, remedy)
        if each.ignored:
            example = example if not each.wrong else "the first load of each replays all of its events"
            yield Finding("note", "snapshot is ignored", kind, each.ignored, example)


# --- views -------------------------------------------------------------------------------------------------


class ComparedViews:
    """The rows of views that both programs have built.

    Attributes:
        rows: Digests of values by view and key, for each program.
    """

    def __init__(self) -> None:
        self.rows: dict[Name, dict[str, dict[bytes, bytes]]] = {"old": {}, "new": {}}

    def add(self, name: Name, view: str, rows: Iterable[Sequence[bytes]]) -> None:
        """Take in rows of a view of one program."""
        self.rows[name].setdefault(view, {}).update((key, digest) for key, digest in rows)

    def parted(self, view: str) -> list[bytes]:
        """The keys whose values differ, or which only one program has; sorted."""
        old, new = self.rows["old"].get(view, {}), self.rows["new"].get(view, {})
        return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def failure_findings(
    old: Mapping[str, Mapping[str, Sequence[Any]]], new: Mapping[str, Mapping[str, Sequence[Any]]]
) -> Iterator[Finding]:
    """The events that projections cannot handle, by view and class of error."""
    for view, errors in sorted(new.items()):
        for error, (count, position, reason) in sorted(errors.items()):
            before = old.get(view, {}).get(error, (0, 0, ""))[0]
            example = f"position {position}: {reason}"
            if count > before:
                remedy = "mend handle(): in production these events become dead letters"
                yield Finding("grave", "view cannot count", view, count, example, remedy)
            else:
                yield Finding("note", "view cannot count, as before", view, count, example)


# --- commands ----------------------------------------------------------------------------------------------


def decision_text(decision: Sequence[Any]) -> str:
    """A decision in a few words."""
    outcome, reason, events, reply = decision
    if outcome != "accepted":
        return f"{outcome}: {bounded(reason, LONGEST)}"
    names = ", ".join(f"{name}{text_of(form, 60)}" for name, form in events[:FEW_NAMES]) or "no event"
    return f"accepted with {names}" + (f", reply {text_of(reply, 40)}" if reply is not None else "")


# --- parts of several workers -------------------------------------------------------------------------------


def kinds_in(answers: Sequence[Mapping[str, Any]]) -> dict[Kind, Readable]:
    """The kinds of events that several workers have read, together."""
    found: dict[Kind, Readable] = {}
    for answer in answers:
        for name, version, *fields in answer["kinds"]:
            each, so_far = Readable(*fields), found.get((name, version))
            if so_far is not None:
                first = so_far if so_far.unreadable or not each.unreadable else each
                each = replace(
                    first, count=so_far.count + each.count, unreadable=so_far.unreadable + each.unreadable
                )
            found[name, version] = each
    return found


def sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts of several workers by name, added up."""
    found: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            found[name] = found.get(name, 0) + count
    return found


def joined(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several workers have found, each name by one of them."""
    found: dict[str, Any] = {}
    for part in parts:
        found.update(part)
    return found
