"""Scheduled commands as operators see them: in the API of the live page, and in metrics."""

from datetime import UTC, datetime, timedelta

from tests.ops.client import asking
from tests.scheduling import CancelLater, CancelNow, Deadline
from uno_actors import ActorSystem
from uno_actors.ops.metrics.exporter import Metrics
from uno_actors.testing import ManualClock


async def test_scheduled_commands_are_listed_cancelled_and_sent_now() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    system = ActorSystem("memory:", aggregates=[Deadline], handlers=[], clock=clock)
    async with system, asking(system) as ask:
        assert await ask.get("schedules") == {"schedules": [], "more": False}
        for minutes, name in enumerate("abc", start=15):
            await system.aggregate(Deadline, name).ask(CancelLater(minutes=minutes, note=name))
        await system.schedule(
            CancelNow(), to=(Deadline, "d"), every="0 9 * * *", tz="Europe/Berlin", key="daily"
        )
        await system.settled()
        found = await ask.get("schedules")
        assert [each["to_id"] for each in found["schedules"]] == ["a", "b", "c", "d"]
        first, second, _, daily = found["schedules"]
        assert (first["due"], first["key"], first["owner_type"]) == (
            "2026-01-01T00:15:00+00:00",
            "payment",
            "Deadline",
        )
        assert first["fields"] == '{"note": "a"}'
        assert first["late"] > 0  # the machine's time is later than that of the test
        assert (daily["due"], daily["every"], daily["tz"], daily["owner_type"]) == (
            "2026-01-01T08:00:00+00:00",
            "0 9 * * *",
            "Europe/Berlin",
            None,
        )
        assert (await ask.get("schedules", limit=3))["more"] is True
        assert await ask.post("schedules/cancel", id=first["id"]) == {"count": 1}
        assert await ask.post("schedules/run-now", id=second["id"]) == {"count": 1}
        await system.settled()
        assert [each["to_id"] for each in (await ask.get("schedules"))["schedules"]] == ["c", "d"]
        problem = await ask.post("schedules/run-now", 404, id=first["id"])
        assert "nothing is scheduled as" in problem["detail"]


async def test_the_metrics_say_what_waits_is_late_was_sent_and_has_failed() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    system = ActorSystem("memory:", aggregates=[Deadline], handlers=[], clock=clock)
    metrics = Metrics(system, store_within=30.0)
    async with system:
        for minutes, note in ((1, "sent"), (2, "rejected"), (60 * 24, "waits")):
            await system.aggregate(Deadline, note).ask(CancelLater(minutes=minutes, note=note))
        await system.settled()
        clock.leap(timedelta(hours=1))
        await system.settled()
        text = await metrics.text()
        expected = {
            "waiting": 1,
            "late_time_seconds": 0,
            "fired_total": 2,
            "sent_total": 1,
            "failed_total": 0,
            "rejected_total": 1,
        }
        for name, value in expected.items():
            assert f'uno_schedules_{name}{{system="system"}} {value}.0' in text.splitlines()
        await system.pause("uno_actors.schedules")
        clock.leap(timedelta(days=1))
        assert system.statistics().scheduler.late_seconds == 60 * 60
