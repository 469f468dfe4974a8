"""A bare folder of images: listed, measured, without boxes."""

from pathlib import Path

from kit.data.formats.images import Progress, image_entry, image_files
from kit.data.formats.raw import RawDataset, RawPart, part_named

PARTS = ("train", "val", "valid", "validation", "test", "unlabelled")


def read_folder(root: Path, part: str = "train", progress: Progress | None = None) -> RawDataset:
    """Every image below root; in parts where the folders are named train, val, ..., else all in the one named."""
    top = root / "images" if (root / "images").is_dir() else root
    folders = {part_named(each.name): each for each in sorted(top.iterdir()) if each.is_dir() and each.name in PARTS}
    folders = {name: folder for name, folder in folders.items() if image_files(folder)}
    inner = sum(len(image_files(folder)) for folder in folders.values())
    if not folders or inner < len(image_files(top)):
        folders = {part: top}
    parts = [list_part(name, folder, progress) for name, folder in folders.items()]
    if not any(each.images for each in parts):
        raise ValueError(f"{root}: expected images, found none; check the path")
    return RawDataset([], parts, [f"{top}: images without labels, as {', '.join(folders)}"])


def list_part(name: str, folder: Path, progress: Progress | None = None) -> RawPart:
    paths = image_files(folder)
    images = []
    for number, path in enumerate(paths, 1):
        images.append(image_entry(number, path.relative_to(folder).as_posix(), path))
        if progress:
            progress(number, len(paths))
    return RawPart(name, images, [], dict(enumerate(paths, 1)))
