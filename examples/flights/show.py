"""Keeps the demo's system open with its live page: ``make demo SHOW=1``.

    python examples/flights/show.py DATA_DIR [--page HOST:PORT] [--rate COMMANDS]

While the page is open, the flights of the following weeks come in, some each second, so that there is something to see.
"""

import argparse
import asyncio
import csv
import signal
from contextlib import suppress
from itertools import islice
from pathlib import Path

from aircraft import Aircraft
from boards import Boards
from count import WEEK
from handlers import flights_system
from timetable import aircraft_of, commands_of
from year import year

from uno_actors import ActorSystem, UnoError
from uno_actors.ops import serve_page

RATE = 40  # commands in a second


async def show(data_dir: Path, address: str | None = None, rate: float = RATE) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    with Boards(data_dir / "boards.sqlite") as boards:
        async with flights_system(data_dir, boards) as system, serve_page(system, address) as page:
            print(f"\nThe live page of this system: {page.link()}\nIt stays open until Ctrl-C.", flush=True)
            flying = asyncio.create_task(fly(system, rate))
            await over.wait()
            flying.cancel()
            with suppress(asyncio.CancelledError):
                await flying


async def fly(system: ActorSystem, rate: float) -> None:
    """Send the flights after the first week."""
    if not rate:
        return
    with WEEK.open(newline="", encoding="utf-8") as file:
        week = list(csv.DictReader(file))
    for row in islice(year(week), len(week), None):
        for command in commands_of(row):
            with suppress(UnoError):  # an earlier process has cancelled it
                await system.aggregate(Aircraft, aircraft_of(row)).ask(command)
            await asyncio.sleep(1 / rate)


def main() -> None:
    parser = argparse.ArgumentParser(description="Show the live page of the flights.")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--page", metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, default=RATE)
    arguments = parser.parse_args()
    asyncio.run(show(arguments.data_dir, arguments.page, arguments.rate))


if __name__ == "__main__":
    main()
