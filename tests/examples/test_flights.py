"""The flights example: its domain, its reading of dirty rows, its boards, and the whole demo."""

import asyncio
import random
import subprocess
import sys
from calendar import monthrange
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice
from pathlib import Path

import pytest
from aircraft import (
    Aircraft,
    Arrive,
    Cancel,
    Depart,
    Flight,
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
)
from audit import audit
from boards import Boards
from count import WEEK, count
from hypothesis import given
from hypothesis import strategies as st
from ingest import Acknowledgements, Progress, ingest
from report import checks, find
from timetable import aircraft_of, commands_of, orders
from year import AIRCRAFT, days, year

from uno_actors import CommandRejected, EventSourcedRepository
from uno_actors.store.codec import StreamId
from uno_stores import InMemoryEventStore

MORNING = datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
    "origin,dest,air_time,distance,hour,minute,time_hour"
)
NAMES = HEADER.split(",")
ORDINARY = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
CANCELLED = "2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N18120,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z"
NAMELESS = "2013,1,2,NA,1540,NA,NA,1910,NA,AA,133,NA,JFK,LAX,NA,2475,15,40,2013-01-02T20:00:00Z"
DIVERTED = "2013,1,1,1525,1530,-5,1934,1805,NA,MQ,4525,N719MQ,LGA,XNA,NA,1147,15,30,2013-01-01T20:00:00Z"
UNSEEN = "2013,1,1,2016,1930,46,NA,2220,NA,EV,4204,N14168,EWR,OKC,NA,1325,19,30,2013-01-02T00:00:00Z"


def flight(scheduled=MORNING, number=1545):
    return Flight(carrier="UA", number=number, scheduled=scheduled, origin="EWR", destination="IAH")


def row(line):
    return dict(zip(NAMES, line.split(","), strict=True))


def written(path, *lines):
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


class TestAircraft:
    def test_a_departure_is_recorded_under_the_airport_it_left(self):
        aircraft = Aircraft("N14228")
        assert aircraft.handle(Depart(flight=flight(), delay=2)) is True
        (event,) = aircraft.pending_events
        assert isinstance(event, FlightDeparted)
        assert (event.topic, event.flight, event.delay) == ("flights.ewr.departed", flight(), 2)

    def test_an_arrival_is_recorded_under_the_airport_it_reached(self):
        aircraft = Aircraft("N14228")
        aircraft.handle(Depart(flight=flight(), delay=2))
        assert aircraft.handle(Arrive(flight=flight(), delay=None)) is True
        event = aircraft.pending_events[-1]
        assert isinstance(event, FlightArrived)
        assert (event.topic, event.delay) == ("flights.iah.arrived", None)

    def test_a_cancellation_is_recorded_under_the_airport_that_the_flight_never_left(self):
        aircraft = Aircraft("N14228")
        assert aircraft.handle(Cancel(flight=flight())) is True
        (event,) = aircraft.pending_events
        assert isinstance(event, FlightCancelled)
        assert event.topic == "flights.ewr.cancelled"

    @pytest.mark.parametrize(
        "told",
        [
            [Depart(flight=flight(), delay=2)],
            [Depart(flight=flight(), delay=2), Arrive(flight=flight(), delay=11)],
            [Cancel(flight=flight())],
        ],
    )
    def test_a_repeated_command_is_recorded_once(self, told):
        aircraft = Aircraft("N14228")
        assert [aircraft.handle(command) for command in told] == [True] * len(told)
        again = [command.model_copy(update={"command_id": "another"}) for command in told]
        assert [aircraft.handle(command) for command in again] == [False] * len(told)
        assert aircraft.version == len(told)

    def test_a_restarted_aircraft_recognises_what_it_had_recorded(self):
        before = Aircraft("N14228")
        before.handle(Depart(flight=flight(), delay=2))
        after = Aircraft("N14228").replay(before.take_pending_events())
        assert after.handle(Depart(flight=flight(), delay=2)) is False
        assert after.handle(Arrive(flight=flight(), delay=11)) is True

    @pytest.mark.parametrize(
        ("earlier", "command", "reason"),
        [
            ([], Arrive(flight=flight(), delay=0), "it is scheduled"),
            ([Cancel(flight=flight())], Arrive(flight=flight(), delay=0), "it is cancelled"),
            ([Cancel(flight=flight())], Depart(flight=flight(), delay=0), "it was cancelled"),
            ([Depart(flight=flight(), delay=0)], Cancel(flight=flight()), "it has departed"),
        ],
    )
    def test_an_impossible_command_is_rejected_and_leaves_no_trace(self, earlier, command, reason):
        aircraft = Aircraft("N14228")
        for one in earlier:
            aircraft.handle(one)
        with pytest.raises(CommandRejected, match=reason):
            aircraft.handle(command)
        assert aircraft.version == len(earlier)

    def test_flights_of_a_day_may_come_in_any_order(self):
        aircraft = Aircraft("N14228")
        evening = flight(MORNING + timedelta(hours=12), 1712)
        assert aircraft.handle(Depart(flight=evening, delay=0)) is True
        assert aircraft.handle(Cancel(flight=flight())) is True

    @given(st.permutations(range(1, 13)), st.randoms(use_true_random=False))
    def test_a_year_of_flights_is_recognised_in_any_order_of_months(self, months, chance):
        """The real file has them in the order 1, 10, 11, 12, 2, and a sender repeats what it has sent."""
        told = [command for month in months for command in commands_of_month(month)]
        aircraft = Aircraft("N14228")
        assert [aircraft.handle(command) for command in told] == [True] * len(told)
        assert aircraft.flights == year_of_flights().flights
        again = chance.sample(told, 20)
        assert [aircraft.handle(command) for command in again] == [False] * len(again)
        assert aircraft.version == len(told)

    def test_a_flight_is_the_same_in_every_time_zone(self):
        there = flight(MORNING.astimezone(timezone(timedelta(hours=-5))))
        assert str(there) == str(flight()) == "UA1545 2013-01-01T10:15Z"
        aircraft = Aircraft("N14228")
        aircraft.handle(Depart(flight=there, delay=0))
        assert aircraft.handle(Depart(flight=flight(), delay=0)) is False

    def test_a_year_of_flights_takes_some_kilobytes(self):
        flights = year_of_flights().flights
        size = sys.getsizeof(flights) + sum(map(sys.getsizeof, flights))
        assert size / len(flights) < 200

    async def test_a_year_of_flights_is_recognised_from_a_snapshot_too(self):
        store = InMemoryEventStore()
        repository = EventSourcedRepository(Aircraft, store, snapshot_every=10)
        aircraft = Aircraft("N14228")
        told = [command for month in (1, 10, 11, 12, 2) for command in commands_of_month(month)]
        for command in told:
            aircraft.handle(command)
            await repository.save(aircraft)
        snapshot = await store.read_snapshot(StreamId("Aircraft", "N14228"))
        assert snapshot.version > len(told) - 10
        assert snapshot.schema_version == Aircraft.schema_version
        loaded = await repository.get_by_id("N14228")
        assert loaded.flights == aircraft.flights
        assert loaded.handle(told[0]) is False


def commands_of_month(month):
    """Some legs, and one cancelled."""
    for day in (1, 9, 28):
        leg = flight(datetime(2013, month, day, 10, 15, tzinfo=UTC))
        yield Depart(flight=leg, delay=month)
        yield Arrive(flight=leg, delay=day)
    yield Cancel(flight=flight(datetime(2013, month, 28, 22, 5, tzinfo=UTC), 7))


def year_of_flights():
    aircraft = Aircraft("N14228")
    for month in range(1, 13):
        for command in commands_of_month(month):
            aircraft.handle(command)
    return aircraft


class TestTimetable:
    @pytest.mark.parametrize(
        ("line", "aircraft", "commands"),
        [
            (ORDINARY, "N14228", [(Depart, 2), (Arrive, 11)]),
            (DIVERTED, "N719MQ", [(Depart, -5), (Arrive, None)]),
            (UNSEEN, "N14168", [(Depart, 46), (Arrive, None)]),  # not even a time of arrival
            (CANCELLED, "N18120", [(Cancel, None)]),
            (NAMELESS, "unknown-AA", [(Cancel, None)]),
            (ORDINARY.replace("N14228", ""), "unknown-UA", [(Depart, 2), (Arrive, 11)]),
            (CANCELLED.replace("NA", ""), "N18120", [(Cancel, None)]),
        ],
    )
    def test_each_row_becomes_its_commands(self, line, aircraft, commands):
        assert aircraft_of(row(line)) == aircraft
        found = commands_of(row(line))
        assert [(type(command), getattr(command, "delay", None)) for command in found] == commands

    def test_a_flight_is_identified_by_number_and_schedule(self):
        (command,) = commands_of(row(CANCELLED))
        assert str(command.flight) == "EV4308 2013-01-01T21:30Z"
        assert (command.flight.origin, command.flight.destination) == ("EWR", "RDU")

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (ORDINARY.replace("UA,1545", "UA,many"), "row 2: ValueError: invalid literal"),
            (ORDINARY.replace("2013-01-01T10:00:00Z", "tomorrow"), "row 2: ValueError: Invalid isoformat"),
            (
                ORDINARY.replace("10:00:00Z", "10:00:00"),
                "(?s)row 2: ValidationError: .*.*should have timezone",
            ),
            (ORDINARY.replace(",517,515,2,", ",NA,515,NA,"), "row 2: ValueError: .* without a departure"),
            ("2013,1,1,517", "row 2: TypeError"),
        ],
    )
    def test_a_row_that_makes_no_sense_is_reported(self, tmp_path, line, reason):
        file = written(tmp_path / "flights.csv", CANCELLED, line)
        with pytest.raises(ValueError, match=reason):
            list(orders(file))

    def test_rows_are_read_lazily(self, tmp_path):
        file = written(tmp_path / "flights.csv", ORDINARY, "nonsense")
        first, second = islice(orders(file), 2)
        assert str(first) == "depart N14228 UA1545 2013-01-01T10:15Z"
        assert str(second) == "arrive N14228 UA1545 2013-01-01T10:15Z"

    def test_the_week_gives_as_many_commands_as_an_independent_count_says(self):
        kinds = Counter(type(order.command) for order in orders(WEEK))
        assert kinds == {Depart: 6_064, Arrive: 6_064, Cancel: 35}
        assert count(WEEK).events == kinds.total() == 12_163


def test_the_independent_count_agrees_with_the_source_of_the_file():
    counted = count(WEEK)
    assert counted.rows == 6_099
    assert counted.without_departure == 35
    assert counted.without_arrival_delay == 56
    assert counted.without_tail_number == 8


def test_the_year_has_the_weeks_rows_with_other_dates_and_tail_numbers():
    week = [row(ORDINARY), row(CANCELLED), row(NAMELESS)]
    rows = list(islice(year(week), 6))
    assert [one["tailnum"] for one in rows[3:]] == ["N14228-2", "N18120-2", "NA"]
    assert (rows[3]["day"], rows[3]["time_hour"]) == ("8", "2013-01-08T10:00:00Z")
    whole = list(islice(year([row(line) for line in WEEK.read_text().splitlines()[1:]]), 2 * 6_099))
    assert len({one["tailnum"] for one in whole}) == AIRCRAFT


def test_the_year_has_its_months_in_the_order_of_the_real_file():
    months = [day.month for day in islice(days(date(2013, 1, 1)), 366)]
    assert list(dict.fromkeys(months[:365])) == [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9]
    assert Counter(months[:365]) == {month: monthrange(2013, month)[1] for month in range(1, 13)}
    assert months[365] == 1


class TestBoards:
    def test_an_event_that_is_delivered_again_is_not_counted_again(self, tmp_path):
        with Boards(tmp_path / "boards.sqlite") as boards:
            for _ in range(2):
                boards.departed(1, flight(), 20)
                boards.departed(4, flight(number=2), -3)
                boards.arrived(2, flight(), None)
                boards.arrived(5, flight(number=2), 14)
                boards.cancelled("one", flight(number=3))
                boards.charged("two", flight(), 75, 300)
            assert boards.airports() == [("EWR", 2, 1, 17, 20, "UA1545 2013-01-01T10:15Z", 1)]
            assert boards.carriers() == [("UA", 2, 1, 1, 300)]

    def test_boards_are_kept_in_the_file(self, tmp_path):
        for position in (1, 1, 2):
            with Boards(tmp_path / "boards.sqlite") as boards:
                boards.departed(position, flight(), 5)
        with Boards(tmp_path / "boards.sqlite") as boards:
            (airport,) = boards.airports()
            assert airport.departed == 2

    def test_handlers_on_several_threads_do_not_disturb_each_other(self, tmp_path):
        with Boards(tmp_path / "boards.sqlite") as boards, ThreadPoolExecutor(4) as threads:

            def depart():
                for position in range(1, 201):
                    boards.departed(position, flight(), 0)

            def arrive():
                for position in range(1, 201):
                    boards.arrived(position, flight(), 0)

            for done in [threads.submit(depart), threads.submit(arrive)]:
                done.result()
            assert [airport.departed for airport in boards.airports()] == [200]
            assert [carrier.arrived for carrier in boards.carriers()] == [200]


class TestAcknowledgements:
    def test_each_whole_line_counts(self, tmp_path):
        path = tmp_path / "acknowledged.log"
        with Acknowledgements(path) as acknowledgements:
            assert acknowledgements.count == 0
            acknowledgements.write(["recorded a\n", "recorded b\n"])
        with Acknowledgements(path) as acknowledgements:
            assert acknowledgements.count == 2

    def test_a_line_that_was_cut_short_acknowledges_nothing(self, tmp_path):
        path = tmp_path / "acknowledged.log"
        path.write_text("recorded a\nrecor")
        with Acknowledgements(path) as acknowledgements:
            assert acknowledgements.count == 1
            acknowledgements.write(["recorded b\n"])
        assert path.read_text() == "recorded a\nrecorded b\n"


class TestIngest:
    @pytest.fixture
    def few(self, tmp_path):
        return written(tmp_path / "few.csv", ORDINARY, CANCELLED, NAMELESS, DIVERTED, UNSEEN)

    async def test_all_totals_are_as_counted(self, few, tmp_path):
        shown: list[Progress] = []
        progress = await ingest(few, tmp_path, shown.append)
        assert (progress.sent, progress.events, progress.row, progress.known) == (8, 8, 5, 0)
        assert (progress.restarts, progress.dead_letters) == (6, 2)
        assert shown[-1] is progress
        found = await audit(tmp_path)
        assert (found.acknowledged, found.events, found.lost, found.twice) == (8, 8, [], [])
        assert [letter.error for letter in found.dead_letters] == [
            "ValueError: MQ4525 2013-01-01T20:30Z has no arrival delay",
            "ValueError: EV4204 2013-01-02T00:30Z has no arrival delay",
        ]

    async def test_commands_that_are_sent_again_are_not_recorded_again(self, few, tmp_path):
        await ingest(few, tmp_path, lambda _: None)
        acknowledged = tmp_path / "acknowledged.log"
        lines = acknowledged.read_text().splitlines(keepends=True)
        acknowledged.write_text("".join(lines[:3]))  # as if the process had died before it wrote the others
        before = await audit(tmp_path)
        assert (before.acknowledged, before.unacknowledged) == (3, 5)

        progress = await ingest(few, tmp_path, lambda _: None)
        assert (progress.skipped, progress.sent, progress.known, progress.events) == (3, 5, 5, 0)
        after = await audit(tmp_path)
        assert (after.acknowledged, after.events, after.lost, after.twice) == (8, 8, [], [])

    async def test_an_acknowledged_command_without_its_event_would_be_found(self, few, tmp_path):
        await ingest(few, tmp_path, lambda _: None)
        with (tmp_path / "acknowledged.log").open("a") as lines:
            lines.write("recorded depart N1 XX1 2013-01-01T10:15Z\n")
        assert (await audit(tmp_path)).lost == ["depart N1 XX1 2013-01-01T10:15Z"]

    async def test_a_rejected_command_is_acknowledged_as_rejected(self, tmp_path):
        cancelled = ORDINARY.replace(",517,515,2,830,819,11,", ",NA,515,NA,NA,819,NA,")
        file = written(tmp_path / "contradiction.csv", cancelled, ORDINARY)
        progress = await ingest(file, tmp_path, lambda _: None)
        assert (progress.sent, progress.rejected, progress.events) == (3, 2, 1)
        found = await audit(tmp_path)
        assert (found.acknowledged, found.rejected, found.lost) == (3, 2, [])

    def test_months_in_any_order_make_the_same_boards(self, tmp_path):
        """The whole service, told of a year in order, in the order of the real file, and shuffled."""
        by_month = defaultdict(list)
        for one in year_of_rows():
            by_month[int(one["month"])].append(",".join(one.values()))
        shuffled = random.Random(7).sample(range(1, 13), 12)
        results = []
        for months in (list(range(1, 13)), sorted(range(1, 13), key=str), shuffled):
            place = tmp_path / "-".join(map(str, months))
            place.mkdir()
            file = written(place / "year.csv", *[line for month in months for line in by_month[month]])
            progress = asyncio.run(ingest(file, place, lambda _: None))
            assert (progress.rejected, progress.known) == (0, 0)
            found = find(place)
            assert all(check.passed for check in checks(count(file), found))
            letters = {letter.error for letter in found.audit.dead_letters}
            results.append((found.airports, found.carriers, letters))
        assert results[0] == results[1] == results[2]


def year_of_rows():
    """The same few rows in each month, so that some flights are as late as others."""
    from_jfk = ORDINARY.replace("EWR", "JFK").replace("1545", "1546")
    for month in range(1, 13):
        for line in (ORDINARY, CANCELLED, NAMELESS, from_jfk, DIVERTED, UNSEEN):
            one = row(line)
            hour = datetime.fromisoformat(one["time_hour"]).replace(month=month)
            yield one | {"month": str(month), "time_hour": f"{hour:%Y-%m-%dT%H:%M:%SZ}"}


def test_the_demo_survives_its_kill_and_every_total_is_right(tmp_path: Path):
    """`make demo`, as a person runs it."""
    demo = subprocess.run(
        [sys.executable, WEEK.with_name("demo.py"), tmp_path / "demo"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Killed with SIGKILL" in demo.stdout
    assert "✓ 0 of these are lost" in demo.stdout
    assert "✓ 0 events are there twice" in demo.stdout
    assert "Everything is there, and once." in demo.stdout

    found = find(tmp_path / "demo")
    assert all(check.passed for check in checks(count(WEEK), found))
    assert (found.audit.rows, found.audit.departures, found.audit.cancellations) == (6_099, 6_064, 35)
    assert (found.audit.without_arrival_delay, found.audit.without_tail_number) == (56, 8)
    assert len(found.audit.dead_letters) == 21
    assert {letter.attempts for letter in found.audit.dead_letters} == {3}
    assert sum(airport.departed for airport in found.airports) == 6_064
    assert sum(carrier.arrived for carrier in found.carriers) == 6_064
