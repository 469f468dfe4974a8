"""VisDrone-DET text: a row an object, `left,top,width,height,score,category,truncation,occlusion`, pixels.

Category 0 is an ignored region: nothing found in it counts, of whatever class. In COCO that is a crowd box of each of
the ten classes. A score of 0 is an object that is not judged: a crowd box of its class. Category 11, others, is none of
the ten classes that are judged: left out and told, or kept as an eleventh class.
"""

from collections import Counter
from pathlib import Path

from kit.data.formats.images import Progress, image_entry, image_files
from kit.data.formats.raw import (
    Entry,
    RawDataset,
    RawPart,
    category_entries,
    finite_number,
    neat,
    new_annotation,
    numbered,
)
from kit.files import read_bytes

NAMES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor"),
    "others",
)
IGNORED, OTHERS = 0, 11
JUDGED = range(1, 11)


def part_folders(root: Path) -> dict[str, Path]:
    """Part: folder with images/ and annotations/: VisDrone2019-DET-{train,val,test-dev} in it, or itself."""
    inner = {part_of(each.name): each for each in sorted(root.iterdir()) if each.is_dir() and is_part(each)}
    return inner or ({part_of(root.name): root} if is_part(root) else {})


def is_part(folder: Path) -> bool:
    texts = sorted((folder / "annotations").glob("*.txt"))
    return (folder / "images").is_dir() and any(is_visdrone(path) for path in texts[:20])


def is_visdrone(path: Path) -> bool:
    cells = path.read_bytes()[:200].split(b"\n")[0].strip().strip(b",").split(b",")
    return len(cells) == 8


def part_of(name: str) -> str:
    """`VisDrone2019-DET-test-dev` -> test-dev; the folder of a part alone is train if its name tells nothing."""
    tail = name.partition("-DET-")[2] or name
    return next((part for part in ("train", "val", "test-dev", "test") if part in tail), "train")


def read_visdrone(root: Path, others: bool = False, progress: Progress | None = None) -> RawDataset:
    """others: keep category 11 as a class."""
    folders = part_folders(root)
    if not folders:
        raise ValueError(f"{root}: expected images/ and annotations/*.txt of VisDrone-DET, found none; check the path")
    counts: Counter[str] = Counter()
    problems: list[str] = []
    parts = [read_part(name, folder, others, counts, problems, progress) for name, folder in folders.items()]
    notes = [f"{count} {what}" for what, count in counts.items()]
    return RawDataset(category_entries(NAMES if others else NAMES[:-1]), parts, notes, problems)


def read_part(
    name: str, folder: Path, others: bool, counts: Counter[str], problems: list[str], progress: Progress | None
) -> RawPart:
    images, annotations, files = [], [], {}
    paths = image_files(folder / "images")
    used = set()
    for number, path in enumerate(paths, 1):
        file_name = path.relative_to(folder / "images").as_posix()
        images.append(image_entry(number, file_name, path))
        files[number] = path
        text = (folder / "annotations" / file_name).with_suffix(".txt")
        used.add(text)
        if text.is_file():
            annotations += [each for row in read_rows(text) for each in entries_of(row, number, others, counts)]
        else:
            counts["images without a text file: taken as empty"] += 1
        if progress:
            progress(number, len(paths))
    left = [text for text in sorted((folder / "annotations").glob("*.txt")) if text not in used]
    problems += [f"text file without an image: {text}" for text in left]
    return RawPart(name, images, numbered(annotations), files)


def read_rows(path: Path) -> list[list[float]]:
    """Eight numbers each; many files end their lines with a comma."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, found {error}; convert it") from error
    rows = []
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        row = [finite_number(cell, where) for cell in line.strip().rstrip(",").split(",")]
        if len(row) != 8 or row[5] not in range(12):
            wanted = "8 numbers, of which the sixth is a category of 0 to 11"
            raise ValueError(f"{where}: expected {wanted}, found {line.strip()!r:.60}; correct the line")
        rows.append(row)
    return rows


def entries_of(row: list[float], image_id: int, others: bool, counts: Counter[str]) -> list[Entry]:
    """The annotations that a row becomes."""
    box, category = [neat(value) for value in row[:4]], int(row[5])
    about = {"truncation": neat(row[6]), "occlusion": neat(row[7])}
    if category == IGNORED:
        counts["ignored regions: a crowd box of each of the ten classes"] += 1
        return [new_annotation(image_id, each, box, iscrowd=1, ignored_region=1) for each in JUDGED]
    if category == OTHERS and not others:
        counts["objects of category 11, others: left out; keep them with --others"] += 1
        return []
    if row[4] == 0:
        counts["objects of score 0, not judged: crowd"] += 1
        return [new_annotation(image_id, category, box, iscrowd=1, **about)]
    score = {} if row[4] == 1 else {"score": row[4]}
    return [new_annotation(image_id, category, box, **about, **score)]
