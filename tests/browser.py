"""Headless Chromium for tests of pages. Who imports this is skipped, with the reason, where it is not installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[dev]'")

from selenium import webdriver
from selenium.webdriver import ActionChains as ActionChains
from selenium.webdriver.common.by import By as By
from selenium.webdriver.common.keys import Keys as Keys
from selenium.webdriver.support.ui import WebDriverWait as WebDriverWait

if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver", allow_module_level=True)

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
    "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def chromium(width_px: int, height_px: int, log: str) -> Iterator[webdriver.Chrome]:
    """A window of that size; log: what is kept of, "browser" (its console) or "performance" (its network)."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--window-size={width_px},{height_px}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {log: "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
