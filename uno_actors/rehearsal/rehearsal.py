"""A rehearsal from its beginning to its report."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from uno_actors.errors import InvalidStoreUrl
from uno_actors.rehearsal.chance import CHANCE, comparable, comparable_decisions
from uno_actors.rehearsal.comparison import (
    ComparedStreams,
    ComparedViews,
    Name,
    Parted,
    decision_text,
    event_findings,
    failure_findings,
    joined,
    kinds_in,
    merged,
    snapshot_findings,
    sums,
    unknown_findings,
    why_nothing_is_read,
)
from uno_actors.rehearsal.decisions import RecordedCommand
from uno_actors.rehearsal.findings import Finding, Numbers, Report, in_order
from uno_actors.rehearsal.places import placed
from uno_actors.rehearsal.planning import Plan, plan
from uno_actors.rehearsal.reading import Kind, Readable
from uno_actors.rehearsal.recorded_commands import recorded_commands
from uno_actors.rehearsal.sides import CodeFailed, Side
from uno_actors.rehearsal.states import LIST, Form, difference, is_same
from uno_actors.store.codec import StreamId
from uno_actors.store.maintenance import Progress
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore
from uno_actors.store_urls import below

STEPS = 256
"""Versions that are compared at a time in the search for the event at which two states part."""
MOST_TRACED = 50
"""Fields whose differences are traced to an event."""

MOST_ROWS = 50
"""Rows of a view of which the parts that are not left to chance are compared."""

NAMES: tuple[Name, Name] = ("old", "new")


class Rehearsed(NamedTuple):
    """What to rehearse.

    Attributes:
        url: Of the store.
        sources: A configuration file, or modules.
        old: A directory, a virtual environment or a revision.
        new: Likewise.
        paths: Directories of packages below the root of a program; none for the usual ones.
        sample: Number of streams of each type; ``None`` for all.
        since: Only streams with an event at this time or later.
        until: No event from the first one that is later.
        commands: Number of recorded commands to decide again.
        accepted: Names of findings that are meant.
        processes: Processes in all; at least one for each program.
    """

    url: str
    sources: tuple[str, ...]
    old: str
    new: str
    paths: tuple[str, ...] = ()
    sample: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    commands: int = 0
    accepted: frozenset[str] = frozenset()
    processes: int = 2


def rehearse(wanted: Rehearsed, here: Path, progress: Progress) -> Report:
    """Rehearse an upgrade.

    Args:
        wanted: What to rehearse.
        here: The working directory of the user.
        progress: Called with the events that were read and those to read, from any thread.

    Raises:
        NoSuchPlace: One of the programs cannot be found.
        CodeFailed: One cannot be loaded.
        InvalidStoreUrl, StoreUnavailable, StoreFormatError, CorruptRecord: The store cannot be read.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        store = open_store(wanted.url, read_only=True)
        stack.callback(lambda: runner.run(store.close()))
        old = stack.enter_context(placed(wanted.old, wanted.paths, here))
        new = stack.enter_context(placed(wanted.new, wanted.paths, here))
        workers = max(1, wanted.processes // 2)
        given = workers, _absolute(wanted.url, here), list(wanted.sources)
        sides: dict[Name, Side] = {
            "old": stack.enter_context(Side("old", old, *given)),
            "new": stack.enter_context(Side("new", new, *given)),
        }
        _begin(sides)
        _check_is_theirs(sides)
        planned = runner.run(
            plan(store, workers, sample=wanted.sample, since=wanted.since, until=wanted.until)
        )
        work = _Rehearsal(sides, planned, store, runner, progress)
        findings = work.run()
        if reason := why_nothing_is_read(*work.kinds.values()):
            raise CodeFailed(reason)
        commands = 0
        if wanted.commands:
            recorded = runner.run(recorded_commands(store, planned.ends, wanted.commands))
            commands = len(recorded)
            findings += work.decided(recorded)
        numbers = work.numbers()._replace(commands=commands, seconds=time.monotonic() - began)
        return Report(old.title, new.title, numbers, in_order(findings, wanted.accepted))


def _absolute(url: str, here: Path) -> str:
    """The URL for processes in another directory."""
    try:
        return below(here, url)
    except ValueError as error:
        raise InvalidStoreUrl(url, [], str(error)) from None


def _begin(sides: dict[Name, Side]) -> None:
    """Start both programs at the same time.

    Raises:
        CodeFailed: One cannot be loaded.
    """
    for side in sides.values():
        side.start()
    _finished([load for side in sides.values() for load in side.load()])


def _check_is_theirs(sides: dict[Name, Side]) -> None:
    """Refuse to compare code with itself because both programs import it from the same place."""
    files = {name: {file for file in side.program["types"].values() if file} for name, side in sides.items()}
    for name, side in sides.items():
        place = side.place
        inside = [file for file in files[name] if Path(file).is_relative_to(place.root)]
        if place.paths and files[name] and not inside:
            raise CodeFailed(
                f"the {name} code is not that of {place.given}: its classes come from {min(files[name])}. Name the"
                " directory of its packages by --path, as in --path lib"
            )
    if files["old"] and files["old"] == files["new"] and sides["old"].place.given != sides["new"].place.given:
        raise CodeFailed(
            f"old and new code are the same: both import {min(files['old'])}. In a virtual environment the program must"
            " be installed, and not in editable mode"
        )


class _Rehearsal:
    """One rehearsal under way."""

    def __init__(
        self,
        sides: dict[Name, Side],
        planned: Plan,
        store: EventStore,
        runner: asyncio.Runner,
        progress: Progress,
    ) -> None:
        self._sides = sides
        self._plan = planned
        self._store = store
        self._runner = runner
        self._progress = progress
        self._lock = Lock()
        self._done: dict[tuple[Name, int], int] = {}
        self._streams = ComparedStreams()
        self._views = ComparedViews()
        self.kinds: dict[Name, dict[Kind, Readable]] = {}
        self._judged = 0
        self._shared_views = sorted(
            set(sides["old"].program["views"]).intersection(sides["new"].program["views"])
        )

    def numbers(self) -> Numbers:
        """What was compared."""
        rows = self._views.rows["new"]
        return Numbers(
            self._plan.events,
            self._streams.compared,
            len(self.kinds["old"].keys() | self.kinds["new"].keys()),
            len(rows.keys() & self._views.rows["old"].keys()),
            sum(map(len, rows.values())),
            self._judged,
        )

    def run(self) -> list[Finding]:
        """Let both programs read the log; what differs."""
        answers = self._read()
        self.kinds = kinds = {name: kinds_in(answers[name]) for name in NAMES}
        unknown = {name: sums(answer["unknown"] for answer in answers[name]) for name in NAMES}
        judged = merged(answer["judged"] for answer in answers["new"])
        self._judged = sum(sum(each[:3]) for each in judged.values())
        failures = {name: joined(answer["failures"] for answer in answers[name]) for name in NAMES}
        return [
            *event_findings(kinds["old"], kinds["new"]),
            *unknown_findings(unknown["old"], unknown["new"], self._sides["old"].program["types"]),
            *self._streams.findings(),
            *self._state_findings(),
            *snapshot_findings(judged),
            *failure_findings(failures["old"], failures["new"]),
            *self._view_findings(),
            *self._left_out(),
        ]

    def _read(self) -> dict[Name, list[dict[str, Any]]]:
        parts = self._plan.parts
        tasks = [(0, True)] if parts == 1 else [(-1, True), *((part, False) for part in range(parts))]
        total = self._plan.events * len(tasks) * len(NAMES)
        reads: dict[Name, list[Future[dict[str, Any]]]] = {"old": [], "new": []}
        for part, views in tasks:
            for name in NAMES:
                heard = self._listener(name, part, total)
                reads[name].append(self._read_part(name, part, heard, views=views))
        _finished([read for each in reads.values() for read in each])
        self._progress(total, total)
        return {name: [read.result() for read in reads[name]] for name in NAMES}

    def _read_part(
        self, name: Name, part: int, heard: Callable[[str, Any], object], *, views: bool
    ) -> "Future[dict[str, Any]]":
        return self._sides[name].read(
            heard,
            ends=list(self._plan.ends),
            part=part,
            parts=self._plan.parts,
            chosen=None if self._plan.chosen is None else list(map(list, self._plan.chosen)),
            views=views,
            snapshots=self._plan.has_snapshots and name == "new",
        )

    def _listener(self, name: Name, part: int, total: int) -> Callable[[str, Any], None]:
        def heard(what: str, contents: Any) -> None:
            with self._lock:
                if what == "progress":
                    self._done[name, part] = contents
                    self._progress(min(sum(self._done.values()), total), total)
                elif what == "streams":
                    self._streams.add(name, contents)
                else:
                    self._views.add(name, what.removeprefix("rows "), contents)

        return heard

    # --- states ---

    def _state_findings(self) -> Iterator[Finding]:
        ranked = sorted(self._streams.parted.items(), key=lambda item: (-item[1].count, item[0]))
        others: dict[str, list[tuple[str, Parted]]] = {}
        for number, ((kind, field), parted) in enumerate(ranked):
            of = f"{kind}.{field}"
            if parted.missing is not None:
                what = "state has a new field" if parted.missing == "old" else "state has lost a field"
                example = str(parted.examples[0][0])
                yield Finding(
                    "difference", what, of, parted.count, example, f"if that is meant, --accept {of}"
                )
            elif number >= MOST_TRACED:
                others.setdefault(kind, []).append((field, parted))
            else:
                yield self._traced(of, field, parted)
        for kind, fields in others.items():
            (field, parted), *_ = fields
            example = f"{field} of {parted.examples[0][0]}"
            yield Finding("difference", "state differs in more fields", kind, len(fields), example)

    def _traced(self, of: str, field: str, parted: Parted) -> Finding:
        """The difference in a field, with the event that made it, or that it is left to chance."""
        stream, version = min(parted.examples, key=lambda each: (each[1], each[0]))
        chance = [name for name in NAMES if not is_same(*self._twice(name, stream, version, field))]
        if chance:
            return self._beside_chance(chance, of, field, parted)
        at = self._first_parted(stream, version, field)
        record = self._runner.run(self._store.read_stream(stream, at - 1, 1))[0]
        before, after = (
            self._sides[name].ask("state", stream=list(stream), version=at).get(field) for name in NAMES
        )
        found = difference(before, after)
        values = (
            ""
            if found is None
            else f": {field}{found.path} is {found.old} in the old code, {found.new} in the new"
        )
        example = (
            f"{stream} from version {at:,} on ({record.record.event_type} v{record.record.version} at position"
            f" {record.position:,}){values}"
        )
        remedy = f"mend what applies {record.record.event_type}; if the change is meant, --accept {of}"
        return Finding("difference", "state differs", of, parted.count, example, remedy)

    def _beside_chance(self, chance: Sequence[Name], of: str, field: str, parted: Parted) -> Finding:
        """The difference in a field that is partly left to chance: in its other parts, or none but chance."""
        examples = sorted(parted.examples, key=lambda each: (each[1], each[0]))
        for stream, version in examples:
            twice = [self._twice(name, stream, version, field) for name in NAMES]
            found = difference(*comparable(*twice))
            if found is not None:
                example = (
                    f"{stream} at version {version:,}: {field}{found.path} is {found.old} in the old code, {found.new}"
                    " in the new; other parts are left to chance"
                )
                remedy = f"mend what sets {field}; if the change is meant, --accept {of}"
                return Finding("difference", "state differs", of, parted.count, example, remedy)
        (stream, version), *_ = examples
        return _by_chance(chance, "state", of, parted.count, f"{stream} at version {version:,}")

    def _twice(self, name: Name, stream: StreamId, version: int, field: str) -> list[Form]:
        """The form of a field, loaded twice."""
        return [
            self._sides[name].ask("state", stream=list(stream), version=version).get(field) for _ in range(2)
        ]

    def _first_parted(self, stream: StreamId, version: int, field: str) -> int:
        """The version of the first event after which a field differs, in steps that become smaller."""
        after, until = 0, version
        while True:
            every = max(1, (until - after) // STEPS)
            traces = [
                self._sides[name].ask(
                    "trace", stream=list(stream), field=field, after=after, until=until, every=every
                )
                for name in NAMES
            ]
            before = after
            for (at, old), (_, new) in zip(*traces, strict=True):
                if old != new:
                    after, until = before, at
                    break
                before = at
            if every == 1:
                return until

    # --- views ---

    def _view_findings(self) -> Iterator[Finding]:
        versions = {name: self._sides[name].program["views"] for name in NAMES}
        left_out = {view for side in self._sides.values() for view in side.program["left_out"]}
        for view in sorted((versions["old"].keys() ^ versions["new"].keys()) - left_out):
            what = "view is new" if view in versions["new"] else "view is not kept any more"
            yield Finding("note", what, view, 1, "")
        parted = {view: keys for view in self._shared_views if (keys := self._views.parted(view))}
        first = {
            (view, key): self._row(view, key) for view, keys in parted.items() for key in keys[:MOST_ROWS]
        }
        chance = self._rows_by_chance() if parted else {}
        for view, keys in parted.items():
            names = [name for name in NAMES if chance[name].get(view)]
            by_chance = [
                key
                for key in keys
                if any(key in chance[name].get(view, ()) for name in NAMES)
                and self._differs_by_chance(first.get((view, key)), view, key)
            ]
            left = sorted(set(keys) - set(by_chance))
            if by_chance:
                example = self._row_text(view, by_chance[0])
                yield _by_chance(names, "view", view, len(by_chance), example)
            if not left:
                continue
            example = self._row_text(view, left[0], first.get((view, left[0])))
            old, new = versions["old"][view], versions["new"][view]
            if old != new:
                yield Finding(
                    "note", f"view differs, and is rebuilt as version {new}", view, len(left), example
                )
            else:
                remedy = f"raise its version, so that it is rebuilt; if no rebuild is needed, --accept {view}"
                yield Finding("difference", "view differs", view, len(left), example, remedy)

    def _rows_by_chance(self) -> dict[Name, dict[str, set[bytes]]]:
        """The keys whose values differ when the same code builds the view again."""
        again = ComparedViews()

        def listener(name: Name) -> Callable[[str, Any], None]:
            def heard(what: str, contents: Any) -> None:
                if what.startswith("rows "):
                    with self._lock:
                        again.add(name, what.removeprefix("rows "), contents)

            return heard

        _finished([self._read_part(name, -1, listener(name), views=True) for name in NAMES])
        return {
            name: {
                view: {key for key in rows.keys() | second.keys() if rows.get(key) != second.get(key)}
                for view, rows in self._views.rows[name].items()
                for second in [again.rows[name].get(view, {})]
            }
            for name in NAMES
        }

    def _row(self, view: str, key: bytes) -> list[Form]:
        """The form of a row in each program, as a list without a value if it has none; of the last run."""
        return [[LIST, *self._sides[name].ask_views("row", view=view, key=key)] for name in NAMES]

    def _differs_by_chance(self, first: list[Form] | None, view: str, key: bytes) -> bool:
        """Whether a row that differs between two runs differs between the programs in these parts alone."""
        if first is None:
            return True
        return difference(*comparable(*zip(first, self._row(view, key), strict=True))) is None

    def _row_text(self, view: str, key: bytes, first: list[Form] | None = None) -> str:
        second = self._row(view, key)
        old, new = comparable(*zip(first or second, second, strict=True))
        text = self._sides["new"].ask("key", key=key)
        if CHANCE in (old, new):  # a program does not always have it
            return f"row {text}"
        if len(old) != len(new):
            return f"row {text}: {'the old code' if len(old) > 1 else 'the new code'} alone has it"
        found = difference(old[-1], new[-1])
        if found is None:  # the second time it was built
            return f"row {text}"
        return f"row {text}: {found.path and f'{found.path} is '}{found.old} in the old code, {found.new} in the new"

    def _left_out(self) -> Iterator[Finding]:
        for view, reason in sorted(self._sides["new"].program["left_out"].items()):
            yield Finding("note", "view is not rehearsed", view, 1, reason)

    # --- commands ---

    def decided(self, recorded: Sequence[RecordedCommand]) -> list[Finding]:
        """The recorded commands that the programs answer differently, by command and how."""
        found: dict[tuple[str, str], _Decided] = {}
        for command in recorded:
            if any(command.aggregate_type not in side.program["types"] for side in self._sides.values()):
                continue
            old, new = (self._sides[name].ask("decide", command=list(command)) for name in NAMES)
            if old[0] == new[0]:
                continue
            chance = [name for name, twice in zip(NAMES, (old, new), strict=True) if twice[0] != twice[1]]
            if not is_same(*comparable_decisions(old, new)):
                chance = []  # and not only by chance
            change = f"chance {chance}" if chance else f"{old[0][0]} {new[0][0]}"
            key = f"{command.name} to {command.aggregate_type}", change
            found.setdefault(key, _Decided(0, command, old[0], new[0], chance)).count += 1
        return [each.finding(of) for (of, _), each in found.items()]


@dataclass(slots=True)
class _Decided:
    """Commands of one class that the programs answer differently in the same way; the first as an example."""

    count: int
    command: RecordedCommand
    old: Any
    new: Any
    chance: list[Name]

    def finding(self, of: str) -> Finding:
        command = self.command
        where = f"{command.stream} at version {command.version:,} (position {command.position:,})"
        if self.chance:
            return _by_chance(self.chance, "answer", of, self.count, where)
        example = f"{where}: {decision_text(self.old)} by the old code, {decision_text(self.new)} by the new"
        remedy = f"if that is meant, --accept '{of}'"
        match self.new[0]:
            case "failed":
                return Finding("grave", "command fails", of, self.count, example, remedy)
            case "rejected":
                return Finding("difference", "command is rejected", of, self.count, example, remedy)
        return Finding("difference", "command is answered otherwise", of, self.count, example, remedy)


def _by_chance(names: Sequence[Name], what: str, of: str, count: int, example: str) -> Finding:
    """What differs between two runs of the same code: a fault of the new code if it is new there."""
    who = "both programs" if len(names) == 2 else f"the {names[0]} code"
    text = f"{example}: two runs of {who} differ"
    remedy = (
        "take times, ids and random numbers from the event or the command, not from the clock or from chance"
    )
    is_new = list(names) == ["new"]
    if what == "answer" and not is_new:
        remedy = ""  # a command may take a new id or the time: its events keep it
    return Finding("difference" if is_new else "note", f"{what} is left to chance", of, count, text, remedy)


def _finished(work: Sequence["Future[Any]"]) -> None:
    """Wait for all, or for the first that fails; in steps, so that Ctrl-C is heard."""
    left = set(work)
    while left:
        done, left = wait(left, timeout=0.2)
        for each in done:
            each.result()
