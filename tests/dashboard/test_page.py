"""The built page in a real browser: what a person sees, does with the keyboard, and reads when something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from dashboard.build import build
from e2e.cluster import packages
from e2e.cluster.errors import UnsuitableHost
from e2e.cluster.progress import Progress
from tests.dashboard.stage import Memories, ill, service, stage

T = TypeVar("T")
FLEET = [service("demo", "chat", 3), service("demo", "code", 1, servable="False")]
SILENT_AND_QUICK = """
const wait = window.setTimeout.bind(window);
window.setTimeout = (step, ms) => wait(step, ms / 50);
AbortSignal.timeout = () => { const late = new AbortController(); wait(() => late.abort(), 50); return late.signal; };
const answered = window.fetch;
let asked = 0;
window.fetch = (url, options) => asked++ ? new Promise((_, stop) => { options.signal.onabort = stop; })
  : answered(url, options);
"""
"""The next answer comes, further ones do not, and what takes a second takes 20 ms."""
pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    try:
        packages.install_missing(Progress(), packages.BROWSER)
    except UnsuitableHost as error:
        pytest.skip(str(error))
    build()
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    profile = tmp_path_factory.mktemp("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1700"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options, ChromeService("/usr/bin/chromedriver")) as driver:
        yield driver


class Eyes:
    """What a person does: look, type, follow links. Waits until it is there, at most 15 s."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def sees(self, *texts: str) -> str:
        def page(driver: Chrome) -> str | None:
            shown = driver.find_element(By.TAG_NAME, "body").text
            return shown if all(text in shown for text in texts) else None

        return self.until(page, f"{texts} on the page")

    def until(self, look: Callable[[Chrome], T | None], what: str) -> T:
        found = WebDriverWait(self.driver, 15, ignored_exceptions=()).until(look, f"Not seen: {what}.")
        assert found is not None
        return found

    def click(self, text: str) -> None:
        self.driver.find_element(By.LINK_TEXT, text).click()

    def picture(self, name: str) -> None:
        folder = os.environ.get("FORETIDE_SCREENSHOTS")
        if folder:
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def complaints(self) -> list[str]:
        return [str(one["message"]) for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]


async def looking(chrome: Chrome, address: str, look: Callable[[Eyes], None]) -> None:
    """The browser's calls block, so they run beside the loop that serves the page."""

    def visit() -> None:
        chrome.get("about:blank")
        with contextlib.suppress(IndexError):
            chrome.get_log("browser")
        chrome.get(address)
        look(Eyes(chrome))

    await asyncio.to_thread(visit)


async def test_the_fleet_leads_to_a_service_with_its_forecast_plan_and_reasons(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("Fleet", "chat", "code", "412 tok/s", "predictive")
        eyes.picture("fleet")
        eyes.click("chat")
        shown = eyes.sees("Load and forecast", "Decisions", "Error budget", "100 % left", "2.95 an hour", "95.1%")
        assert " → " in shown, "a decision says from how many to how many"
        assert "tok/s" in shown
        plots = eyes.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".plot canvas"), "charts")
        assert len(plots) == 2
        label = eyes.driver.find_element(By.CSS_SELECTOR, ".plot").get_attribute("aria-label") or ""
        assert "Expected: at most" in label
        eyes.picture("service")
        assert eyes.complaints() == []

    async with stage(FLEET) as address:
        await looking(chrome, address, look)


async def test_a_thousand_services_are_searched_and_paged(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("1–50 of 1000")
        eyes.click("Next")
        eyes.sees("51–100 of 1000", "s0050")
        box = eyes.driver.find_element(By.CSS_SELECTOR, "input[type=search]")
        box.send_keys("s0777")
        eyes.sees("1–1 of 1", "s0777")
        box.send_keys("x")
        eyes.sees("No service matches “s0777x”")

    async with stage([service("demo", f"s{at:04}", at) for at in range(1000)]) as address:
        await looking(chrome, address, look)


async def test_nobody_sees_anything_without_a_token_and_a_wrong_one_is_told_so(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        shown = eyes.sees("Kubernetes token", "Sign in with a Kubernetes token")
        assert "chat" not in shown
        eyes.driver.find_element(By.ID, "token").send_keys("wrong", Keys.ENTER)
        eyes.sees("does not accept this token")
        eyes.picture("sign-in")
        box = eyes.driver.find_element(By.ID, "token")
        box.clear()
        box.send_keys("let-me-in", Keys.ENTER)
        eyes.sees("Fleet", "chat")
        eyes.driver.find_element(By.XPATH, "//button[text()='Sign out']").click()
        eyes.sees("Kubernetes token")

    async with stage(FLEET, anonymous=False) as address:
        await looking(chrome, address, look)


async def test_an_empty_fleet_and_a_lost_service_say_what_to_do(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("No services yet", "kubectl apply")
        eyes.driver.execute_script("location.hash = '#/services/demo/gone'")
        eyes.sees("No service “demo/gone”", "Back to the fleet")
        eyes.driver.execute_script("location.hash = '#/tenants'")
        eyes.sees("acme", "0/12")

    async with stage([]) as address:
        await looking(chrome, address, look)


async def test_gpu_pools_show_layout_reasons_and_the_nodes_under_way(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("Fleet")
        eyes.click("GPU pools")
        shown = eyes.sees(
            "14×1g.10gb", "9 of 9 workers get a slice.", "Being cut anew: 'gpu-2'.", "spot, 1.2 a GPU-hour"
        )
        assert shown.index("gpu-2") < shown.rindex("gpu-1"), "what is not as planned comes first"
        eyes.picture("pools")

    async with stage(FLEET) as address:
        await looking(chrome, address, look)


async def test_an_ill_service_is_marked_and_says_what_is_wrong_what_was_done_and_what_helps(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("▲ Degraded", "▲ QualityDrift")
        eyes.picture("fleet-ill")
        eyes.click("ill")
        shown = eyes.sees(
            "1 cause found.", "WorkerSlow (System)", "10.8 × the 0.038 s elsewhere",
            "restarted worker chat-x1 on node-2, it did not help", "each further attempt waits longer",
            "Compare its node with those of its siblings.", "A fresh worker is as fast as its siblings.",
            "2.1 % of requests fail.", "Likeliest cause: node/node-2: 2 of 2 alerts are on it",
            "2 of 2: weight 50 %", "The new one is 22 % slower.", "It waits for 120 requests more.",
            "6 workers at least, until ", "reaction 'stand-by' of AlertPolicy demo/shop asks for 6",
            "Alert “QueueGrows” of AlertPolicy demo/shop", "bb22 at 50%.", "Compare both revisions.", "AtMaximum",
        )  # fmt: skip
        assert "Two steps passed." not in shown, "what is over waits until it is asked for"
        for summary in eyes.driver.find_elements(By.TAG_NAME, "summary"):
            summary.send_keys(Keys.ENTER)
        eyes.sees("Two steps passed.", "restarted worker chat-x1 on node-2, it helped")
        eyes.picture("ill")
        eyes.driver.find_element(By.XPATH, "//button[text()='Dark']").click()
        eyes.sees("Light")
        eyes.picture("ill-dark")
        eyes.driver.find_element(By.XPATH, "//button[text()='Light']").click()
        assert eyes.complaints() == []

    async with stage([ill("ill")]) as address:
        await looking(chrome, address, look)


async def test_a_service_that_is_well_says_so_too(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        shown = eyes.sees("Nothing is found wrong.", "None fires.", "No rollout has been recorded.")
        assert "by an alert" not in shown.lower(), "no alert asks for anything"

    async with stage(FLEET) as address:
        await looking(chrome, f"{address}#/services/demo/chat", look)


async def test_a_history_that_is_away_is_said_beside_what_is_known(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("The history cannot be read now: Prometheus does not answer.", "Conditions", "predictive")

    async with stage(FLEET, past=Memories(away=True)) as address:
        await looking(chrome, f"{address}#/services/demo/chat", look)


async def test_numbers_of_an_operator_that_is_silent_are_shown_as_old(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("Fleet", "chat", "412 tok/s")
        eyes.driver.execute_script(SILENT_AND_QUICK)  # type: ignore[no-untyped-call]
        eyes.sees("The operator does not answer.", "What you see is as of ", "chat", "412 tok/s")

    async with stage(FLEET) as address:
        await looking(chrome, address, look)


async def test_the_keyboard_reaches_everything_and_the_colours_change(chrome: Chrome) -> None:
    def look(eyes: Eyes) -> None:
        eyes.sees("Fleet", "chat")
        reached = []
        for _ in range(20):
            eyes.driver.switch_to.active_element.send_keys(Keys.TAB)
            reached.append(eyes.driver.switch_to.active_element.text)
        assert {"To the content", "Tenants", "GPU pools", "Dark", "chat", "code"} <= set(reached)
        before = eyes.driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        eyes.driver.find_element(By.XPATH, "//button[text()='Dark']").click()
        eyes.sees("Light")
        assert eyes.driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") != before
        eyes.click("chat")
        eyes.sees("Load and forecast")
        eyes.picture("dark")
        eyes.driver.find_element(By.XPATH, "//button[text()='Light']").click()

    async with stage(FLEET) as address:
        await looking(chrome, address, look)
