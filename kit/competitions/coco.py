"""Any data in COCO format: results of the kind `bbox` as pycocotools and the COCO server read them, zipped.

Image and category ids are those of the data. One JSON list, an entry each detection: image_id, category_id,
bbox [x, y, width, height] in pixels of the original image (corner first), score.
"""

from pathlib import Path
from typing import Any

from kit.metrics import COCO_AREAS
from kit.submission import Competition, Images, Rules, read_submission, rules_of, write_submission


def write(path: Path | str, predictions: list[dict[str, Any]], images: Images, rules: Rules) -> Path:
    """The entries name their images by id, so the list of images adds nothing here."""
    return write_submission(path, predictions, rules)


def read(path: Path | str, images: Images) -> Any:
    return read_submission(path)


COCO = Competition(
    name="coco",
    areas=COCO_AREAS,
    view_pattern=None,  # file names tell nothing of cameras
    select_by="ap",
    file_ending=".zip",
    rules=rules_of,
    write=write,
    read=read,
)
