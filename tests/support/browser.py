"""A real Chromium, driven by selenium, and the server's page in it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from serving import PATIENCE

LOOKS = 0.05  # seconds between looks at the page


@dataclass(frozen=True)
class Page:
    """The page in a browser."""

    driver: Chrome

    def open(self, url: str) -> None:
        """Load it anew, with nothing kept from before but the language."""
        self.driver.get(url)
        self.until("['#server', '#key-form', '#error'].some(name => !document.querySelector(name).hidden)")

    def find(self, selector: str) -> WebElement:
        """An element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The words in an element, also where it is hidden."""
        return str(self.run(f"return document.querySelector({selector!r}).innerText"))

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script)

    def until(self, condition: str) -> None:
        """Wait for a JavaScript expression to be true."""
        self.wait(lambda: self.run(f"return {condition}"), condition)

    def wait(self, condition: Callable[[], Any], name: str = "condition") -> None:
        """Wait for something to be true."""
        WebDriverWait(self.driver, PATIENCE, LOOKS).until(lambda _: condition(), f"never true: {name}")

    def reads(self, selector: str, words: str) -> None:
        """Wait for an element to have this text."""
        self.wait(lambda: self.text(selector) == words, f"{selector} reads {words!r}")

    def press(self, keys: str) -> None:
        """Type, wherever the focus is."""
        ActionChains(self.driver).send_keys(keys).perform()

    def done(self) -> str:
        """Wait for a transcript: its text, one line a segment."""
        self.until("!document.querySelector('#result').hidden || !document.querySelector('#error').hidden")
        assert self.run("return document.querySelector('#error').hidden"), self.text("#error")
        return "\n".join(self.run("return [...document.querySelectorAll('#segments .text')].map(e => e.textContent)"))

    def complaints(self) -> list[str]:
        """What the browser has complained about since the last call."""
        log = self.driver.execute(Command.GET_LOG, {"type": "browser"})["value"]
        return [entry["message"] for entry in log if entry["level"] != "INFO"]


@contextmanager
def opened(*arguments: str, downloads: Path | None = None) -> Iterator[Page]:
    """A browser without a window, in English; skips the test where there is no Chromium."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = binary
    fixed = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--lang=en-US", "--hide-scrollbars")
    for argument in (*fixed, "--window-size=1200,900", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if downloads:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    running = Chrome(options, ChromeService(driver))
    try:
        yield Page(running)
    finally:
        running.quit()
