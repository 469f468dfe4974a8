"""The pages of PDFs as images; by pypdfium2."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kit.files import one_line
from kit.media.frame import Frame, Load, Unreadable, constant, unreadable, with_channels

LARGEST_PAGE_PX = 100_000_000
PDFIUM = threading.Lock()  # the library allows one call at a time in a whole process


def pypdfium() -> Any:
    """pypdfium2; where it is not installed, an ImportError of one line says how to get it."""
    try:
        return import_module("pypdfium2")
    except ImportError as error:
        raise ImportError("PDFs need pypdfium2: pip install -e .") from error


@contextmanager
def opened_pdf(path: Path | str) -> Iterator[Any]:
    pdfium = pypdfium()
    try:
        with PDFIUM:
            document = pdfium.PdfDocument(path)
    except (pdfium.PdfiumError, OSError) as error:
        raise Unreadable(f"{path}: expected a PDF, {one_line(error)}") from error
    try:
        yield document
    finally:
        with PDFIUM:
            document.close()


def pdf_page_count(path: Path | str) -> int:
    with opened_pdf(path) as document, PDFIUM:
        return len(document)


def pdf_pages(path: Path | str, dpi: int = 150, name: str | None = None) -> Iterator[Frame]:
    """Each page as an image. One that cannot be drawn is a frame that cannot be loaded."""
    path = Path(path)
    name = path.name if name is None else name
    try:
        with opened_pdf(path) as document:
            for index in range(len(document)):
                yield Frame(name, "pdf", page_load(document, path, index, dpi), path, index)
    except Unreadable as error:
        yield Frame(name, "pdf", unreadable(str(error)), path)


def page_load(document: Any, path: Path, index: int, dpi: int) -> Load:
    """The page is drawn at once: its document may be closed when the frame is loaded."""
    try:
        with PDFIUM:
            page = document[index]
            try:
                return constant(drawn_page(page, dpi))
            finally:
                page.close()
    except (pypdfium().PdfiumError, ValueError) as error:
        return unreadable(f"{path}: page {index + 1}: {one_line(error)}")


def drawn_page(page: Any, dpi: int) -> np.ndarray:
    """-> (H, W, 3) uint8."""
    width_px, height_px = (side * dpi / 72 for side in page.get_size())
    if width_px * height_px > LARGEST_PAGE_PX:
        raise ValueError(f"{width_px:.0f} x {height_px:.0f} px at {dpi} dpi are too many; lower dpi")
    bitmap = page.render(scale=dpi / 72, rev_byteorder=True, prefer_bgrx=False)
    try:
        return np.array(with_channels(bitmap.to_numpy(), 3))
    finally:
        bitmap.close()
