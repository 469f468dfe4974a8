import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.media import Unreadable, pdf_pages
from kit.media.pdfs import pdf_page_count


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A red page and a blue one, 2 x 1 inches."""
    red, blue = (Image.new("RGB", (144, 72), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "report.pdf", save_all=True, append_images=[blue], resolution=72)
    return tmp_path / "report.pdf"


def test_pages_become_pictures_of_the_size_asked_for(report: Path):
    pages = list(pdf_pages(report, dpi=144))
    assert [(page.name, page.kind, page.index) for page in pages] == [
        ("report.pdf", "pdf", 0),
        ("report.pdf", "pdf", 1),
    ]
    images = [page.load(3) for page in pages]  # after the document has been closed
    assert [image.shape for image in images] == [(144, 288, 3)] * 2
    assert [np.median(image, axis=(0, 1)).tolist() for image in images] == [
        pytest.approx([255, 0, 0], abs=3),
        pytest.approx([0, 0, 255], abs=3),
    ]
    assert pdf_page_count(report) == 2


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7 and no more", b"hello"])
def test_what_is_no_pdf_is_one_fault(tmp_path: Path, content: bytes):
    (tmp_path / "a.pdf").write_bytes(content)
    (page,) = pdf_pages(tmp_path / "a.pdf")
    with pytest.raises(Unreadable, match=r"a\.pdf: expected a PDF, "):
        page.load(3)


def test_a_missing_file_is_one_fault(tmp_path: Path):
    (page,) = pdf_pages(tmp_path / "a.pdf")
    with pytest.raises(Unreadable, match=r"a\.pdf"):
        page.load(3)


def test_a_page_as_large_as_a_wall_is_refused_and_the_next_one_read(report: Path, monkeypatch: pytest.MonkeyPatch):
    (page, _) = pdf_pages(report, dpi=30000)
    with pytest.raises(Unreadable, match=r"page 1: 60000 x 30000 px at 30000 dpi are too many; lower dpi"):
        page.load(3)


def test_two_threads_may_read_at_once(report: Path):
    shapes: list[tuple[int, ...]] = []

    def read() -> None:
        shapes.extend(page.load(3).shape for _ in range(10) for page in pdf_pages(report, dpi=72))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert shapes == [(72, 144, 3)] * 80


def test_a_real_report(shared: Callable[[str], Path]):
    pages = [page.load(3) for page in pdf_pages(shared("data/media/pdf/road_photos_report.pdf"), dpi=72)]
    assert len(pages) == 8 and all(page.std() > 10 for page in pages)
