"""The live page in a real browser, on the running flights."""

import os
import struct
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.ops.browser.conftest import Browser, Flights

PAGES = {
    "now": "Commands per second",
    "tree": "billing",
    "handlers": "late-fees",
    "letters": "has no arrival delay",
    "streams": "FlightArrived",
    "trace": "What did one message cause?",
    "cluster": "flights@",
    "scheduled": "Nothing is scheduled",
    "why": "Why is it not done?",
}
"""The pages, each with a text that it has when it is complete."""

PICTURES = os.environ.get("PICTURES")
"""A folder for pictures of the page, as the documentation shows them; see `make pictures`."""


def opened(browser: Browser, name: str, text: str | None = None) -> None:
    browser.open(f"#/{name}")
    browser.sees(PAGES[name] if text is None else text)


def a_stream(browser: Browser) -> str:
    """The page of the stream with the most events among the newest."""
    opened(browser, "streams")
    hrefs = [each.get_attribute("href") for each in browser.all("td a.id")]
    return max(hrefs, key=lambda href: int(href.rpartition("version=")[2] or 0)).partition("/#/")[2]


# --- logging in ----------------------------------------------------------------------------------------------


def test_a_wrong_token_is_refused_and_a_link_works_once(
    flights: Flights, drivers: Callable[[], Any], logged_in: Browser
) -> None:
    stranger = Browser(drivers(), flights.base)
    stranger.open("#/letters")
    stranger.sees("This page can change the work of the system")
    stranger.one("#token").send_keys("not the token")
    stranger.one("button").click()
    stranger.sees("Not logged in: the token is wrong.")
    stranger.open("")
    stranger.sees("This page can change the work of the system")
    stranger.open(f"login?again#{flights.code}")
    stranger.sees("Not logged in: the link was used before, or is too old.")
    assert "#" not in stranger.driver.current_url
    assert stranger.driver.get_cookies() == []


def test_scripts_cannot_read_the_session(browser: Browser) -> None:
    opened(browser, "tree")
    assert browser.driver.execute_script("return document.cookie") == ""
    (cookie,) = browser.driver.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")


# --- the pages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_without_complaints(browser: Browser, name: str) -> None:
    opened(browser, name)
    assert browser.complaints() == []
    assert browser.text("#pages [aria-current]").startswith(browser.text("h1"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*PAGES, "stream", "letter", "login"])
def test_no_page_has_a_serious_barrier(browser: Browser, name: str, scheme: str) -> None:
    browser.media(scheme)
    if name == "stream":
        browser.open(f"#/{a_stream(browser)}")
        browser.sees("State after it")
        browser.sees("What it changed")
    elif name == "letter":
        opened(browser, "letters")
        browser.one(".opens").click()
        browser.sees("Traceback")
    elif name == "login":
        cookies = browser.driver.get_cookies()
        browser.driver.delete_all_cookies()
        browser.open("login")
        browser.sees("Log in")
        found = barriers(browser)
        for cookie in cookies:
            browser.driver.add_cookie(cookie)
        assert found == []
        return
    else:
        opened(browser, name)
    assert barriers(browser) == []


def barriers(browser: Browser) -> list[tuple[str, str, list[Any]]]:
    """What axe-core finds serious, with the elements."""
    driver = browser.driver
    driver.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    driver.set_script_timeout(60)
    found = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert found["passes"]
    return [
        (each["id"], each["help"], [node["html"][:200] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_a_phone(browser: Browser, name: str) -> None:
    browser.media("light", 390, 844)
    opened(browser, name)
    wide = browser.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1] == 390


def test_figures_are_live(browser: Browser) -> None:
    opened(browser, "now")
    browser.sees("live", "#top")

    def handled() -> str:
        return browser.text(".facts")

    first = handled()
    browser.until(lambda: handled() != first, "new totals")
    assert browser.all("figure polyline")


def test_keys_lead_to_the_pages(browser: Browser) -> None:
    opened(browser, "now")
    for key, name in enumerate(PAGES, start=1):
        browser.driver.find_element("css selector", "body").send_keys(str(key))
        browser.sees(PAGES[name])
    browser.driver.find_element("css selector", "body").send_keys("?")
    browser.sees("the search field", "dialog")
    browser.one("dialog button").click()
    browser.until(lambda: not browser.all("dialog"), "the dialog closes")


def test_light_and_dark_are_chosen(browser: Browser) -> None:
    def ground() -> str:
        return str(browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor"))

    opened(browser, "tree")
    light = ground()
    browser.media("dark")
    dark = ground()
    assert light != dark
    theme = next(each for each in browser.all("#top button") if each.text == "Auto")
    theme.click()
    assert (theme.text, ground()) == ("Light", light)
    browser.driver.refresh()
    browser.sees(PAGES["tree"])
    assert ground() == light
    for _ in range(2):
        next(each for each in browser.all("#top button") if each.text in ("Light", "Dark")).click()
    assert ground() == dark


# --- what can be done ----------------------------------------------------------------------------------------


def test_a_dead_letter_is_retried_by_clicking(browser: Browser) -> None:
    opened(browser, "letters")
    letter = browser.all(".letter")[-1]
    key = letter.get_attribute("data-key")
    row = f'.letter[data-key="{key}"]'
    assert "3 attempts" in browser.text(row)
    browser.one(f"{row} input").click()
    browser.one("#retry").click()
    browser.sees("1 dead letter to be retried", "#notes")
    browser.sees("4 attempts", row)  # it fails once more: the delay is still missing


def test_a_dead_letter_is_dropped_after_a_question(browser: Browser) -> None:
    opened(browser, "letters")
    row = f'.letter[data-key="{browser.all(".letter")[-2].get_attribute("data-key")}"]'
    browser.one(f"{row} input").click()
    browser.one("#drop").click()
    browser.sees("The handler never handles the event", "dialog")
    browser.all("dialog button")[0].click()
    browser.until(lambda: not browser.all("dialog"), "the dialog closes")
    assert browser.all(row)
    browser.one("#drop").click()
    browser.one("dialog .danger").click()
    browser.sees("1 dead letter dropped", "#notes")
    browser.until(lambda: not browser.all(row), "the letter is gone")


def test_a_handler_is_paused_and_resumed(browser: Browser) -> None:
    opened(browser, "handlers")
    card = '.handler[data-key="punctuality"]'
    browser.one(f"{card} button").click()
    browser.sees("paused", f"{card} .state")
    browser.one(f"{card} button").click()
    browser.sees("live", f"{card} .state")


def test_a_handler_is_reset_after_its_name_was_typed(browser: Browser) -> None:
    opened(browser, "handlers")
    browser.all('.handler[data-key="cancellations"] button')[1].click()
    browser.one('dialog input[name="confirm"]').send_keys("cancelations")
    browser.one("dialog .danger").click()
    browser.sees("to confirm, give the name 'cancellations' once more", "#notes")
    browser.all('.handler[data-key="cancellations"] button')[1].click()
    browser.one('dialog input[name="confirm"]').send_keys("cancellations")
    browser.one("dialog .danger").click()
    browser.sees("cancellations continues after position 0", "#notes")


def test_a_stream_is_walked_through_by_its_slider(browser: Browser) -> None:
    browser.open(f"#/{a_stream(browser)}")
    browser.sees("State after it")
    slider = browser.one("#version")
    last = int(slider.get_attribute("max"))
    assert last >= 2
    browser.sees(f"Version {last} of {last}")
    for _ in range(last - 1):
        slider.send_keys("\ue012")  # the key to the left
    browser.sees(f"Version 1 of {last}")
    browser.sees("FlightDeparted version 1")
    browser.sees("departed", ".changes .after")
    slider.send_keys("\ue014")
    browser.sees("FlightArrived version 2")
    browser.sees("departed", ".changes .before")
    browser.sees("arrived", ".changes .after")


def test_events_are_found_by_their_topic(browser: Browser) -> None:
    opened(browser, "streams")
    browser.one('input[name="topic"]').send_keys("flights.*.departed\n")
    browser.until(
        lambda: set(browser.text("td:nth-child(3)").split()) == {"FlightDeparted"}, "departed flights alone"
    )
    browser.one('input[name="topic"]').send_keys("..\n")
    browser.sees("invalid topic")


def test_a_trace_is_drawn(browser: Browser) -> None:
    opened(browser, "streams")
    browser.one('td a[aria-label^="Trace"]').click()
    browser.sees("1 event in 0 ms")
    assert browser.all(".trace circle")


def test_the_page_says_why_and_what_mends_it(browser: Browser) -> None:
    opened(browser, "why")
    browser.one('input[name="id"]').send_keys("late-fees\n")
    browser.sees("dead letter")
    browser.sees("uno-actors deadletters")
    browser.one('input[name="id"]').clear()
    browser.one('input[name="id"]').send_keys("late-feez\n")
    browser.sees("Did you mean late-fees?")


# --- hostile text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "\u202eright to left", "\x1b[31mred", "../../etc"]
)
def test_text_from_outside_is_shown_and_never_obeyed(browser: Browser, text: str) -> None:
    browser.open(f"#/streams?{urlencode({'type': text, 'id': text})}")
    browser.sees("there is no stream")
    shown = browser.text("main")
    assert text in shown or f"\\u{{{ord(text[0]):x}}}{text[1:]}" in shown
    assert not browser.all("main img")
    assert not any(each in shown for each in ("\u202e", "\x1b"))


# --- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scheme"), [("now", "light"), ("stream", "dark")])
def test_pictures_show_the_page(browser: Browser, tmp_path: Path, name: str, scheme: str) -> None:
    browser.media(scheme, 1120, 720)
    if name == "stream":
        browser.open(f"#/{a_stream(browser)}")
        browser.sees("State after it")
        browser.until(lambda: browser.all(".changes td"), "the changes")
    else:
        opened(browser, name)
        browser.all(".choice button")[0].click()  # the last minute
        points = "return document.querySelector('polyline')?.getAttribute('points').split(' ').length ?? 0"
        browser.until(lambda: browser.driver.execute_script(points) > (55 if PICTURES else 3), "a plot", 90)
    path = Path(PICTURES or tmp_path) / f"page-{name}.png"
    assert browser.driver.save_screenshot(str(path))
    head = path.read_bytes()[:24]
    assert struct.unpack(">II", head[16:]) == (1120, 720)
    assert 15_000 < path.stat().st_size < 250_000
