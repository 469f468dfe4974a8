"""Small data sets for the tests of formats: drawn by hypothesis, or given, with images on the disk."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from kit.data.formats.raw import RawDataset, RawPart

SIZE_WH = (1920, 1080)
NAMES = st.lists(
    st.text("abc äß'\"<&,;:#-_0", min_size=1, max_size=8).filter(lambda name: name == name.strip() and name),
    min_size=1,
    max_size=4,
    unique=True,
)
whole = st.integers(0, 1000)
decimals = st.decimals(0, 1000, places=2, allow_nan=False).map(float)
fine = st.floats(0, 1000, allow_nan=False).map(lambda value: round(value, 9))
numbers = st.one_of(whole, decimals, fine)
boxes = st.tuples(numbers, numbers, numbers, numbers).map(list)
any_boxes = st.lists(st.floats(-1e6, 1e6, allow_nan=False) | st.integers(-1000, 10**6), min_size=4, max_size=4)


@st.composite
def datasets(draw: Callable[..., Any], box: Any = boxes, more: Any = None) -> dict[str, Any]:
    """COCO content: classes 1, 2, ..., images 1, 2, ... in order of names, annotations of an image together."""
    names = draw(NAMES)
    stems = sorted(draw(st.lists(st.sampled_from(["a", "b 1", "c.d", "ü", "sub/e"]), min_size=1, unique=True)))
    images = [
        {"id": number, "file_name": f"{stem}.png", "width": SIZE_WH[0], "height": SIZE_WH[1]}
        for number, stem in enumerate(stems, 1)
    ]
    annotations = []
    for image in images:
        for own in draw(st.lists(box, max_size=4)):
            category_id = draw(st.integers(1, len(names)))
            extra = draw(more) if more is not None else {}
            about = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category_id}
            annotations.append(about | {"bbox": own, "area": own[2] * own[3], "iscrowd": 0} | extra)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def on_disk(content: dict[str, Any], folder: Path, part: str = "train") -> RawDataset:
    """The data set of a content, with one-bit images."""
    files = {}
    for image in content["images"]:
        path = folder / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("1", (image["width"], image["height"])).save(path)
        files[image["id"]] = path
    return RawDataset(content["categories"], [RawPart(part, content["images"], content["annotations"], files)])


def one_image(*annotations: dict[str, Any], names: tuple[str, ...] = ("car", "bus"), name: str = "a.png") -> Any:
    """Content of one image of 100 x 50."""
    complete = [
        {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0} | each
        for number, each in enumerate(annotations, 1)
    ]
    categories = [{"id": number, "name": each} for number, each in enumerate(names, 1)]
    images = [{"id": 1, "file_name": name, "width": 100, "height": 50}]
    return {"images": images, "annotations": complete, "categories": categories}


def round_trip(content: Any, write: Callable[..., Any], read: Callable[..., RawDataset]) -> RawDataset:
    """Written by one function into a folder, and read from there by another."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(on_disk(content, folder / "source"), folder / "out")
        return read(folder / "out")


def objects(part: Any) -> list[tuple[Any, ...]]:
    """What every format must carry of the annotations."""
    names = {image["id"]: image["file_name"] for image in part["images"]}
    return [(names[each["image_id"]], each["category_id"], each["bbox"]) for each in part["annotations"]]


def content_of(dataset: RawDataset) -> dict[str, Any]:
    part = dataset.parts[0]
    return {"images": part.images, "annotations": part.annotations, "categories": dataset.categories}


def draw_image(path: Path, size_wh: tuple[int, int] = (100, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
