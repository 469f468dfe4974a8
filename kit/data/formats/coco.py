"""COCO folders and files: entries as they stand, in and out."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from kit.data.coco import name_of_part, refuse_other_formats
from kit.data.formats.images import Progress, inside, output_names, place_images
from kit.data.formats.raw import Entry, Loss, Losses, RawDataset, RawPart, joined_categories, part_named
from kit.files import read_json, whole_folder, write_json

LISTS = ("images", "annotations", "categories")


def coco_files(source: Path) -> dict[str, Path]:
    """Part: annotation file, of instances_*.json, of folders with _annotations.coco.json, or the one file given."""
    if source.is_file():
        return {part_named(name_of_part(source)): source}
    endings = (".json", ".json.gz")
    found = [each for each in sorted(source.glob("annotations/instances_*")) if each.name.endswith(endings)]
    if found:
        return one_file_each((part_named(name_of_part(each)), each) for each in found)
    exports = sorted(source.glob("*/_annotations.coco.json")) or sorted(source.glob("_annotations.coco.json"))
    return one_file_each((part_named(each.parent.name) if each.parent != source else "train", each) for each in exports)


def one_file_each(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Part: file; ValueError where two files are of one part."""
    files: dict[str, Path] = {}
    for name, path in named:
        if name in files:
            raise ValueError(
                f"{path}: expected one annotation file of the part {name}, found {files[name]} too; "
                "take one of them out, or rename it"
            )
        files[name] = path
    return files


def read_raw_coco(source: Path, images: Path | None = None) -> RawDataset:
    """All parts. images: the folder of the images, where it is not beside the annotations as usual."""
    files = coco_files(source)
    if not files:
        raise ValueError(f"{source}: expected annotations/instances_*.json, found none; check the path")
    contents = {name: read_content(path) for name, path in sorted(files.items())}
    lists = {str(files[name]): content.get("categories") or [] for name, content in contents.items()}
    parts = [raw_part(name, content, files[name], images) for name, content in contents.items()]
    return RawDataset(joined_categories(lists), parts)


def read_content(path: Path) -> Entry:
    content: Entry = read_json(path)
    if isinstance(content, dict) and (wrong := [key for key in LISTS if not isinstance(content.get(key) or [], list)]):
        raise ValueError(f"{path}: expected {wrong[0]} to be a list, found {content[wrong[0]]!r:.60}; correct the file")
    refuse_other_formats(content, path)
    ids = [image["id"] for image in content["images"]]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"{path}: expected image ids given once, found {twice} twice; see kit.data.check")
    return content


def raw_part(name: str, content: Entry, path: Path, images: Path | None) -> RawPart:
    folder = images or image_folder(path, name)
    named = {image["id"]: inside(folder, str(image["file_name"]), str(path)) for image in content["images"]}
    files = {image_id: file for image_id, file in named.items() if os.path.isfile(file)}
    extras = {key: value for key, value in content.items() if key not in LISTS}
    return RawPart(name, content["images"], content.get("annotations") or [], files, extras)


def image_folder(path: Path, name: str) -> Path:
    """Where the images of an annotation file lie; the file's own folder where nothing looks like it."""
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    stored = name_of_part(path)
    usual = [root / "images" / stored, root / stored, root / "images" / name, root / name, root / "images"]
    return next((each for each in usual if each.is_dir()), path.parent)


def write_raw_coco(dataset: RawDataset, out: Path, copy: bool = False, progress: Progress | None = None) -> list[Loss]:
    """images/{part}/ and annotations/instances_{part}.json; entries change in nothing but names that clash."""
    losses = Losses()
    with whole_folder(out) as made:
        for part in dataset.parts:
            inside(made, f"instances_{part.name}.json", "part")
            names = output_names(part, {}, losses, flat=False, by_stem=False)
            place_images(part, names, made / "images" / part.name, losses, copy, progress)
            images = [image | {"file_name": names[image["id"]]} for image in part.images]
            lists = {"images": images, "annotations": part.annotations, "categories": dataset.categories}
            write_json(made / "annotations" / f"instances_{part.name}.json", part.extras | lists)
    return losses.all()
