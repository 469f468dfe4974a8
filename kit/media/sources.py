"""What there is to look at: files, folders, patterns and arrays, in any mix, as frames in order."""

import glob
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np

from kit.data.image_files import IMAGE_ENDINGS
from kit.media.frame import Frame, Kind, Unreadable, constant
from kit.media.images import read_picture
from kit.media.pdfs import pdf_page_count, pdf_pages
from kit.media.videos import video_about, video_frames

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
PDF_ENDINGS = (".pdf",)

Item = str | Path | np.ndarray
Source = Item | Sequence[Item]


def kind_of(path: Path | str) -> Kind | None:
    """By its ending."""
    endings: dict[Kind, Sequence[str]] = {"image": IMAGE_ENDINGS, "video": VIDEO_ENDINGS, "pdf": PDF_ENDINGS}
    return next((kind for kind, known in endings.items() if Path(path).suffix.lower() in known), None)


def frames(
    source: Source, *, recursive: bool = False, every: int = 1, dpi: int = 150, exif: bool = True
) -> Generator[Frame, None, None]:
    """All frames of an image, a video, a PDF, an array, a folder, a glob pattern, or a list of such, in order.

    recursive: folders with all below them; every: of a video each so manieth frame; dpi: of PDF pages.
    """
    if every < 1 or dpi < 1:
        raise ValueError(f"every and dpi must be at least 1, got {every} and {dpi}")
    for name, each in found(source, recursive):
        if isinstance(each, np.ndarray):
            yield Frame(name, "image", constant(each))
        else:
            yield from frames_of(each, name, every, dpi, exif)


def frames_of(path: Path, name: str, every: int, dpi: int, exif: bool) -> Iterator[Frame]:
    """Of one file."""
    kind = kind_of(path)
    if kind == "video":
        yield from video_frames(path, every, exif, name)
    elif kind == "pdf":
        yield from pdf_pages(path, dpi, name)
    else:
        yield Frame(name, "image", lambda channels: read_picture(path, channels, exif), path)


def found(source: Source, recursive: bool = False) -> Iterator[tuple[str, Path | np.ndarray]]:
    """Name and path of each file, in order; arrays are named by their place in the list.

    ValueError where one path that is given alone leads to nothing. In a list it is a fault of that file.
    """
    given: list[Path | np.ndarray] = []
    if isinstance(source, str | Path | np.ndarray):
        given += matches(source)
        refuse_nothing(given[0], recursive)
    else:
        for one in source:
            given += matches(one)
    root = shared_folder([each for each in given if isinstance(each, Path)])
    for place, each in enumerate(given):
        if isinstance(each, np.ndarray):
            yield f"array_{place:06}", each
        else:
            for path in files_in(each, recursive) if each.is_dir() else [each]:
                yield Path(os.path.relpath(path, root)).as_posix(), path


def matches(item: Item) -> list[Path] | list[np.ndarray]:
    """A path or an array as it is, or the files that a glob pattern matches."""
    if isinstance(item, np.ndarray):
        return [item]
    if not glob.has_magic(str(item)) or os.path.exists(item):
        return [Path(item)]
    return [Path(path) for path in sorted(glob.glob(str(item), recursive=True)) if kind_of(path)] or [Path(item)]


def refuse_nothing(first: Path | np.ndarray, recursive: bool) -> None:
    if isinstance(first, np.ndarray):
        return
    if first.is_dir():
        if next(files_in(first, recursive), None) is None:
            mend = "check the path" if recursive else "check the path, or ask for what is in its folders (recursive)"
            raise ValueError(f"{first}: expected a folder with images, videos or PDFs, found none; {mend}")
    elif not first.is_file():
        raise ValueError(f"{first}: expected a file, a folder or a pattern of files, found nothing; check the path")
    elif kind_of(first) is None:
        raise ValueError(unknown_kind(first))


def unknown_kind(path: Path) -> str:
    return (
        f"{path}: expected an image ({' '.join(IMAGE_ENDINGS)}), a video ({' '.join(VIDEO_ENDINGS)}) or a .pdf, "
        f"got {path.suffix or 'no ending'}; convert the file"
    )


def files_in(folder: Path, recursive: bool) -> Iterator[Path]:
    """Images, videos and PDFs in order of their names, a folder's own before those of the folders in it."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_file() and not entry.name.startswith(".") and kind_of(entry.name):
            yield folder / entry.name
    for entry in entries if recursive else ():
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(folder / entry.name, recursive)


def shared_folder(paths: Sequence[Path]) -> Path:
    folders = [path if path.is_dir() else path.parent for path in paths]
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders])) if folders else Path()


def frame_count(source: Source, *, recursive: bool = False, every: int = 1) -> int:
    """How many frames there will be, for a progress bar: what the files say, unproved."""
    return sum(
        1 if isinstance(each, np.ndarray) else frame_count_of(each, every) for _, each in found(source, recursive)
    )


def frame_count_of(path: Path, every: int) -> int:
    kind = kind_of(path)
    try:
        if kind == "video":
            return max(-(-video_about(path).frames // every), 1)
        return pdf_page_count(path) if kind == "pdf" else 1
    except Unreadable:
        return 1  # the fault
