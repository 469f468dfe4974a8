from pathlib import Path

import numpy as np

from kit.data.augment import resized
from kit.data.coco import find_split, read_coco
from kit.data.dataset import read_image
from kit.deploy.runtimes import open_runner


def test_scenes_are_found_alike_in_torch_and_in_the_exported_file(checkpoint: Path, exported: Path, scenes: Path):
    split = find_split(scenes, "val")
    record = read_coco(split.annotations).records[0]
    image = read_image(split.images / record.file_name)
    images = np.stack([resized(image, (320, 320))] * 2)
    sizes_hw = np.array([image.shape[:2]] * 2, np.float32)
    ours, theirs = (open_runner(path)(images, sizes_hw) for path in (checkpoint, exported))
    assert ours.scores[0, 0] > 0.4
    assert np.abs(ours.scores[:, :10] - theirs.scores[:, :10]).max() < 1e-3
