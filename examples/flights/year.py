"""Writes a file with a year of flights, made from the week, because the real one is too large to include.

    python examples/flights/year.py OUT.csv
    python examples/flights/ingest.py OUT.csv DATA_DIR

The week is repeated, seven days later each time, until there are as many rows as in the real year (336,776). In
every second repetition the aircraft have other tail numbers, up to the real year's 4,044. Missing values and delays
stay the same.

The months of a year are in the order of the real file, sorted as text: 1, 10, 11, 12, 2.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import count as numbers
from itertools import islice
from pathlib import Path

from count import WEEK

ROWS = 336_776
AIRCRAFT = 4_044  # tail numbers, "NA" included
MISSING = "NA"


def year(week: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Days without end, one year after the other, each with the rows of its weekday."""
    tails = list(dict.fromkeys(row["tailnum"] for row in week))
    others = {tail: f"{tail}-2" for tail in islice((t for t in tails if t != MISSING), AIRCRAFT - len(tails))}
    rows_of: defaultdict[date, list[dict[str, str]]] = defaultdict(list)
    for row in week:
        rows_of[date(int(row["year"]), int(row["month"]), int(row["day"]))].append(row)
    first = min(rows_of)
    for day in days(first):
        number, weekday = divmod((day - first).days, 7)
        names = others if number % 2 else {}
        for row in rows_of[first + timedelta(days=weekday)]:
            hour = datetime.fromisoformat(row["time_hour"]) + timedelta(weeks=number)
            yield row | {
                "year": str(day.year),
                "month": str(day.month),
                "day": str(day.day),
                "time_hour": f"{hour:%Y-%m-%dT%H:%M:%SZ}",
                "tailnum": names.get(row["tailnum"], row["tailnum"]),
            }


def days(first: date) -> Iterator[date]:
    """The days from the first on, in the order of the real file: the months of each year sorted as text."""
    for number in numbers(first.year):
        for month in sorted(range(1, 13), key=str):
            day = date(number, month, 1)
            while day.month == month:
                if day >= first:
                    yield day
                day += timedelta(days=1)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {sys.argv[0]} OUT.csv")
    with WEEK.open(newline="", encoding="utf-8") as file:
        week = list(csv.DictReader(file))
    with Path(sys.argv[1]).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, week[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(islice(year(week), ROWS))
    print(f"{ROWS:,} rows in {sys.argv[1]}")


if __name__ == "__main__":
    main()
