import json
from dataclasses import replace
from pathlib import Path

import pytest

from kit.deploy.about import About, read_checkpoint

ABOUT = About(
    size="n", names=["Bus", "Car"], category_ids=[3, 7], channels=3, height_px=320, width_px=480, top_k=300,
    notes={"ap": 0.5},
)  # fmt: skip


def test_what_a_file_says_of_itself_survives_the_way_through_json() -> None:
    assert About.from_json(ABOUT.as_json(), "x.onnx") == ABOUT
    assert ABOUT.size_hw == (320, 480)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"format": "another-1"}'])
def test_a_file_of_others_is_told(text: str | None) -> None:
    with pytest.raises(ValueError, match=r"x\.onnx: expected a file that kit has exported"):
        About.from_json(text, "x.onnx")


def test_a_file_of_a_newer_kit_is_told() -> None:
    text = json.dumps(json.loads(ABOUT.as_json()) | {"colour": "blue"})
    with pytest.raises(ValueError, match=r"x\.onnx: written by a newer kit"):
        About.from_json(text, "x.onnx")


def test_a_fixed_size_is_the_only_one_that_fits() -> None:
    ABOUT.check_size_hw((320, 480))
    with pytest.raises(ValueError, match=r"input of 480 x 320 px: expected 320 x 480 \(height x width\)"):
        ABOUT.check_size_hw((480, 320))


def test_a_dynamic_size_has_to_be_of_whole_cells_and_large_enough() -> None:
    dynamic = replace(ABOUT, dynamic_size=True, min_area_px=256 * 256)
    dynamic.check_size_hw((256, 256))
    dynamic.check_size_hw((128, 512))
    for size_hw in ((256, 224), (250, 640), (0, 640)):
        with pytest.raises(ValueError, match="multiples of 32, height x width at least 65536 px"):
            dynamic.check_size_hw(size_hw)


def test_a_checkpoint_says_its_classes_and_size(checkpoint: Path) -> None:
    detector, about = read_checkpoint(checkpoint, top_k=5000)
    assert not detector.training
    assert (about.size, about.names[0], about.size_hw, about.top_k) == ("n", "Bus", (320, 320), 1500)
    assert len(about.source) == 64
