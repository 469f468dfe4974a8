"""Image files of a data set: found, named apart, measured, and linked or copied; nothing outside its folder."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from PIL import Image

from kit.data.formats.raw import Entry, Losses, RawPart
from kit.data.image_files import IMAGE_ENDINGS
from kit.files import atomic, copy_whole, link

Progress = Callable[[int, int], object]  # images done, images in all

LONGEST_PX = 2**31 - 1
JPEG_QUALITY = 95  # of images that are made smaller


def image_files(folder: Path) -> list[Path]:
    """All images below a folder, in order of their names."""
    files = [file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS and file.is_file()]
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def inside(root: Path, name: str, where: str) -> Path:
    """root / name; ValueError for a name that leads out of root."""
    top = os.path.abspath(root)
    path = os.path.abspath(os.path.join(top, name))
    if "\0" in name or not name or os.path.commonpath([top, path]) != top:
        raise ValueError(f"{where}: expected a name inside {root}, found {name!r:.120}; correct the name")
    return Path(path)


def size_wh_of(path: Path) -> tuple[int, int]:
    """Width and height as stored, from the head of the file."""
    return head_of(path)[:2]


def head_of(path: Path) -> tuple[int, int, int]:
    """Width, height and channels as stored."""
    try:
        with Image.open(path) as image:
            return image.width, image.height, len(image.getbands())
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected an image, found {error}; mend it or take it out") from error


def image_entry(image_id: int, file_name: str, path: Path) -> Entry:
    width, height = size_wh_of(path)
    return {"id": image_id, "file_name": file_name, "width": width, "height": height}


def size_wh(part: RawPart, image: Entry) -> tuple[int, int]:
    """Size that the boxes of an image are in: of its entry, or else of its file."""
    size = image.get("width"), image.get("height")
    if all(type(side) is int and 0 < side <= LONGEST_PX for side in size):
        return int(image["width"]), int(image["height"])
    if image["id"] not in part.files:
        found = f"found {size[0]} x {size[1]} and no file"
        raise ValueError(f"{part.name}: {image['file_name']}: expected width and height, {found}; add them")
    return size_wh_of(part.files[image["id"]])


# --- the folder that is written ---


def output_names(
    part: RawPart, taken: dict[str, Path | None], losses: Losses, flat: bool, by_stem: bool
) -> dict[int, str]:
    """Image id: name to write it under. Names that other files have already are changed, and told.

    taken: what is written so far, is added to; flat: without folders; by_stem: a.jpg and a.png are the same name.
    Entries of this part that share a file share its name.
    """
    names, own = {}, set()
    for image in part.images:
        wanted = PurePosixPath(str(image["file_name"]))
        inside(Path("images"), str(image["file_name"]), f"{part.name}: image {image['id']}")
        name = wanted.as_posix().replace("/", "_") if flat else wanted.as_posix()
        name, number = PurePosixPath(os.path.normpath(name)).as_posix(), 1
        source, plain = part.files.get(image["id"]), name
        while (key := key_of(name, by_stem)) in taken and (source is None or key not in own or taken[key] != source):
            head = f"{part.name}_" if number == 1 else f"{part.name}_{number}_"
            path = PurePosixPath(plain)
            name, number = path.with_name(head + path.name).as_posix(), number + 1
        taken[key] = source
        own.add(key)
        names[image["id"]] = name
        if name != str(image["file_name"]):
            losses.add("image written under another name", f"{part.name}: {image['file_name']} is now {name}")
    return names


def key_of(name: str, by_stem: bool) -> str:
    return PurePosixPath(name).with_suffix("").as_posix() if by_stem else name


def place_images(
    part: RawPart, names: dict[int, str], folder: Path, losses: Losses, copy: bool, progress: Progress | None = None
) -> None:
    """Links, copies or makes smaller the images of a part."""
    folder.mkdir(parents=True, exist_ok=True)
    for done, image in enumerate(part.images, 1):
        source, target = part.files.get(image["id"]), inside(folder, names[image["id"]], part.name)
        if source is None:
            losses.add("image file missing", f"{part.name}: {image['file_name']}", is_problem=True)
        elif image["id"] in part.resize_wh:
            write_smaller(source, target, part.resize_wh[image["id"]])
        else:
            link_or_copy(source, target, copy)
        if progress:
            progress(done, len(part.images))


def link_or_copy(source: Path, target: Path, copy: bool) -> None:
    """A hard link, which takes no place on the disk; a copy where asked for, or where the disks differ."""
    if target.exists():  # two entries of one file
        return
    if copy:
        copy_whole(source, target)
    else:
        link(source, target)


def write_smaller(source: Path, target: Path, size_wh_px: tuple[int, int]) -> None:
    """The image at another size, by the same filter as the official scripts of Objects365."""
    try:
        with Image.open(source) as image, atomic(target) as temporary:
            colours = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
            options = {"quality": JPEG_QUALITY, "subsampling": 0} if image.format == "JPEG" else {}
            colours.resize(size_wh_px, Image.Resampling.LANCZOS).save(temporary, format=image.format, **options)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: expected an image, found {error}; mend it or take it out") from error
