"""A real browser, and the flights example with its live page."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine import patience

ROOT = Path(__file__).parents[3]
FLIGHTS = ROOT / "examples" / "flights"
ROWS = 700
"""Rows of the week that are flown before the page is opened: some of them end as dead letters."""

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,860",
)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of chromedriver."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with its driver: install the packages chromium and chromium-driver")
    return driver


class Browser:
    """A browser, with the few things that tests do by it."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver = driver
        self.base = base

    def open(self, page: str) -> None:
        self.driver.get("about:blank")  # else the same page would stay as it is
        self.driver.get(f"{self.base}/{page}")

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The first element, as soon as there is one."""
        self.until(lambda: self.all(selector), selector)
        return self.all(selector)[0]

    def text(self, selector: str = "main") -> str:
        """The text that a person sees; read at once, since the page may change it at any moment."""
        found = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText).join('\\n')",
            selector,
        )
        return str(found)

    def until(self, condition: Callable[[], object], what: str = "", seconds: float = 20) -> None:
        deadline = time.monotonic() + patience(seconds)
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(
                    f"not within {patience(seconds):g} s: {what}\n{self.text('body')}\n{self.complaints()}"
                )
            time.sleep(0.02)

    def sees(self, text: str, selector: str = "main") -> None:
        self.until(lambda: text in self.text(selector), text)

    def media(self, scheme: str, width: int = 1280, height: int = 860) -> None:
        """Light or dark, and the size of the window."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def complaints(self) -> list[str]:
        """What the browser has complained of: errors of scripts, and what the policy refused."""
        found = self.driver.get_log("browser")
        return [entry["message"] for entry in found if entry["level"] in ("SEVERE", "WARNING")]


class Flights:
    """The flights example, running, with its live page."""

    def __init__(self, directory: Path) -> None:
        self.environment = {
            name: value for name, value in os.environ.items() if name != "UNO_ACTORS_PAGE_TOKEN"
        }
        week = (FLIGHTS / "flights_2013_week1.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        rows = directory / "rows.csv"
        rows.write_text("".join(week[: ROWS + 1]), encoding="utf-8")
        data = directory / "data"
        self._python(FLIGHTS / "ingest.py", rows, data, "--json")
        self.process = subprocess.Popen(
            [sys.executable, FLIGHTS / "show.py", data, "--page", "127.0.0.1:0", "--rate", "20"],
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"(http://\S+)/login#(\S+)", line):
                self.base, self.code = found[1], found[2]
                return
        pytest.fail("the flights have no page")

    def _python(self, *arguments: str | Path) -> None:
        subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=self.environment
        )

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(patience(30)) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def flights(chromium: str) -> Iterator[Flights]:
    directory = Path(tempfile.mkdtemp())
    running = Flights(directory)
    yield running
    running.close()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def drivers(chromium: str) -> Iterator[Callable[[], Any]]:
    """Starts browsers, each with an empty profile, and ends them."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    started = []

    def start() -> Any:
        options = webdriver.ChromeOptions()
        for option in OPTIONS:
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, Service(chromium))
        started.append(driver)
        return driver

    yield start
    for driver in started:
        driver.quit()


@pytest.fixture(scope="module")
def logged_in(flights: Flights, drivers: Callable[[], Any]) -> Browser:
    """A browser that has followed the link to log in."""
    browser = Browser(drivers(), flights.base)
    browser.open(f"login#{flights.code}")
    browser.sees("Commands per second")
    return browser


@pytest.fixture
def browser(logged_in: Browser) -> Browser:
    logged_in.media("light")
    logged_in.complaints()  # those of the test before
    return logged_in
