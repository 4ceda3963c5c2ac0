"""The shop: what a customer sees, what a partner gets, and what is left when it is killed."""

import asyncio
import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fastapi.testclient import TestClient
from standardwebhooks import Webhook

from tests.machine import patience
from uno_actors import CommandRejected, Refusal
from uno_actors.testing import ManualClock, given

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "shop"))

from shop import orders  # noqa: E402
from shop.checkout import PAYMENT, Checkout  # noqa: E402
from shop.orders import CancelOrder, Order, OrderCancelled, OrderPaid, OrderPlaced, PlaceOrder  # noqa: E402
from shop.service import app, make_system  # noqa: E402
from shop.stock import Deliver, Release, Reserve, Reserved, Stock  # noqa: E402

PLACED = OrderPlaced(aggregate_id="o-1", book="dune", copies=1, email="ann@example.com")
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode()


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_STORE", f"lmdb:{tmp_path}/log")
    monkeypatch.setenv("SHOP_DATABASE", f"sqlite+aiosqlite:///{tmp_path}/orders.db")
    monkeypatch.setenv("SHOP_OUTBOX", str(tmp_path / "outbox.jsonl"))
    return tmp_path


def mails(shop: Path) -> list[str]:
    lines = (shop / "outbox.jsonl").read_text().splitlines()
    return list({mail["id"]: mail["text"] for mail in map(json.loads, lines)}.values())


def order(http: TestClient, id: str, copies: int = 1) -> dict[str, str]:
    answer = http.put(f"/orders/{id}", json={"book": "dune", "copies": copies, "email": "ann@example.com"})
    assert answer.status_code == 202, answer.text
    return {"Uno-Position": answer.headers["Uno-Position"]}


def test_a_customer_sees_what_became_of_an_order(shop: Path) -> None:
    with TestClient(app) as http:
        assert http.put("/stock/dune", json={"copies": 2}).json() == 2
        assert http.get("/orders", headers=order(http, "o-1")).json()["o-1"] in ("placed", "confirmed")
        while http.get("/orders").json()["o-1"] == "placed":
            pass
        paid = http.post("/orders/o-1/payment", json={})
        position = {"Uno-Position": paid.headers["Uno-Position"]}
        assert http.get("/orders", headers=position).json() == {"o-1": "paid"}
        assert http.post("/orders/o-1/payment", json={}).status_code == 409
        order(http, "o-2", copies=3)
        while (state := http.get("/orders").json().get("o-2", "placed")) == "placed":
            pass
        assert state == "cancelled: only 1 of dune left"
    assert mails(shop) == [
        "Thank you for order o-1",
        "You have paid order o-1",
        "Thank you for order o-2",
        "We have cancelled order o-2",
    ]


async def test_an_order_that_is_not_paid_in_three_days_is_cancelled_and_the_book_put_back() -> None:
    clock = ManualClock()
    async with make_system(clock) as system:
        await system.aggregate(Stock, "dune").ask(Deliver(copies=1))
        await system.aggregate(Order, "o-1").ask(PlaceOrder(book="dune", copies=1, email="ann@example.com"))
        await system.settled()
    async with make_system(clock) as system:  # a restart in between
        clock.leap((PAYMENT - timedelta(minutes=1)).total_seconds())
        await system.settled()
        assert (await system.aggregate(Order, "o-1").at(2)).state == "confirmed"
        clock.leap(120)
        await system.settled()
        assert (await system.aggregate(Order, "o-1").at(3)).state == "cancelled"
        assert (await system.aggregate(Stock, "dune").at(3)).free == 1


class Partner(BaseHTTPRequestHandler):
    """Checks signatures as a partner does."""

    got: list[tuple[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        event = Webhook(SECRET).verify(body, dict(self.headers.items()))
        self.got.append((event["type"], event["subject"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def partner(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    Partner.got = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Partner) as server:
        monkeypatch.setenv("SHOP_HOOK", f"http://127.0.0.1:{server.server_port}/hook")
        monkeypatch.setenv("SHOP_HOOK_SECRET", SECRET)
        Thread(target=server.serve_forever, daemon=True).start()
        yield Partner.got
        server.shutdown()


async def test_a_partner_gets_each_event_signed_and_in_order(partner: list[tuple[str, str]]) -> None:
    async with make_system() as system:
        await system.aggregate(Order, "o-1").ask(PlaceOrder(book="dune", copies=1, email="ann@example.com"))
        await asyncio.wait_for(system.settled(), patience(20))
    assert partner == [("OrderPlaced", "o-1"), ("OrderCancelled", "o-1")]


def test_an_order_is_paid_only_once_its_book_is_reserved() -> None:
    given(Order, PLACED, id="o-1").when(orders.PayOrder()).then(
        CommandRejected("order o-1 is placed, so it cannot be paid")
    )


def test_the_checkout_by_its_rules() -> None:
    reserved = Reserved(order_id="o-1", copies=1)
    given(Checkout).when(PLACED).sends(Reserve(order_id="o-1", copies=1), to=(Stock, "dune"))
    waits = given(Checkout, PLACED).when(reserved).sends(orders.ConfirmOrder(), to=(Order, "o-1"))
    waits.schedules(CancelOrder(reason="not paid"), to=(Order, "o-1"), after=PAYMENT, key="payment")
    paid = OrderPaid(aggregate_id="o-1", email="")
    given(Checkout, PLACED, reserved).when(paid).unschedules("payment").ends()
    refusal = Refusal(Reserve(order_id="o-1", copies=1), "none left")
    given(Checkout, PLACED).when(refusal).sends(CancelOrder(reason="none left"), to=(Order, "o-1"))
    gone = OrderCancelled(aggregate_id="o-1", email="", reason="")
    given(Checkout, PLACED, reserved).when(gone).sends(Release(order_id="o-1"), to=(Stock, "dune")).ends()


ENDS = {
    "orders": "['OrderPaid', 'OrderCancelled', 'OrderCancelled', 'OrderCancelled']",
    "stock": "['Delivered', 'Reserved', 'Reserved', 'Released']",
    "due": "[]",
}


def run(kill_after: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / "shop_killed.py"), str(kill_after)],
        capture_output=True, text=True, check=False, timeout=patience(60), env=os.environ,
    )  # fmt: skip


@pytest.mark.timeout(240)
def test_orders_stock_and_list_are_right_however_often_the_shop_is_killed(shop: Path) -> None:
    kills = 0
    while kills < 60 and (finished := run(13)).returncode == -signal.SIGKILL:
        kills += 1
    assert finished.returncode == 0, finished.stderr
    assert dict(re.findall(r"^(\w+) +(.*)$", finished.stdout, re.MULTILINE)) == ENDS
    assert kills >= 3
    with sqlite3.connect(shop / "orders.db") as database:
        listed = dict(database.execute("SELECT id, state FROM orders"))
    late, dropped = "cancelled: only 0 of dune left", "cancelled: as the customer wishes"
    assert listed == {"paid": "paid", "dropped": dropped, "late": late, "greedy": late}
    assert len(mails(shop)) == 8
