"""Sends a file of flights to the aircraft. It can be killed at any moment.

    python examples/flights/ingest.py FILE DATA_DIR [--json]

It streams the file with a bounded number of commands in flight, so the year of flights takes no more memory
than the week. As replies come, it writes a line for each command to ``DATA_DIR/acknowledged.log``, in the order
of the file. So the n-th line acknowledges the n-th command, and a new process resumes by skipping as many
commands as there are lines.

The commands that were in flight when the process died are sent again. Some of them are recorded, although they
were not acknowledged; the aircraft recognises these (see ``aircraft.py``).
"""

import argparse
import asyncio
import json
import logging
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from aircraft import Aircraft
from boards import Boards
from handlers import flights_system
from timetable import Order, orders

from uno_actors import ActorSystem, CommandRejected, Future

WINDOW = 1_000  # commands in flight
HANDLERS_TIMEOUT = 600.0  # seconds for the handlers to catch up, after the last reply

Reply = tuple[Order, Future[bool]]


@dataclass
class Progress:
    """The progress of this process since it started."""

    skipped: int = 0  # commands that were acknowledged to earlier processes
    sent: int = 0  # commands of this process that were acknowledged; of these:
    known: int = 0  # ... recorded by the aircraft before
    rejected: int = 0  # ... rejected by a rule
    row: int = 0  # row of the file up to which everything is acknowledged
    seconds: float = 0.0  # from the first command to the last reply
    settled: float = 0.0  # from the first command until the handlers had caught up
    handlers_at: int = 0  # position in the log that all handlers have reached
    commits: int = 0
    events: int = 0
    aircraft: int = 0  # activated
    replayed: int = 0  # events read to activate them
    restarts: int = 0  # of handlers
    dead_letters: int = 0
    peak_mib: float = 0.0  # resident memory, with the mapped pages of the store
    own_mib: float = 0.0  # resident memory without them, now; 0 if the platform does not report it
    finished: bool = False


class Acknowledgements:
    """The file of acknowledged commands: one line per command, in the order of the commands.

    Lines go to the operating system at once, so they survive the process. They may not survive a power cut, as
    events do; then some commands are sent again without need.
    """

    def __init__(self, path: Path) -> None:
        self.count = whole = 0
        self._file = path.open("ab")
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    self.count += 1
                    whole += len(line)
        self._file.truncate(whole)  # an incomplete last line acknowledges nothing

    def write(self, lines: Iterable[str]) -> None:
        self._file.write("".join(lines).encode())
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


async def ingest(
    file: Path, data_dir: Path, show: Callable[[Progress], None], every: float = 1.0
) -> Progress:
    """Send the commands not yet acknowledged, wait for the handlers, and ``show`` the progress now and then."""
    progress = Progress()
    with (
        Boards(data_dir / "boards.sqlite") as boards,
        Acknowledgements(data_dir / "acknowledged.log") as acknowledgements,
    ):
        progress.skipped = acknowledgements.count
        work = orders(file)
        for order in islice(work, progress.skipped):
            progress.row = order.row
        async with flights_system(data_dir, boards) as system:
            began = time.monotonic()
            showing = asyncio.create_task(_show_now_and_then(system, progress, began, show, every))
            await _send(system, work, acknowledgements, progress)
            progress.seconds = time.monotonic() - began
            await system.settled(HANDLERS_TIMEOUT)
            progress.settled = time.monotonic() - began
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing
            progress.finished = True
            _take_stock(system, progress)
            show(progress)
    return progress


async def _send(
    system: ActorSystem, work: Iterable[Order], acknowledgements: Acknowledgements, progress: Progress
) -> None:
    waiting: deque[Reply] = deque()
    for order in work:
        waiting.append((order, system.aggregate(Aircraft, order.aircraft).ask(order.command)))
        if len(waiting) == WINDOW:
            await _acknowledge(waiting, WINDOW // 2, acknowledgements, progress)
    await _acknowledge(waiting, len(waiting), acknowledgements, progress)


async def _acknowledge(
    waiting: deque[Reply], oldest: int, acknowledgements: Acknowledgements, progress: Progress
) -> None:
    """Wait for the oldest replies and write them down, while others are in flight."""
    lines: list[str] = []
    for _ in range(oldest):
        order, reply = waiting.popleft()
        try:
            outcome = "recorded" if await reply else "known"
        except CommandRejected as error:
            logging.getLogger("flights").warning("row %s: %s", order.row, error)
            outcome = "rejected"
        progress.sent += 1
        progress.known += outcome == "known"
        progress.rejected += outcome == "rejected"
        progress.row = order.row
        lines.append(f"{outcome} {order}\n")
    acknowledgements.write(lines)


async def _show_now_and_then(
    system: ActorSystem, progress: Progress, began: float, show: Callable[[Progress], None], every: float
) -> None:
    while True:
        await asyncio.sleep(every)
        if not progress.settled:
            elapsed = time.monotonic() - began
            now = progress if progress.seconds else replace(progress, seconds=elapsed)
            _take_stock(system, now)
            show(now)


def _take_stock(system: ActorSystem, progress: Progress) -> None:
    statistics = system.statistics()
    handlers = statistics.handlers.values()
    progress.handlers_at = min(handler.position for handler in handlers)
    progress.commits = statistics.commits
    progress.events = statistics.events_recorded
    progress.aircraft = statistics.activations
    progress.replayed = statistics.events_replayed
    progress.restarts = sum(handler.restarts for handler in handlers)
    progress.dead_letters = sum(handler.dead_letters for handler in handlers)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    progress.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    progress.own_mib = _own_kib() / 1024


def _own_kib() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    return 0


def as_json(progress: Progress) -> None:
    """Print progress for programs: one JSON object per line."""
    print(json.dumps(asdict(progress)), flush=True)


def as_text(progress: Progress) -> None:
    """Print progress for people."""
    rate = progress.sent / (progress.seconds or 1)
    print(
        f"row {progress.row:>9,}   {progress.sent:>9,} commands {rate:>7,.0f}/s"
        f"   handled to {progress.handlers_at:>9,}   memory {progress.own_mib:>4,.0f} MiB",
        flush=True,
    )
    if progress.finished:
        print(
            f"\n{progress.row:,} rows: {progress.skipped:,} commands were acknowledged before,"
            f" {progress.sent:,} are now\n"
            f"  ({progress.known:,} of them recorded before, {progress.rejected:,} rejected)\n"
            f"recorded in {progress.seconds:.1f} s: {rate:,.0f} commands/s in {progress.commits:,} commits\n"
            f"handled in {progress.settled:.1f} s: {progress.events / progress.settled:,.0f} events/s,"
            f" {progress.restarts:,} restarts, {progress.dead_letters:,} dead letters\n"
            f"{progress.aircraft:,} aircraft activated, {progress.replayed:,} events replayed\n"
            f"memory: {progress.own_mib:,.0f} MiB of its own at the end;"
            f" peak {progress.peak_mib:,.0f} MiB with the store's mapped pages"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Feed a file of flights to the aircraft.")
    parser.add_argument("file", type=Path)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--json", action="store_true", help="print progress for a program, every 20 ms")
    arguments = parser.parse_args()
    arguments.data_dir.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=arguments.data_dir / "ingest.log", format="%(asctime)s %(levelname)s %(message)s"
    )
    show, every = (as_json, 0.02) if arguments.json else (as_text, 2.0)
    try:
        asyncio.run(ingest(arguments.file, arguments.data_dir, show, every))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command resumes from here")


if __name__ == "__main__":
    main()
