"""The gallery as a visitor meets it, opened from its folder in headless Chromium."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from kit.data.augment import train_policy
from kit.data.check import check_folder
from kit.data.coco import write_coco
from kit.data.dataset import CocoDataset
from kit.params import BrowseParams
from kit.plots.gallery import DrawnSet, find_parts, training_sampler, write_gallery
from tests.browser import ActionChains, By, Keys, WebDriverWait, chromium

pytestmark = pytest.mark.slow
PATIENCE_S = 30
HOSTILE = "<img src=x onerror=window.hacked=1>.png"
CLASSES = ["</script><script>window.hacked=2</script>", "car"]
IMAGES = 60  # two pages
SIZE_HW = (90, 120)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 images with a car each; the second has a hostile name, the third a box over the edge, the last no file."""
    folder = tmp_path_factory.mktemp("browsed")
    source, entries, annotations = folder / "source", [], []
    (source / "images" / "train").mkdir(parents=True)
    for number in range(IMAGES):
        name = HOSTILE if number == 1 else f"camera{number % 2}_A_{number}.png"
        picture = np.full((*SIZE_HW, 3), (40, 40 + number, 20), np.uint8)
        if number < IMAGES - 1:
            cv2.imwrite(str(source / "images" / "train" / "new.png"), picture)
            (source / "images" / "train" / "new.png").rename(source / "images" / "train" / name)
        entries.append({"id": number, "file_name": name, "height": SIZE_HW[0], "width": SIZE_HW[1]})
        width = 100.0 if number == 2 else 40.0
        annotations.append({"image_id": number, "category_id": 2, "bbox": [30.0, 45.0, width, 30.0]})
        if number < 5:
            annotations.append({"image_id": number, "category_id": 1, "bbox": [5.0, 5.0, 20.0, 20.0]})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    write_coco(source / "annotations" / "instances_train.json", entries, annotations, categories)
    part = find_parts(source)[0]
    few = replace(part.coco, records=part.coco.records[:4])
    params = replace(BrowseParams(), model="n", epochs=2, batch_size=4)
    sampler = training_sampler(4, size_hw=(64, 64), strong_until_epoch=1, **params.sampling)
    drawn = DrawnSet("train", CocoDataset(few, part.images, train_policy(1)), sampler, 4, 2)
    gallery = write_gallery(
        folder / "out",
        [part],
        "browsed",
        reports=check_folder(source),
        drawn=drawn,
        view_pattern=r"camera(?P<camera>\d+)",
    )
    return gallery.page.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(1200, 900, log="browser") as driver:
        yield driver


class Visit:
    """What a visitor does and sees."""

    def __init__(self, browser: Any, address: str):
        self.browser, self.address = browser, address
        self.open()

    def open(self, place: str = "") -> None:
        self.browser.get("about:blank")
        self.browser.get(self.address + place)

    def script(self, code: str) -> Any:
        return self.browser.execute_script(code)

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, PATIENCE_S).until(lambda _: condition())

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def text(self, selector: str) -> str:
        return self.script(f"return document.querySelector({selector!r})?.innerText ?? ''")

    def texts(self, selector: str) -> list[str]:
        return self.script(f"return [...document.querySelectorAll({selector!r})].map(each => each.innerText)")

    def count(self, selector: str) -> int:
        return self.script(f"return document.querySelectorAll({selector!r}).length")

    def choose(self, name: str, text: str) -> None:
        self.browser.find_element(By.NAME, name).send_keys(text)


@pytest.fixture
def page(browser, address) -> Iterator[Visit]:
    browser.get_log("browser")
    visit = Visit(browser, address)
    yield visit
    assert [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []


def test_a_page_of_thumbnails_with_boxes_in_the_colours_of_the_classes(page):
    page.wait(lambda: page.count("svg.small path.box") >= 48)
    assert page.text("#amount") == "60 images" and page.count(".tile") == 48
    assert page.texts(".pager span:not(.off)") == ["Page 1 of 2"]
    first = page.script("""
        const svg = document.querySelector('svg.small');
        const boxes = [...svg.querySelectorAll('.box')], told = (each, name) => each.getAttribute(name);
        return [svg.getAttribute('viewBox'), ...boxes.map(each => told(each, 'd') + told(each, 'stroke'))];
    """)
    assert first[0] == "0 0 120 90" and set(first[1:]) == {"M30 45h40v30h-40z#56b4e9", "M5 5h20v20h-20z#e69f00"}
    page.wait(lambda: page.script("return document.querySelector('.tile img').naturalWidth") == 120)


def test_names_that_hold_markup_are_shown_as_they_stand(page):
    page.open("#view=1")
    page.wait(lambda: page.count(".large .chip") == 2)
    assert page.text(".file") == HOSTILE and CLASSES[0] in page.texts(".chip")
    page.open("#tab=draws")
    page.wait(lambda: page.count("section.draws") == 4)
    assert page.script("return window.hacked ?? null") is None


def test_filters_search_and_back(page):
    page.choose("class", "</script>")
    page.wait(lambda: page.text("#amount") == "5 of 60 images")
    page.choose("camera", "1")
    page.wait(lambda: page.text("#amount") == "1 of 60 images")
    page.browser.find_element(By.ID, "clear").click()
    page.wait(lambda: page.text("#amount") == "60 images")
    page.press("/", "_A_4")
    page.wait(lambda: page.text("#amount") == "11 of 60 images")
    page.browser.back()
    page.wait(lambda: page.text("#amount") == "1 of 60 images")


def test_a_finding_leads_to_its_images_and_to_its_box(page):
    page.open("#tab=findings")
    link = next(a for a in page.browser.find_elements(By.CSS_SELECTOR, "td a") if a.text == "box over the edge")
    link.click()
    page.wait(lambda: page.count(".tile") == 1)
    page.browser.find_element(By.CSS_SELECTOR, ".tile").click()
    page.wait(lambda: page.count("svg .mark") == 1)
    finding = page.browser.find_element(By.CSS_SELECTOR, ".findings li.asked")
    assert finding.text.startswith("box over the edge") and "cut it at the image" in finding.text
    page.script("document.querySelector('.findings li.asked').focus()")
    page.wait(lambda: page.count(".large g.pointed") == 1)
    assert page.text(".objects li.pointed").startswith("car")


def test_an_image_without_a_file_says_so(page):
    page.open("#search=_59")
    page.wait(lambda: page.text(".tile .fault") == "the file is missing")


def test_classes_and_boxes_are_switched_off_and_on(page):
    page.open("#view=0")
    page.wait(lambda: page.count(".large g") == 2)
    page.browser.find_element(By.CSS_SELECTOR, "[data-class='0']").click()
    page.wait(lambda: page.count(".large g") == 1 and page.texts(".chip") == ["car"])
    assert page.script("return document.querySelector(\"[data-class='0']\").getAttribute('aria-pressed')") == "false"
    page.press("b")
    page.wait(lambda: page.count(".large g") == 0)


def test_everything_is_reached_by_the_keyboard(page):
    page.wait(lambda: page.count(".tile") == 48)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    page.wait(lambda: page.text(".file") == HOSTILE)
    page.press(Keys.ARROW_RIGHT)
    page.wait(lambda: page.text(".file") == "camera0_A_2.png")
    page.press("d")
    page.wait(lambda: "epoch 0, strong, 64 × 64 px" in page.text(".facts"))  # noqa: RUF001
    page.press("+")
    page.wait(
        lambda: page.script("const {scrollHeight, clientHeight} = stage.scroller; return scrollHeight > clientHeight")
    )
    page.press(Keys.ESCAPE)
    page.wait(lambda: page.count(".tile") == 48)
    assert page.script("return document.activeElement.getAttribute('title')") == "camera0_A_2.png"
    page.press("]")
    page.wait(lambda: page.count(".tile") == 12)
    page.press("?")
    page.wait(lambda: page.script("return document.getElementById('keys').open"))
    page.browser.find_element(By.CSS_SELECTOR, "#keys button").click()
    page.wait(lambda: not page.script("return document.getElementById('keys').open"))


def test_the_draws_of_an_image_stand_side_by_side(page):
    page.open("#tab=draws")
    page.wait(lambda: page.count("section.draws") == 4)
    assert page.texts("section.draws:first-of-type .about") == [
        "as stored", "epoch 0, strong, 64 × 64 px", "epoch 1, light, 64 × 64 px"  # noqa: RUF001
    ]  # fmt: skip
    page.wait(
        lambda: page.script("return [...document.querySelectorAll('.draws img')].every(each => each.naturalWidth)")
    )


@pytest.mark.parametrize("width", [1200, 500])
def test_nothing_is_wider_than_the_window(page, width):
    page.browser.set_window_size(width, 900)
    for place in ("", "#view=2", "#tab=draws", "#tab=findings"):
        page.open(place)
        page.wait(lambda: page.count("main > *") > 0)
        assert page.script("return document.documentElement.scrollWidth <= innerWidth"), place
    page.browser.set_window_size(1200, 900)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_their_ground(page, theme):
    page.open("#view=2")
    page.wait(lambda: page.count(".large g") == 2)
    if page.script("return document.documentElement.dataset.theme") != theme:
        page.press("t")
    parts = (
        "h1",
        "#tabs a",
        "#tabs a[aria-current]",
        "#amount",
        ".facts dt",
        ".findings .quiet",
        ".objects .number",
        "#back",
    )
    grounds = {part: contrast(page, part) for part in parts}
    page.open()
    page.wait(lambda: page.count(".badge") > 0)
    grounds |= {part: contrast(page, part) for part in (".badge", ".about .quiet", "#filters label span")}
    assert page.script("return document.documentElement.dataset.theme") == theme  # remembered
    assert min(grounds.values()) > 4.5, grounds  # WCAG 2.1, level AA


def contrast(page: Visit, part: str) -> float:
    """Of an element's words with the ground they stand on."""
    colours = page.script(f"""
        const context = new OffscreenCanvas(1, 1).getContext('2d', {{willReadFrequently: true}});
        const painted = colour => {{
            context.fillStyle = colour; context.fillRect(0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data];
        }};
        let ground = document.querySelector({part!r});
        const ink = painted(getComputedStyle(ground).color);
        while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
        return [ink, painted(getComputedStyle(ground).backgroundColor)];
    """)
    low, high = sorted(luminance(colour[:3]) for colour in colours)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: list[int]) -> float:
    linear = [
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
