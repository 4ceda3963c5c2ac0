"""The metrics of a system: each is defined once, has its values, and reaches Prometheus and OpenTelemetry."""

import asyncio
import re
import runpy
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from tests.bank import EVENTS, Account, Balance, BankStore, Credit, Credited, Debit, credited
from tests.ops.asgi import ask
from tests.ops.test_health import HOSTILE, HungStore, Mail, serving
from tests.waiting import until
from uno_actors import (
    Actor,
    ActorSystem,
    AskTimeout,
    Backoff,
    CommandRejected,
    ConcurrencyConflict,
    InvalidNumber,
    MissingExtra,
    Supervisor,
    SystemNotRunning,
)
from uno_actors.fastapi import lifespan
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.observing import CONTEXT_FREE, HOOKS, Observation, Observer
from uno_actors.ops import Metrics, endpoints_app, operating_routes
from uno_actors.ops.metrics.definitions import BY_NAME, DEFINITIONS, MOST_SERIES, SECONDS
from uno_actors.ops.metrics.reading import Reading
from uno_actors.ops.metrics.recorder import OUTCOMES, Family, Histogram, Recorder, outcome_of
from uno_actors.ops.metrics.sampling import BURST, SAMPLES, Sampler
from uno_actors.ops.metrics.values import SOURCES, values_of
from uno_actors.store.codec import StreamId
from uno_actors.store.opening import open_store
from uno_actors.testing import failing
from uno_stores import InMemoryEventStore

Shown = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def shown(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples of a Prometheus text, by name and labels; each name may occur once."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}
    assert len(found) == len(samples), "a series is shown twice"
    return found


class Measured:
    """A system with its metrics."""

    def __init__(self, system: ActorSystem, **options: Any) -> None:
        self.system = system
        self.metrics = Metrics(system, **{"store_within": 30.0, **options})

    async def all(self) -> Shown:
        return shown(await self.metrics.text())

    async def get(self, name: str, **labels: str) -> float | None:
        """The value of a series by its name in Prometheus; ``None`` if it is not shown."""
        wanted = tuple(sorted({"system": self.system.name, **labels}.items()))
        return (await self.all()).get((name, wanted))


@asynccontextmanager
async def measured(*handlers: object, **options: Any) -> AsyncIterator[Measured]:
    found = Measured(serving(*handlers, **options))
    async with found.system:
        yield found


# --- definitions -------------------------------------------------------------------------------------------


def test_every_metric_has_one_definition_and_one_source() -> None:
    assert len(BY_NAME) == len(DEFINITIONS)
    counted = {name for name, _, _ in Recorder().histograms()}
    of_families = {each.name for each in DEFINITIONS if each.kind == "histogram" and each.labels}
    plain = {each.name for each in DEFINITIONS if each.kind != "histogram"}
    assert set(SOURCES) == plain
    assert counted | of_families == {each.name for each in DEFINITIONS if each.kind == "histogram"}


def test_names_follow_the_conventions_of_both_worlds() -> None:
    for each in DEFINITIONS:
        assert re.fullmatch(r"uno(\.[a-z_]+)+", each.name)
        assert each.unit in ("", "s", "By") or re.fullmatch(r"\{[a-z]+\}", each.unit)
        assert each.prometheus_name.endswith("_total") == (each.kind == "counter")
        assert ("_seconds" in each.prometheus_name) == (each.unit == "s")
    assert len({each.prometheus_name for each in DEFINITIONS}) == len(DEFINITIONS)


def test_no_label_is_an_id() -> None:
    """A label has a value for each series: ids, keys, hosts and texts have too many."""
    allowed = {
        "actor",
        "aggregate",
        "command",
        "event",
        "handler",
        "log",
        "outcome",
        "state",
        "supervisor",
        "way",
    }
    assert {label for each in DEFINITIONS for label in each.labels} <= allowed


async def test_values_have_the_labels_of_their_definition() -> None:
    async with measured(Mail().spec()) as bank:
        await bank.system.aggregate(Account, "alice").ask(Credit(amount=1))
        await bank.system.settled()
        reading = await bank.metrics.read()
        for definition, values in values_of(reading, bank.metrics.recorder):
            for value in values:
                assert len(value.labels) == len(definition.labels), definition.name


def test_the_recorder_makes_the_runtime_bind_no_contexts() -> None:
    overridden = {hook for hook in HOOKS if getattr(Recorder, hook) is not getattr(Observer, hook)}
    assert overridden
    assert overridden <= CONTEXT_FREE
    assert not Observation([Recorder()]).in_contexts


# --- commands and events -----------------------------------------------------------------------------------


async def test_commands_are_counted_by_type_and_outcome() -> None:
    async with measured() as bank:
        account = bank.system.aggregate(Account, "alice")
        await account.ask(Credit(amount=3))
        await account.ask(Credit(amount=3))
        with pytest.raises(CommandRejected):
            await account.ask(Debit(amount=9))
        labels = {"aggregate": "Account", "command": "Credit"}
        assert await bank.get("uno_commands_total", **labels, outcome="handled") == 2
        assert (
            await bank.get("uno_commands_total", **labels, outcome="failed") == 0
        )  # shown from the first on
        labels["command"] = "Debit"
        assert await bank.get("uno_commands_total", **labels, outcome="rejected") == 1
        assert await bank.get("uno_events_total", aggregate="Account", event="Credited") == 2


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CommandRejected("no"), "rejected"),
        (AskTimeout("a", "c", 1.0, started=False, doing=""), "timeout"),
        (ConcurrencyConflict("s", 1, 2), "conflict"),
        (ValueError("x"), "failed"),
    ],
    ids=["rejected", "timeout", "conflict", "failed"],
)
def test_each_error_has_an_outcome(error: BaseException, outcome: str) -> None:
    assert outcome_of(error) == outcome
    assert outcome in OUTCOMES


async def test_a_command_whose_time_is_over_counts_once_as_a_timeout() -> None:
    store = BankStore()
    async with measured(store=store) as bank:
        account = bank.system.aggregate(Account, "alice")
        await account.ask(Credit(amount=1))
        store.gate.clear()
        first = account.ask(Credit(amount=1))
        with pytest.raises(AskTimeout):
            await bank.system.aggregate(Account, "alice").ask(Balance(), timeout=0.01)
        store.gate.set()
        await first
        await until(lambda: not bank.system.statistics().commands_waiting)
        text = await bank.all()
        ends = [value for (name, _), value in text.items() if name == "uno_commands_total"]
        assert sum(ends) == 3
        histogram = await bank.get("uno_command_time_seconds_count", aggregate="Account")
        assert histogram == 3


async def test_times_in_queue_and_deciding_and_committing_are_distributions() -> None:
    async with measured() as bank:
        account = bank.system.aggregate(Account, "alice")
        await asyncio.gather(*(account.ask(Credit(amount=1)) for _ in range(50)))
        assert await bank.get("uno_command_queue_time_seconds_count", aggregate="Account") == 50
        labels = {"aggregate": "Account", "command": "Credit"}
        assert await bank.get("uno_command_decide_time_seconds_count", **labels) == 50
        assert await bank.get("uno_command_time_seconds_count", aggregate="Account") == 50
        appends = await bank.get("uno_append_time_seconds_count")
        assert appends == bank.system.statistics().commits
        assert await bank.get("uno_append_group_sum") == await bank.get("uno_append_group_count")
        assert await bank.get("uno_aggregate_load_time_seconds_count", aggregate="Account") == 1


async def test_the_time_of_a_command_includes_its_commit_and_the_time_in_queue_does_not() -> None:
    store = BankStore()
    async with measured(store=store) as bank:
        account = bank.system.aggregate(Account, "alice")
        await account.ask(Balance())
        store.gate.clear()
        asked = account.ask(Credit(amount=1))
        await asyncio.sleep(0.06)
        store.gate.set()
        await asked
        assert (await bank.get("uno_command_time_seconds_sum", aggregate="Account") or 0) >= 0.05
        assert (await bank.get("uno_command_queue_time_seconds_sum", aggregate="Account") or 1) < 0.05


async def test_the_time_in_queue_includes_the_wait_for_the_load() -> None:
    held = asyncio.Event()

    class Slow(BankStore):
        async def read_stream(self, stream: StreamId, after_version: int = 0, limit: int = 100) -> Any:
            await held.wait()
            return await super().read_stream(stream, after_version, limit)

    store = Slow()
    async with measured(store=store) as bank:
        asked = bank.system.aggregate(Account, "alice").ask(Credit(amount=1))
        await asyncio.sleep(0.06)
        held.set()
        await asked
        queued = await bank.get("uno_command_queue_time_seconds_sum", aggregate="Account")
        assert queued is not None
        assert queued >= 0.05


async def test_commands_that_wait_and_the_age_of_the_oldest_are_shown() -> None:
    store = BankStore()
    store.gate.clear()
    async with measured(store=store) as bank:
        asked = bank.system.aggregate(Account, "alice").ask(Credit(amount=1))
        await until(lambda: store.commits_asked)
        assert await bank.get("uno_commands_waiting") == 1
        assert (await bank.get("uno_commands_oldest_seconds") or 0) > 0
        store.gate.set()
        await asked
        assert await bank.get("uno_commands_waiting") == 0
        assert await bank.get("uno_commands_oldest_seconds") is None


# --- handlers ----------------------------------------------------------------------------------------------


async def test_lag_is_shown_in_events_and_in_seconds_of_the_real_end() -> None:
    """Of a paused handler, too: its place stands still while the log grows."""
    mail = Mail()
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    async with measured(mail.spec()) as bank:
        assert await bank.get("uno_handler_lag", handler="mail") == 0
        await bank.system.pause("mail")
        await bank.system.store.append(Credited(amount=1, timestamp=hour_ago), *credited(2))
        assert await bank.get("uno_handler_lag", handler="mail") == 2
        lag = await bank.get("uno_handler_lag_time_seconds", handler="mail")
        assert lag is not None
        assert 3600 <= lag < 3700
        assert await bank.get("uno_handler_paused", handler="mail") == 1
        assert await bank.get("uno_handler_running", handler="mail") == 0
        await bank.system.resume("mail")
        await bank.system.settled()
        assert await bank.get("uno_handler_lag", handler="mail") == 0
        assert await bank.get("uno_handler_lag_time_seconds", handler="mail") == 0
        assert await bank.get("uno_handler_position", handler="mail") == 2
        assert await bank.get("uno_handler_running", handler="mail") == 1
        assert await bank.get("uno_handler_events_total", handler="mail") == 2
        assert await bank.get("uno_handler_time_seconds_count", handler="mail") == 2


async def test_events_that_a_handler_does_not_want_are_no_lag_in_seconds() -> None:
    """A handler of rare events is not late because others are recorded."""
    mail = Mail()
    async with measured(mail.spec()) as bank:
        await bank.system.pause("mail")
        account = bank.system.aggregate(Account, "alice")
        await account.ask(Credit(amount=5))
        await bank.system.resume("mail")
        await bank.system.settled()
        await bank.system.pause("mail")
        await account.ask(Debit(amount=5))
        assert await bank.get("uno_handler_lag", handler="mail") == 1
        assert await bank.get("uno_handler_lag_time_seconds", handler="mail") == 0


async def test_attempts_restarts_and_dead_letters_are_counted_and_drops_seen() -> None:
    mail = Mail()
    mail.fails = True
    tree = Supervisor("mails", [mail.spec(max_attempts=2)], backoff=Backoff(0.001, 0.001))
    async with measured(supervisors=[tree]) as bank:
        assert await bank.get("uno_dead_letters", handler="mail") == 0
        await bank.system.store.append(*credited(1))
        await until(lambda: bank.system.statistics().handlers["mail"].dead_letters)
        await bank.system.settled()
        assert await bank.get("uno_handler_attempts_total", handler="mail", outcome="failed") == 2
        assert await bank.get("uno_handler_restarts_total", handler="mail") == 2
        assert await bank.get("uno_handler_set_aside_total", handler="mail") == 1
        assert await bank.get("uno_dead_letters", handler="mail") == 1
        assert await bank.get("uno_supervisor_restarts_total", supervisor="mails") == 2
        assert await bank.get("uno_supervisor_budget_left", supervisor="mails") == 3
        assert await bank.get("uno_supervisor_budget_left", supervisor="handlers") is None  # without a limit
        await bank.system.store.drop_dead_letter("mail", 1)
        assert await bank.get("uno_dead_letters", handler="mail") == 0
        assert await bank.get("uno_handler_set_aside_total", handler="mail") == 1  # a counter never falls


async def test_a_partitioned_handler_is_one_series_with_the_place_of_its_last_partition() -> None:
    async with measured(Mail().spec(partitioned=4)) as bank:
        await bank.system.store.append(*credited(*range(20)))
        await bank.system.settled()
        text = await bank.all()
        handlers = {dict(labels).get("handler") for (name, labels) in text if name.startswith("uno_handler")}
        assert handlers == {"mail"}
        assert await bank.get("uno_handler_events_total", handler="mail") == 20
        assert await bank.get("uno_handler_lag", handler="mail") == 0


async def test_a_handler_of_plain_functions_is_measured_on_its_threads() -> None:
    def handle(event: Credited) -> None: ...

    async with measured(HandlerSpec("plain", handle, Credited, start="earliest")) as bank:
        await bank.system.store.append(*credited(*range(20)))
        await bank.system.settled()
        assert await bank.get("uno_handler_time_seconds_count", handler="plain") == 20


async def test_a_process_that_only_stands_by_shows_where_the_handler_is() -> None:
    store = BankStore()
    first, second = Mail(), Mail()
    async with serving(first.spec(), store=store) as other, measured(second.spec(), store=store) as bank:
        await store.append(*credited(1, 2))
        await other.settled()
        await until(lambda: store.saved.get("mail") == 2)
        assert await bank.get("uno_handler_running", handler="mail") == 0
        assert await bank.get("uno_handler_position", handler="mail") == 2
        assert await bank.get("uno_handler_lag", handler="mail") == 0


# --- actors, loop, threads, store --------------------------------------------------------------------------


class Sleeper(Actor):
    """Waits until it may go on."""

    goes_on: asyncio.Event

    async def on_receive(self, message: object) -> None:
        await self.goes_on.wait()


async def test_mailboxes_are_shown_by_class_of_actor() -> None:
    async with measured() as bank:
        Sleeper.goes_on = asyncio.Event()
        for _ in range(2):
            ref = await bank.system.spawn(Sleeper)
            for _ in range(4):
                ref.tell("wait")
        await until(lambda: bank.system.statistics().messages.waiting == 6)
        assert await bank.get("uno_actors", actor="Sleeper") == 2
        assert await bank.get("uno_mailbox_waiting", actor="Sleeper") == 6
        assert (await bank.get("uno_mailbox_oldest_seconds", actor="Sleeper") or 0) > 0
        Sleeper.goes_on.set()


async def test_the_delay_of_the_loop_is_measured_without_traffic() -> None:
    async with measured() as bank:
        await until(lambda: _has_beaten(bank))


async def _has_beaten(bank: Measured) -> bool:
    return (await bank.get("uno_loop_delay_seconds_count") or 0) >= 1


async def test_the_store_shows_its_size_and_the_time_of_its_commits(tmp_path: Path) -> None:
    store = open_store(f"lmdb:{tmp_path}/store", EVENTS)
    async with store, measured(store=store) as bank:
        await bank.system.aggregate(Account, "alice").ask(Credit(amount=1))
        assert (await bank.get("uno_store_size_bytes") or 0) > 0
        assert (await bank.get("uno_store_commits_total") or 0) >= 1
        assert (await bank.get("uno_store_commit_time_seconds_total") or 0) > 0
        assert await bank.get("uno_log_position", log="0") == 1


async def test_a_store_that_hangs_or_fails_leaves_the_rest_of_the_metrics() -> None:
    store = HungStore()
    async with measured(Mail().spec(), store=store) as bank:
        assert await bank.get("uno_store_up") == 1
        with failing(store, "last_position"):
            assert await bank.get("uno_store_up") == 0
            assert await bank.get("uno_handler_lag", handler="mail") is None  # rather than an old value
            assert await bank.get("uno_handler_waiting", handler="mail") == 0
        assert await bank.get("uno_store_up") == 1


async def test_a_hanging_store_is_asked_once_and_not_waited_for() -> None:
    store = HungStore()
    system = serving(Mail().spec(), store=store)
    bank = Measured(system, store_within=0.01)
    async with system:
        store.reads.clear()
        before = store.asked
        for _ in range(3):
            assert await bank.get("uno_store_up") == 0
        assert store.asked <= before + 1
        store.reads.set()


async def test_nodes_show_members_and_hops() -> None:
    store = BankStore()
    async with (
        measured(store=store, cluster=True) as first,
        measured(store=store, cluster=True) as second,
    ):
        await until(lambda: len(first.system.cluster.members()) == 2)
        await until(lambda: len(second.system.cluster.members()) == 2)
        for number in range(12):
            await first.system.aggregate(Account, f"a{number}").ask(Credit(amount=1))
        sent = await first.get("uno_cluster_commands_total", way="sent")
        assert sent
        assert await first.get("uno_cluster_members") == 2
        assert await first.get("uno_hop_time_seconds_count") == sent
        assert await second.get("uno_cluster_commands_total", way="served") == sent
        labels = {"aggregate": "Account", "command": "Credit", "outcome": "handled"}
        assert await second.get("uno_commands_total", **labels) == sent  # counted where they are handled
        assert await first.get("uno_commands_total", **labels) == 12 - sent


# --- the life of a system ----------------------------------------------------------------------------------


async def test_metrics_are_shown_before_the_start_and_after_the_stop() -> None:
    bank = Measured(serving(Mail().spec()))
    assert await bank.get("uno_system_running") == 0
    async with bank.system:
        await bank.system.aggregate(Account, "alice").ask(Credit(amount=1))
        assert await bank.get("uno_system_running") == 1
    assert await bank.get("uno_system_running") == 0
    assert await bank.get("uno_store_up") == 0
    labels = {"aggregate": "Account", "command": "Credit", "outcome": "handled"}
    assert await bank.get("uno_commands_total", **labels) == 1


async def test_a_system_that_runs_is_too_late_to_be_measured() -> None:
    async with serving() as system:
        with pytest.raises(SystemNotRunning, match="takes no more observers"):
            Metrics(system)


def test_the_time_for_the_store_must_be_one() -> None:
    with pytest.raises(InvalidNumber, match="store_within"):
        Metrics(serving(), store_within=0)


async def test_metrics_can_be_read_from_another_thread_and_from_another_loop() -> None:
    """As from a web server with a loop of its own, or a synchronous one."""
    bank = Measured(serving(Mail().spec()))
    async with bank.system:
        await bank.system.aggregate(Account, "alice").ask(Credit(amount=1))
        for text in (
            await asyncio.to_thread(bank.metrics.prometheus_text),
            await asyncio.to_thread(lambda: asyncio.run(bank.metrics.text())),
            bank.metrics.prometheus_text(),  # on the loop itself, where it cannot wait
        ):
            assert shown(text)["uno_store_up", (("system", "bank"),)] == 1


async def test_a_loop_that_is_held_does_not_hold_a_thread_that_reads() -> None:
    released, held = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        released.wait()

    bank = Measured(serving(), store_within=0.01)
    with bank.system:
        bank.system.run(_call_soon(hold))
        await asyncio.to_thread(held.wait)
        try:
            text = await asyncio.to_thread(bank.metrics.prometheus_text)
        finally:
            released.set()
        assert "uno_system_running" in text


async def _call_soon(function: Any) -> None:
    asyncio.get_running_loop().call_later(0.1, function)  # when the caller has its answer


def test_two_systems_have_metrics_of_their_own_and_names_that_tell_them_apart() -> None:
    """As in tests, or after a reload: nothing is registered in the process."""
    first, second = Metrics(serving()), Metrics(ActorSystem("memory:", handlers=[], name="other"))
    texts = first.prometheus_text(), second.prometheus_text()
    assert 'system="bank"' in texts[0]
    assert 'system="other"' in texts[1]


def test_metrics_join_those_of_a_program_and_two_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    registry.register(Metrics(serving()))
    assert registry.get_sample_value("uno_system_running", {"system": "bank"}) == 0
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(Metrics(serving()))


# --- Prometheus --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind", "families"),
    [
        ("", "text/plain", text_string_to_metric_families),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", openmetrics_families),
    ],
)
async def test_a_scraper_gets_the_format_that_it_accepts(accept: str, kind: str, families: Any) -> None:
    system = serving(Mail().spec())
    app = endpoints_app(system, Metrics(system))
    async with system:
        await system.aggregate(Account, "alice").ask(Credit(amount=1))
        answer = await ask(app, "/metrics", headers={"Accept": accept})
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        kinds = {family.name: family.type for family in families(answer.text)}
        for each in DEFINITIONS:
            name = each.prometheus_name.removesuffix("_total")
            assert kinds.get(name, each.kind) == each.kind, name
        assert kinds["uno_commands"] == "counter"


async def test_fastapi_takes_the_routes_as_they_are_and_does_not_describe_them() -> None:
    system = serving()
    app = FastAPI(routes=operating_routes(system, Metrics(system)), lifespan=lifespan(system))
    async with app.router.lifespan_context(app):
        answers = [await ask(app, path) for path in ("/livez", "/readyz", "/metrics", "/openapi.json")]
    assert [answer.status for answer in answers] == [200] * 4
    assert answers[-1].json["paths"] == {}


async def test_the_metrics_of_a_system_are_found_where_its_routes_are_made() -> None:
    """So that the live page shows them, too."""
    system = serving()
    metrics = Metrics(system)
    async with system:
        assert (await ask(endpoints_app(system), "/metrics")).status == 200
        assert metrics.system is system


async def test_there_is_no_route_for_metrics_without_metrics() -> None:
    async with serving() as system:
        assert (await ask(endpoints_app(system), "/metrics")).status == 404


def test_buckets_are_cumulative_and_end_without_a_limit() -> None:
    metrics = Metrics(serving())
    for value in (0.0001, 0.0005, 0.3, 99.0):
        metrics.recorder.hop_measured("b", value, None)
    text = shown(metrics.prometheus_text())
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in text.items()
        if name == "uno_hop_time_seconds_bucket"
    }
    assert (buckets["0.0005"], buckets["0.25"], buckets["0.5"], buckets["10.0"], buckets["+Inf"]) == (
        2,
        2,
        3,
        3,
        4,
    )
    assert text["uno_hop_time_seconds_sum", (("system", "bank"),)] == pytest.approx(99.3006)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, call in (
        ("prometheus_client.exposition", lambda: Metrics(serving()).prometheus_text()),
        ("opentelemetry.metrics", lambda: Metrics(serving()).opentelemetry()),
        ("starlette.responses", lambda: endpoints_app(serving())),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, module, None)
            patch.delitem(__import__("sys").modules, "uno_actors.ops.metrics.opentelemetry", raising=False)
            with pytest.raises(MissingExtra, match=r"pip install 'uno-actors\[(metrics|otel|page)\]'"):
                call()


# --- OpenTelemetry -----------------------------------------------------------------------------------------


class Exported:
    """What an SDK of OpenTelemetry exports of a system."""

    def __init__(self, metrics: Metrics) -> None:
        self.reader = InMemoryMetricReader()
        metrics.opentelemetry(MeterProvider([self.reader]))

    def points(self) -> Iterator[tuple[str, Any, Any]]:
        """Name, kind of data and data point of each series."""
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        yield metric.name, metric, point

    def get(self, name: str, **labels: str) -> Any:
        wanted = {f"uno.{label}": value for label, value in {"system": "bank", **labels}.items()}
        (found,) = [point for each, _, point in self.points() if each == name and point.attributes == wanted]
        return found


async def test_opentelemetry_exports_the_same_metrics() -> None:
    mail = Mail()
    bank = Measured(serving(mail.spec()))
    exported = Exported(bank.metrics)
    async with bank.system:
        account = bank.system.aggregate(Account, "alice")
        for _ in range(3):
            await account.ask(Credit(amount=1))
        await bank.system.settled()
        bank.metrics.recorder.beat(0.001)
        await bank.metrics.read()
        labels = {"aggregate": "Account", "command": "Credit"}
        assert exported.get("uno.commands", **labels, outcome="handled").value == 3
        deciding = exported.get("uno.command.decide.time", **labels)
        assert (deciding.count, tuple(deciding.explicit_bounds)) == (3, SECONDS)
        assert exported.get("uno.handler.lag", handler="mail").value == 0
        assert exported.get("uno.store.up").value == 1
        found = {name: metric for name, metric, _ in exported.points()}
        text = {name for name, _ in await bank.all()}
        for each in DEFINITIONS:
            shown_as = {"counter": "", "gauge": "", "histogram": "_count"}[each.kind]
            is_shown = f"{each.prometheus_name}{shown_as}" in text
            has_values = each.kind != "histogram" or each.name in found
            if is_shown and has_values:
                assert (found[each.name].unit, found[each.name].description) == (each.unit or "1", each.help)
        assert set(found) <= set(BY_NAME)


async def test_opentelemetry_reads_from_the_thread_of_its_exporter() -> None:
    bank = Measured(serving(Mail().spec()))
    exported = Exported(bank.metrics)
    async with bank.system:
        await bank.system.store.append(*credited(1))
        await bank.system.settled()
        position = await asyncio.to_thread(lambda: exported.get("uno.handler.position", handler="mail").value)
        assert position == 1


async def test_a_handler_that_is_gone_is_exported_no_more() -> None:
    bank = Measured(serving(Mail().spec()))
    exported = Exported(bank.metrics)
    async with bank.system:
        await bank.metrics.read()
        assert exported.get("uno.handler.paused", handler="mail").value == 0
        await bank.system.unsubscribe("mail")
        await bank.metrics.read()
        assert not [name for name, _, _ in exported.points() if name == "uno.handler.paused"]
        assert await bank.get("uno_handler_paused", handler="mail") is None


# --- bounds ------------------------------------------------------------------------------------------------


def test_series_beyond_the_limit_share_one() -> None:
    family: Family[list[int]] = Family(list, 2, most=3)
    for number in range(10):
        family["type", str(number)].append(number)
        family["type", str(number)].append(number)
    found = dict(family.items())
    assert list(found) == [("type", "0"), ("type", "1"), ("type", "2"), ("other", "other")]
    assert len(found["other", "other"]) == 14


def _commands_of(number: int) -> Any:
    return type(f"Command{number}", (), {})()


def test_metrics_of_any_number_of_types_are_bounded_and_add_up() -> None:
    """A program may make classes of commands and events while it runs, and types may come from a mistake."""
    recorder, many = Recorder(), 3 * MOST_SERIES
    for number in range(many):
        recorder.command_measured(StreamId(f"Type{number}", "x"), _commands_of(number), 0, 0, 0, None)
    reading = Reading(is_running=True)
    values = {definition.name: series for definition, series in values_of(reading, recorder)}
    assert len(values["uno.commands"]) <= (MOST_SERIES + 1) * len(OUTCOMES)
    assert len(values["uno.command.time"]) <= MOST_SERIES + 1
    assert sum(each.value for each in values["uno.commands"] if isinstance(each.value, float)) == many
    counts = [each.value.count for each in values["uno.command.time"] if not isinstance(each.value, float)]
    assert sum(counts) == many


def test_two_classes_of_one_name_share_a_series() -> None:
    recorder = Recorder()
    for command in (_commands_of(1), _commands_of(1)):
        recorder.command_measured(StreamId("Account", "x"), command, 0, 0, 0, None)
    (only,) = [
        count.value
        for labels, count in recorder.commands.items()
        if labels == ("Account", "Command1", "handled")
    ]
    assert only == 2


@pytest.mark.parametrize("values", [[], [0.0], [0.0005] * 3, [1e9], [0.003, 0.2, 7, 11, 0.00001]])
def test_a_histogram_counts_each_value_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.add(value)
    found = histogram.value()
    limits = [*SECONDS, float("inf")]
    wanted = [0] * len(limits)
    for value in values:
        wanted[next(place for place, limit in enumerate(limits) if value <= limit)] += 1
    assert (list(found.counts), found.sum) == (wanted, pytest.approx(sum(values)))
    assert histogram.value() == found


def test_the_values_that_wait_to_be_counted_are_few() -> None:
    recorder = Recorder()
    for _ in range(5):
        for _ in range(10_000):
            recorder.command_measured(StreamId("Account", "x"), _commands_of(0), 0, 0, 0, None)
        recorder.beat(0.0)
        assert all(not histogram.waiting for _, _, histogram in recorder.histograms())


def test_a_sampler_passes_all_values_on_until_there_are_many() -> None:
    taken: list[float] = []
    sampler = Sampler(lambda name, labels, value: taken.append(value))
    for number in range(SAMPLES):
        sampler.add("m", (), number)
    sampler.beat()
    assert taken == list(range(SAMPLES))
    for beat in range(5):
        taken.clear()
        for number in range(20_000):
            sampler.add("m", (), number)
        sampler.beat()
        assert len(taken) <= BURST
        if beat:  # from now on it knows how many there are
            assert SAMPLES / 2 < len(taken) < SAMPLES * 2
            assert 7_000 < sum(taken) / len(taken) < 13_000  # of the whole beat, not of its beginning


def test_names_cannot_break_the_text() -> None:
    metrics = Metrics(ActorSystem("memory:", handlers=[], name=HOSTILE))
    metrics.recorder.handler_measured(f'a"}} 1\nuno_forged{{x="{HOSTILE}\ud800', 1, 0.1, None)
    text = metrics.prometheus_text()
    assert "uno_forged" not in {name for name, _ in shown(text)}
    assert all(line.isprintable() for line in text.split("\n"))


async def test_names_of_handlers_cannot_break_the_text() -> None:
    name = 'a"} 1 <b>\x1b[2J\u202e'
    async with measured(HandlerSpec(name, Mail().handle, Credited, start="earliest")) as bank:
        text = await bank.metrics.text()
        assert all(line.isprintable() for line in text.split("\n"))
        assert await bank.get("uno_handler_lag", handler='a"} 1 <b>\\x1b[2J\\u202e') == 0


async def test_memory_store_reports_no_size() -> None:
    async with measured(store=BankStore()) as bank:
        assert isinstance(bank.system.store, InMemoryEventStore)
        assert await bank.get("uno_store_size_bytes") is None


# --- the documentation -------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_has_the_table_of_the_definitions() -> None:
    generate = runpy.run_path(str(DOCS / "generate.py"))
    page = generate["with_tables"]((DOCS / "reference" / "metrics.md").read_text(encoding="utf-8"))
    rows = dict(re.findall(r"^\| `(uno\.[a-z_.]+)` \| `(\w+)` \|", page, re.MULTILINE))
    assert rows == {each.name: each.prometheus_name for each in DEFINITIONS}


@pytest.mark.parametrize("page", ["how-to/monitoring.md", "reference/metrics.md"])
def test_alerts_and_examples_name_metrics_that_exist(page: str) -> None:
    known = {each.prometheus_name: each.kind for each in DEFINITIONS}
    text = (DOCS / page).read_text(encoding="utf-8")
    for name in re.findall(r"\buno_(?!actors\b)[a-z_]+", text):
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        is_part = base in known and known[base] == "histogram"
        assert name in known or is_part, name
        assert is_part or known[name] != "histogram", (
            f"{name} is a histogram: it has _bucket, _count and _sum"
        )
