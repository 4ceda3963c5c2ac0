"""A week of flights, a kill in the middle, and a report: ``make demo``.

    python examples/flights/demo.py [EMPTY_DIR] [--show]

Starts ``ingest.py`` as a process on an empty LMDB store, kills it with SIGKILL when half of the
commands are acknowledged, audits the store, starts it again and checks the result against ``count.py``. With
``--show`` (``make demo SHOW=1``) it then opens the live page, until Ctrl-C.
"""

import asyncio
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from audit import audit
from count import WEEK, count
from ingest import Progress
from report import checks, crash_report, find, show
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from show import show as show_page

HERE = Path(__file__).parent
DATA = HERE / ".data"  # deleted on each start
INGEST = HERE / "ingest.py"


def main() -> int:
    console = Console(highlight=False)
    began = time.monotonic()
    places = [argument for argument in sys.argv[1:] if argument != "--show"]
    if places:
        data = Path(places[0])
    else:
        data = DATA
        shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, exist_ok=True)
    if any(data.iterdir()):
        raise SystemExit(f"{data} is not empty")
    counted = count(WEEK)
    console.print(
        f"[bold]A week of flights from New York[/]: {counted.rows:,} rows, {counted.events:,} commands\n"
        f"for aircraft whose events are kept in lmdb:{os.path.relpath(data)}/store\n"
    )
    with _bars(console) as bars:
        recording = bars.add_task("recorded", total=counted.events)
        handling = bars.add_task("handled by all", total=counted.events)
        first = run(data, bars, recording, handling, kill_at=counted.events // 2)
        crashed = asyncio.run(audit(data))
        first.sent = crashed.acknowledged  # it had no time to report the last of them
        console.print(crash_report(crashed, counted.events))
        console.print("[bold]Starting again.[/]")
        second = run(data, bars, recording, handling)
    found = find(data)
    checked = checks(counted, found)
    show(console, found, checked, [first, second])
    console.print(f"{time.monotonic() - began:.1f} s in all.")
    if "--show" in sys.argv:
        asyncio.run(show_page(data))
    intact = not crashed.lost and not crashed.twice
    return not (intact and all(check.passed for check in checked))


def run(data: Path, bars: Bars, recording: TaskID, handling: TaskID, kill_at: float = math.inf) -> Progress:
    """Run ``ingest.py`` to its end, or until ``kill_at`` commands are acknowledged; return its last report."""
    progress, killed = Progress(), False
    command = [sys.executable, str(INGEST), str(WEEK), str(data), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
        for line in process.stdout or ():
            progress = Progress(**json.loads(line))
            acknowledged = progress.skipped + progress.sent
            bars.update(recording, completed=acknowledged)
            bars.update(handling, completed=progress.handlers_at)
            if acknowledged >= kill_at and not killed:
                time.sleep(random.uniform(0, 0.1))  # noqa: S311 - at no moment that would suit it
                process.kill()
                killed = True
    if process.returncode != (-signal.SIGKILL if killed else 0):
        raise SystemExit(f"ingest.py ended with {process.returncode}; see {data / 'ingest.log'}")
    return progress


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description:>14}"),
        BarColumn(40),
        TextColumn("{task.completed:>7,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
