"""Pictures of the dashboard for the handbook, in light and dark (`python -m tests.dashboard.pictures docs/images`)."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from dashboard.build import build
from tests.dashboard.stage import service, stage
from tests.dashboard.test_page import Eyes

SCHEMES = ("light", "dark")
FLEET = [service("demo", "chat", 3)]


@contextmanager
def browser() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1300"):
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={profile}")
        with Chrome(options, ChromeService("/usr/bin/chromedriver")) as driver:
            yield driver


def take(address: str, folder: Path) -> None:
    with browser() as driver:
        eyes = Eyes(driver)
        for scheme in SCHEMES:
            feature = {"name": "prefers-color-scheme", "value": scheme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            driver.get(address)
            eyes.sees("Fleet", "chat", "412 tok/s")
            eyes.click("chat")
            eyes.sees("Load and forecast", "Decisions", "Error budget")
            eyes.until(lambda page: page.find_elements("css selector", ".plot canvas"), "charts")
            driver.save_screenshot(str(folder / f"dashboard-{scheme}.png"))


async def main(folder: Path) -> None:
    build()
    async with stage(FLEET) as address:
        await asyncio.to_thread(take, address, folder)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
