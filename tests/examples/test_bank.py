"""The bank as its customers see it: a separate process, over real HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "bank"))

import load

from tests.machine import patience

HERE = Path(__file__).parents[2] / "examples" / "bank"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bank")


@pytest.fixture(scope="module")
def http(directory: Path) -> Iterator[httpx.Client]:
    """One bank for all tests that leave it running: each has customers of its own."""
    with load.service(str(directory)) as (url, _), httpx.Client(base_url=url, timeout=patience(30)) as client:
        yield client


def opened(http: httpx.Client, id: str, balance: int = 0) -> None:
    assert http.post("/accounts", json={"id": id, "owner": id.title()}).status_code == 201
    if balance:
        http.post(f"/accounts/{id}/deposits", json={"amount": balance}).raise_for_status()


def balance(http: httpx.Client, id: str) -> int:
    return int(http.get(f"/accounts/{id}").raise_for_status().json()["balance"])


def ended(http: httpx.Client, transfer: str) -> str:
    """The outcome of the transfer; the deadline is that of the test."""
    while (outcome := http.get(f"/transfers/{transfer}").json()["outcome"]) == "under way":
        time.sleep(0.01)
    return str(outcome)


def test_money_is_paid_in_and_out_and_the_statement_shows_it(http: httpx.Client) -> None:
    opened(http, "ann", 1000)
    assert http.post("/accounts/ann/withdrawals", json={"amount": 300}).json() == {"balance": 700}
    assert http.get("/accounts/ann").json() == {"id": "ann", "owner": "Ann", "balance": 700, "blocked": None}
    statement = http.get("/accounts/ann/statement").json()
    assert [(line["number"], line["what"], line.get("balance")) for line in statement] == [
        (3, "Withdrawn", 700),
        (2, "Deposited", 1000),
        (1, "AccountOpened", None),
    ]
    assert len(http.get("/accounts/ann/statement?limit=1").json()) == 1


def test_a_refusal_is_reported_and_changes_nothing(http: httpx.Client) -> None:
    opened(http, "gus", 100)
    for path, body, status, detail in (
        ("/accounts", {"id": "gus", "owner": "Eve"}, 409, "account gus is open already"),
        ("/accounts/gus/withdrawals", {"amount": 101}, 409, "account gus has 100, which is less than 101"),
        ("/accounts/bob/deposits", {"amount": 1}, 409, "there is no account bob"),
    ):
        answer = http.post(path, json=body)
        assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    assert http.post("/accounts/gus/deposits", json={"amount": 0}).status_code == 422
    assert http.get("/accounts/bob").status_code == 404
    assert http.get("/transfers/transfer-none").status_code == 404
    assert balance(http, "gus") == 100


def test_a_request_that_is_sent_again_takes_effect_once(http: httpx.Client) -> None:
    opened(http, "cleo", 100)
    opened(http, "dan")
    for _ in range(3):
        key = {"Idempotency-Key": "deposit-1"}
        answer = http.post("/accounts/cleo/deposits", json={"amount": 50}, headers=key)
        assert answer.json() == {"balance": 150}
        wish = {"source": "cleo", "target": "dan", "amount": 20}
        transfer = http.post("/transfers", json=wish, headers={"Idempotency-Key": "rent"}).json()["id"]
        assert (transfer, ended(http, transfer)) == ("transfer-rent", "done")
    assert (balance(http, "cleo"), balance(http, "dan")) == (130, 20)
    for path, body in (("deposits", {"amount": 51}), ("withdrawals", {"amount": 50})):
        other = http.post(f"/accounts/cleo/{path}", json=body, headers={"Idempotency-Key": "deposit-1"})
        assert other.status_code == 422
        assert "'deposit-1' is that of another command" in other.json()["detail"]
    assert balance(http, "cleo") == 130


def test_an_impossible_transfer_is_refused_or_undone(http: httpx.Client) -> None:
    opened(http, "eli", 100)
    too_much = http.post("/transfers", json={"source": "eli", "target": "eli", "amount": 101}).json()["id"]
    assert ended(http, too_much) == "refused: account eli has 100, which is less than 101"
    to_nobody = http.post("/transfers", json={"source": "eli", "target": "nobody", "amount": 60}).json()["id"]
    assert ended(http, to_nobody) == "undone: there is no account nobody"
    while balance(http, "eli") != 100:
        time.sleep(0.01)


def test_an_account_is_blocked_after_a_very_large_withdrawal(http: httpx.Client) -> None:
    opened(http, "fay", 2_000_000)
    http.post("/accounts/fay/withdrawals", json={"amount": 1_500_000}).raise_for_status()
    while (blocked := http.get("/accounts/fay").json()["blocked"]) is None:
        time.sleep(0.01)
    assert blocked == "15000.00 were taken at once"
    answer = http.post("/accounts/fay/withdrawals", json={"amount": 1})
    assert (answer.status_code, answer.json()["detail"]) == (409, f"account fay is blocked: {blocked}")


def test_what_happens_to_an_account_can_be_followed(http: httpx.Client) -> None:
    opened(http, "ivy", 100)
    with http.stream("GET", "/accounts/ivy/events", headers={"Last-Event-ID": "0"}) as answer:
        kinds = (line for line in answer.iter_lines() if line.startswith("event: "))
        assert [*islice(kinds, 2)] == ["event: AccountOpened", "event: Deposited"]


def test_every_answer_that_is_an_error_is_a_problem(http: httpx.Client) -> None:
    opened(http, "jon", 100)
    for answer in (
        http.get("/accounts/none"),
        http.post("/accounts/jon/withdrawals", json={"amount": 101}),
        http.post("/accounts/jon/withdrawals", json={"amount": 0}),
    ):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


def receipts(directory: Path) -> list[dict[str, Any]]:
    path = directory / "outbox.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def receipts_of(customer: str, directory: Path) -> list[str]:
    return [receipt["text"] for receipt in receipts(directory) if receipt["account"] == customer]


def test_each_movement_has_a_receipt(http: httpx.Client, directory: Path) -> None:
    opened(http, "hal", 1000)
    http.post("/accounts/hal/withdrawals", json={"amount": 250}).raise_for_status()
    while len(receipts_of("hal", directory)) < 2:
        time.sleep(0.01)
    assert receipts_of("hal", directory) == [
        "Deposited 10.00, your balance is 10.00",
        "Withdrawn 2.50, your balance is 7.50",
    ]


def test_a_killed_bank_resumes_where_it_was(tmp_path: Path) -> None:
    wish = {"source": "ann", "target": "bob", "amount": 10}
    with (
        load.service(str(tmp_path)) as (url, process),
        httpx.Client(base_url=url, timeout=patience(30)) as http,
    ):
        opened(http, "ann", 1000)
        opened(http, "bob")
        transfers = [http.post("/transfers", json=wish).json()["id"] for _ in range(30)]
        process.kill()  # in the midst of them
        process.wait()
    with load.service(str(tmp_path)) as (url, _), httpx.Client(base_url=url, timeout=patience(30)) as http:
        assert {ended(http, transfer) for transfer in transfers} == {"done"}
        assert (balance(http, "ann"), balance(http, "bob")) == (700, 300)
        while len({receipt["id"] for receipt in receipts(tmp_path)}) < 61:
            time.sleep(0.01)


def test_the_configuration_file_is_valid_and_free_of_contradictions() -> None:
    command = Path(sys.executable).with_name("uno-actors")
    run = subprocess.run(
        [command, "check", "bank.toml"], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "warning" not in run.stdout


def test_the_service_reports_its_health_and_stops_on_a_signal(tmp_path: Path) -> None:
    with load.service(str(tmp_path)) as (url, process):
        assert httpx.get(f"{url}/readyz").json() == {"ready": True, "live": True, "reasons": []}
        process.terminate()
        assert process.wait(patience(20)) in (
            0,
            -15,
        )  # uvicorn ends by the signal, or with 0: it differs by version


async def test_under_load_the_books_are_right(tmp_path: Path) -> None:
    with load.service(str(tmp_path)) as (url, _):
        figures = await load.load(url, accounts=10, seconds=2, clients=8, at_least=100)
    assert figures["requests"] > 50
    assert figures["transfers"] > 5
    assert figures["in the books"] == figures["expected"]


def processes_of(directory: Path) -> dict[int, dict[str, Any]]:
    """The nodes that `uno-actors cluster` finds, by their processes."""
    command = Path(sys.executable).with_name("uno-actors")
    run = subprocess.run(
        [command, "cluster", "bank.toml", "--json"],
        cwd=HERE,
        env=os.environ | {"BANK_STORE": f"lmdb:{directory}/store"},
        capture_output=True,
        text=True,
        check=False,
    )
    return {(node := json.loads(line))["member"]["process"]: node for line in run.stdout.splitlines()}


@pytest.mark.timeout(240)
def test_each_worker_of_uvicorn_is_a_node_and_any_of_them_may_be_killed(tmp_path: Path) -> None:
    with load.service(str(tmp_path), workers=2) as (url, _):
        while len(found := processes_of(tmp_path)) < 2:
            pass
        assert all(node["shards"]["Account"] > 400 for node in found.values())
        for number in range(20):
            # Each request is a new connection, which either worker may accept.
            opened = httpx.post(
                f"{url}/accounts", json={"id": f"a{number}", "owner": "Ann"}, timeout=patience(30)
            )
            assert opened.status_code == 201
            for _ in range(3):
                paid = httpx.post(
                    f"{url}/accounts/a{number}/deposits", json={"amount": 1}, timeout=patience(30)
                )
                assert paid.status_code == 200
        found = processes_of(tmp_path)
        assert sum(node["statistics"]["served"] for node in found.values()) > 0
        killed = min(found)
        os.kill(killed, signal.SIGKILL)
        paid_after = 0
        while paid_after < 20:
            with suppress(httpx.TransportError):  # the connection was accepted by the killed worker
                paid = httpx.post(
                    f"{url}/accounts/a{paid_after}/deposits",
                    json={"amount": 1},
                    headers={"Idempotency-Key": f"again-{paid_after}"},
                    timeout=patience(30),
                )
                assert (paid.status_code, paid.json()) == (200, {"balance": 4})
                paid_after += 1
        while len(found := processes_of(tmp_path)) < 2:  # uvicorn starts another one
            pass
        assert killed not in found
