"""The page as a visitor meets it, in headless Chromium."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from kit.data.scenes import write_scenes
from tests.browser import By, WebDriverWait, chromium

pytest.importorskip("gradio", reason="Gradio is not installed: pip install -e '.[demo]'")


pytestmark = pytest.mark.slow
PATIENCE_S = 120


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_scenes(
        tmp_path_factory.mktemp("drawn") / "scenes", train=1, val=1, size_px=480, cameras=1, workers=1
    )
    return next((folder / "images" / "val").iterdir())


@pytest.fixture(scope="module")
def temporary(tmp_path_factory) -> Path:
    """Where the server puts what it does not keep."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(starter_at, temporary) -> Iterator[subprocess.Popen[str]]:
    """The command as it is typed, with two models; its address is on its last line."""
    models = [str(starter_at(side, f"at_{side}.pt")) for side in (320, 192)]
    process = subprocess.Popen(
        [sys.executable, "-m", "kit.demo", *models, "--runtime", "torch", "--device", "cpu", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def address(server) -> str:
    for row in server.stdout:
        if found := re.match(r"(http://127\.0\.0\.1:\d+)  \(Ctrl-C ends it\)", row):
            return found[1]
    raise AssertionError("the server ended without telling its address")


@pytest.fixture(scope="module")
def browser(address) -> Iterator[Any]:
    with chromium(1360, 1000, log="performance") as driver:
        yield driver


@pytest.fixture
def page(browser, address) -> "Visit":
    return Visit(browser, address)


class Visit:
    """What a visitor does and sees."""

    def __init__(self, browser: Any, address: str, theme: str = "light"):
        self.browser = browser
        browser.get(f"{address}/?__theme={theme}")
        self.wait_for("Waiting for an image or a video.")

    def text(self, part: str) -> str:
        return " ".join(self.script(f"return document.getElementById('{part}')?.innerText ?? ''").split())

    def script(self, code: str) -> Any:
        return self.browser.execute_script(code)

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, PATIENCE_S).until(lambda _: condition())

    def wait_for(self, said: str) -> str:
        self.wait(lambda: said in self.text("status"))
        return self.text("status")

    def drop(self, path: Path) -> None:
        self.wait(lambda: self.browser.find_elements(By.CSS_SELECTOR, "#upload input[type=file]"))
        self.browser.find_element(By.CSS_SELECTOR, "#upload input[type=file]").send_keys(str(path))

    def widths(self, tag: str) -> list[int]:
        """Of the pictures or videos that are to be seen, as the browser has decoded them."""
        size = "naturalWidth" if tag == "img" else "videoWidth"
        return self.script(f"return [...document.querySelectorAll('.kit-picture {tag}')].map(each => each.{size})")

    def addresses(self) -> set[str]:
        """Of everything that the browser has asked for since it was last asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return {each["request"]["url"] for each in sent}


def found(card: str) -> int:
    return int(re.search(r"(\d+) found", card)[1])


def test_an_image_is_looked_at_by_two_models_side_by_side(page, address, scene, tmp_path):
    page.drop(scene)
    said = page.wait_for("Latency: median of")
    assert f"{scene.name}, 480 x 480 px. The two agree on" in said
    cards = [page.text("card_0"), page.text("card_1")]
    assert cards[0].startswith("at_320.pt D-FINE n, 320 x 320 px, torch fp32 on cpu") and "images/s" in cards[0]
    assert cards[1].startswith("at_192.pt D-FINE n, 192 x 192 px") and found(cards[0]) > 0
    page.wait(lambda: page.widths("img") == [480, 480])

    assert page.browser.save_screenshot(str(tmp_path / "page.png"))
    shot = cv2.imread(str(tmp_path / "page.png"))
    left, right = shot[450:, 80:660], shot[450:, 700:1280]
    assert min(left.std(), right.std()) > 30  # pictures, not empty frames
    assert all(url.startswith((address, "data:", "blob:")) for url in page.addresses())


def test_a_higher_threshold_shows_fewer_and_a_lower_one_more(page, scene):
    page.drop(scene)
    page.wait_for("Latency: median of")
    before = found(page.text("card_0"))
    set_threshold(page, "0.95")
    page.wait(lambda: found(page.text("card_0")) == 0)
    set_threshold(page, "0.1")
    page.wait(lambda: found(page.text("card_0")) > before)


def set_threshold(page: Visit, value: str) -> None:
    field = page.browser.find_element(By.CSS_SELECTOR, "#threshold input[type=number]")
    page.script(f"""
        const field = document.querySelector('#threshold input[type=number]');
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, '{value}');
        for (const kind of ['input', 'change', 'blur']) field.dispatchEvent(new Event(kind, {{bubbles: true}}));
    """)
    assert field.get_attribute("value") == value


def test_without_a_second_model_one_column_is_left(page, scene):
    page.drop(scene)
    page.wait_for("The two agree")
    page.browser.find_element(By.CSS_SELECTOR, "#second input").click()
    options = page.wait(lambda: page.browser.find_elements(By.CSS_SELECTOR, "[role=option]"))
    next(option for option in options if "nothing" in option.text).click()
    page.wait(lambda: page.text("card_1") == "" and "The two agree" not in page.text("status"))
    page.wait(lambda: page.widths("img") == [480])


def test_a_broken_file_is_told_and_the_next_one_is_taken(page, scene, tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(scene.read_bytes()[:900])
    page.drop(torn)
    page.wait_for("torn.png: ")
    assert page.script("return document.querySelector('#status .wrong') !== null")
    page.drop(scene)
    page.wait_for("Latency: median of")


def test_a_video_is_played_with_its_boxes(page, video):
    page.drop(video)
    said = page.wait_for("Latency: median of all frames")
    assert said.startswith("street.mp4, 6 frames.") and "frames/s" in page.text("card_0")
    page.wait(lambda: page.widths("video") == [80, 80])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser, address, scene, theme):
    page = Visit(browser, address, theme)
    page.drop(scene)
    page.wait_for("Latency: median of")
    grounds = {
        part: contrast(page, part) for part in (".kit-head h1", ".kit-head p", ".kit-quiet", ".kit-name", ".kit-line")
    }
    assert min(grounds.values()) > 4.5, grounds  # WCAG 2.1, level AA
    dark = page.script("return document.body.classList.contains('dark')")
    assert dark == (theme == "dark")


def contrast(page: Visit, part: str) -> float:
    """Of an element's words with the ground they stand on, as the browser has painted both."""
    colours = page.script(f"""
        const context = new OffscreenCanvas(1, 1).getContext('2d', {{willReadFrequently: true}});
        let ground = document.querySelector('{part}');
        context.fillStyle = getComputedStyle(ground).color;
        context.fillRect(0, 0, 1, 1);
        const ink = [...context.getImageData(0, 0, 1, 1).data];
        const clear = each => ['rgba(0, 0, 0, 0)', 'transparent'].includes(getComputedStyle(each).backgroundColor);
        while (clear(ground)) ground = ground.parentElement;
        context.fillStyle = getComputedStyle(ground).backgroundColor;
        context.fillRect(0, 0, 1, 1);
        return [ink, [...context.getImageData(0, 0, 1, 1).data]];
    """)
    low, high = sorted(luminance(colour[:3]) for colour in colours)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: list[int]) -> float:
    linear = [
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_when_the_server_ends_nothing_is_left(server, temporary, page, scene):
    """The last one, as it ends the server."""
    page.drop(scene)
    page.wait_for("Latency: median of")
    assert [path for path in temporary.glob("kit_demo_*/uploads/*/*") if path.name == scene.name]
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE_S) == 0
    assert list(temporary.glob("kit_demo_*")) == []
