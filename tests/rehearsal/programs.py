"""A program for rehearsals, and stores that it has filled. Each version lives in a directory of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TILL = '''\
"""Tills, a view of them, and a process that rewards large payments."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from uno_actors import (
    AggregateRoot, Command, CommandRejected, DomainEvent, ProcessManager, Projection, handles, reacts
)
from uno_actors.handlers.spec import HandlerSpec


@dataclass
class Line:
    cents: int
    tags: set[str] = field(default_factory=set)


class Pay(Command[int]):
    cents: int


class Paid(DomainEvent):
    cents: int
    topic: str = "tills.paid"


class Refunded(DomainEvent):
    cents: int


class Refund(Command[int]):
    cents: int


class Till(AggregateRoot):
    lines: list[Line]

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.cents = 0
        self.lines = []
        self.last: datetime | None = None
        self.rate = float("nan")

    @handles
    def pay(self, command: Pay) -> int:
        self.register_event(Paid(cents=command.cents))
        return self.cents

    @handles
    def refund(self, command: Refund) -> int:
        self.register_event(Refunded(cents=command.cents))
        return self.cents

    def apply_paid(self, event: Paid) -> None:
        self.cents += event.cents
        self.lines.append(Line(event.cents, {"paid", str(event.cents)}))
        self.last = event.timestamp

    def apply_refunded(self, event: Refunded) -> None:
        self.cents -= event.cents


class Reward(Command[int]):
    points: int


class Rewarded(DomainEvent):
    points: int


class Purse(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.points = 0

    @handles
    def reward(self, command: Reward) -> int:
        self.register_event(Rewarded(points=command.points))
        return self.points

    def apply_rewarded(self, event: Rewarded) -> None:
        self.points += event.points


class Bonus(ProcessManager):
    sends_to = (Purse,)

    @reacts(starts=True)
    def on_paid(self, event: Paid) -> None:
        if event.cents >= 5:
            self.send(Purse, event.aggregate_id, Reward(points=event.cents))


class Totals(Projection[Paid]):
    async def handle(self, event: Paid) -> None:
        before = await self.view.get((event.aggregate_id, 1), 0)
        self.view.put((event.aggregate_id, 1), before + event.cents)


totals = HandlerSpec("totals", Totals)
bonus = Bonus.handler()
'''

FILL = """\
import asyncio, sys
import till
from uno_actors import ActorSystem

async def main():
    async with ActorSystem(sys.argv[1], handlers=[till.totals, till.bonus], snapshot_every=4) as system:
        for cents in range(1, int(sys.argv[2]) + 1):
            for name in ("a", "b", "c"):
                await system.aggregate(till.Till, name).ask(till.Pay(cents=cents))
        await system.aggregate(till.Till, "c").ask(till.Refund(cents=2))
        await system.settled(60)

asyncio.run(main())
"""

PAYMENTS = 10
"""To each of three tills, of 1 to 10 cents."""


def program(directory: Path, *changes: tuple[str, str], name: str = "till.py") -> Path:
    """A version of the program in a new directory; each change replaces a text that occurs there once."""
    text = TILL
    for old, new in changes:
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    directory.mkdir(parents=True)
    (directory / name).write_text(text, encoding="utf-8")
    return directory


def fill(code: Path, url: str) -> None:
    """Let a version of the program record to a new store."""
    environment = {**os.environ, "PYTHONPATH": str(code)}
    subprocess.run([sys.executable, "-c", FILL, url, str(PAYMENTS)], check=True, env=environment, cwd=code)


def contents(directory: Path) -> dict[str, bytes]:
    """The files of a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def copied(store: Path, target: Path) -> Path:
    """A copy of a store, as a backup has it: its data alone."""
    target.mkdir()
    shutil.copy(store / "data.mdb", target / "data.mdb")
    return target


def found(report: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    """The findings of a report, without their texts."""
    return {(each["weight"], each["what"], each["of"], each["count"]) for each in report["findings"]}
