import struct
import zlib

import cv2
import numpy as np
import pillow_heif
import pypdfium2
import pytest
from PIL import Image, ImageCms, ImageDraw

from kit.data.plain_pixels import UNREADABLE, Limits, is_plain, plain_pages
from kit.data.turned_labels import MASKS


def colours() -> np.ndarray:
    """Smooth, so that no coder changes it much; each corner of another colour."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y * 3], axis=-1).astype(np.uint8)


def only(path, **limits):
    (page,) = plain_pages(path, Limits(**limits))
    assert page.pixels.dtype == np.uint8 and page.pixels.shape[2] == 3
    return page


def gap(page, expected: np.ndarray) -> int:
    return int(np.abs(page.pixels.astype(int) - expected).max())


@pytest.mark.parametrize(("ending", "most"), [("png", 0), ("bmp", 0), ("tif", 0), ("tga", 0), ("jpg", 12)])
def test_colours_are_read(tmp_path, ending, most):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(colours()).save(path)
    assert gap(only(path), colours()) <= most
    assert ending not in ("png", "jpg") or is_plain(path)


@pytest.mark.parametrize("ending", ["webp", "avif", "jp2", "gif"])
def test_rarer_formats_are_read(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.full((40, 60, 3), (200, 30, 90), np.uint8)).save(path)
    page = only(path)
    assert gap(page, np.array([200, 30, 90])) <= 12 and "read" in page.steps[0]


def test_heic_is_read(tmp_path):
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.fromarray(colours())).save(path, quality=95)
    page = only(path)
    assert page.steps == ["HEIF read"] and np.abs(page.pixels.astype(int) - colours()).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
def test_exif_orientation_is_applied_once(tmp_path, ending, orientation):
    path, exif = tmp_path / f"a.{ending}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours()).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    page = only(path)
    expected = np.stack([MASKS[orientation](colours()[..., band]) for band in range(3)], axis=-1)
    assert page.pixels.shape == expected.shape and gap(page, expected) <= (12 if ending == "jpg" else 0)
    assert page.orientation == orientation and page.stored_hw == (40, 60)
    assert orientation == 1 or page.steps[-1] == f"EXIF orientation {orientation} applied"


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_become_eight_in_every_image_alike(tmp_path, ending):
    grey, path = (np.arange(2400).reshape(40, 60) * 27).astype(np.uint16), tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), grey)
    page = only(path)
    assert gap(page, (grey >> 8)[..., None]) == 0 and "16 bits reduced to 8" in page.steps
    assert page.losses == ["finer steps than 1 in 255"] and not (ending == "png" and is_plain(path))


def test_sixteen_bits_of_colour_become_eight(tmp_path):
    deep, path = colours().astype(np.uint16) * 257, tmp_path / "a.png"
    cv2.imwrite(str(path), deep[..., ::-1])
    page = only(path)
    assert gap(page, colours()) == 0 and page.losses == ["the lower 8 bits"] and not is_plain(path)


def test_a_camera_of_twelve_bits_is_told_dark_and_can_be_stretched(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.linspace(100, 4000, 2400).reshape(40, 60).astype(np.uint16))
    page = only(path)
    assert page.pixels.max() == 15 and any(step.startswith("dark: no value over 4000") for step in page.steps)
    stretched = only(path, value_range="image")
    assert (stretched.pixels.min(), stretched.pixels.max()) == (0, 255)


@pytest.mark.parametrize(("most", "expected"), [(1.0, 255), (200.0, 200)])
def test_floats_are_taken_by_their_range(tmp_path, most, expected):
    path = tmp_path / "a.tif"
    Image.fromarray(np.linspace(0, most, 2400).reshape(40, 60).astype(np.float32)).save(path)
    assert only(path).pixels.max() == expected


def test_floats_of_an_unknown_range_want_a_decision(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.linspace(-5, 1000, 2400).reshape(40, 60).astype(np.float32)).save(path)
    with pytest.raises(ValueError, match="found -5 to 1000; --range image"):
        only(path)
    assert only(path, value_range="image").pixels.max() == 255


def test_palette_and_alpha_are_laid_over_white(tmp_path):
    rgba = np.dstack([colours(), np.full((40, 60), 255, np.uint8)])
    rgba[:10, :10, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    page = only(tmp_path / "a.png")
    assert (page.pixels[:10, :10] == 255).all() and (page.pixels[10:] == colours()[10:]).all()
    assert page.losses == ["transparency of 100 pixels"]
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 9, 200, 30])
    palette.save(tmp_path / "p.png")
    assert (only(tmp_path / "p.png").pixels == [9, 200, 30]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "LAB"])
def test_every_colour_space_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.tif"
    red = Image.new("RGB", (8, 6), (255, 255, 255) if mode == "1" else (200, 200, 200))
    if mode == "LAB":
        red = ImageCms.profileToProfile(
            red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    red.convert(mode).save(path)
    page = only(path)
    assert gap(page, np.array([255 if mode == "1" else 200] * 3)) <= 3 and len(page.steps) > 1


def test_a_colour_profile_is_followed_and_a_broken_one_told(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.new("CMYK", (8, 6), (0, 0, 0, 100))
    grey.save(tmp_path / "plain.tif")
    grey.save(tmp_path / "wrong.tif", icc_profile=lab)
    grey.save(tmp_path / "broken.jpg", icc_profile=b"nonsense" * 40)
    Image.new("RGB", (8, 6), (10, 200, 30)).save(tmp_path / "rgb.tif", icc_profile=lab)
    plain, wrong, broken, rgb = (
        only(tmp_path / f"{name}") for name in ("plain.tif", "wrong.tif", "broken.jpg", "rgb.tif")
    )
    assert plain.steps[-1] == "CMYK turned into RGB without a colour profile, by the plain formula"
    assert (plain.pixels == 155).all() and gap(wrong, plain.pixels) == 0 and gap(broken, plain.pixels) <= 2
    assert any(step.startswith("colour profile not used") for step in wrong.steps)
    assert any(step.startswith("colour profile not used") for step in broken.steps)
    assert gap(rgb, np.array([10, 200, 30])) <= 1 and rgb.steps[-1] == "RGB turned into sRGB by its colour profile"


def profile_of_ink() -> bytes:
    """A CMYK profile by which only K makes anything darker: no formula would do that."""
    table = b"".join(bytes([0 if corner & 1 else 255, 128, 128]) for corner in range(16))  # K comes last; Lab
    ramp, matrix = bytes(range(256)), struct.pack(">9i", *(65536 if row % 4 == 0 else 0 for row in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + table + ramp * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut))
    white = struct.pack(">3i", 63190, 65536, 54061)  # D50
    head = struct.pack(">I4xI4s4s4s12x4s28x", 144 + len(lut), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return head + white + bytes(128 - len(head) - len(white)) + tags + lut


def test_a_profile_of_inks_is_followed(tmp_path):
    inks = Image.new("CMYK", (8, 6), (255, 0, 0, 0))
    inks.paste((0, 0, 0, 255), (4, 0, 8, 6))
    for ending in ("tif", "jpg"):
        inks.save(tmp_path / f"a.{ending}", icc_profile=profile_of_ink())
        page = only(tmp_path / f"a.{ending}")
        assert page.steps[-1] == "CMYK turned into sRGB by its colour profile"
        assert page.pixels[:, 0].min() >= 250 and page.pixels[:, 7].max() <= 10  # by the formula cyan: red would be 0


def test_the_first_picture_of_a_phone_file_is_the_picture(tmp_path):
    path, small = tmp_path / "a.jpg", Image.new("RGB", (6, 4))
    Image.fromarray(colours()).save(path, format="MPO", save_all=True, append_images=[small])
    page = only(path)
    assert gap(page, colours()) <= 12 and not is_plain(path) and "further pictures" in page.losses[0]


def test_heic_is_turned_once_by_its_decoder(tmp_path):
    path, exif = tmp_path / "a.heic", Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(Image.fromarray(colours())).save(path, quality=95, exif=exif.tobytes())
    page = only(path)
    expected = np.stack([MASKS[6](colours()[..., band]) for band in range(3)], axis=-1)
    assert page.pixels.shape == (60, 40, 3) and page.orientation == 1
    assert np.abs(page.pixels.astype(int) - expected).mean() < 3


def test_pages_and_frames_are_pictures_of_their_own(tmp_path):
    frames = [Image.new("RGB", (8, 6), (value, 0, 0)) for value in (0, 100, 200)]
    for ending in ("tif", "gif", "png"):
        path = tmp_path / f"a.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        pages = list(plain_pages(path, Limits()))
        assert [abs(int(page.pixels[0, 0, 0]) - value) < 3 for page, value in zip(pages, (0, 100, 200), strict=True)]
        assert all(f"page {number} of 3" in page.steps for number, page in enumerate(pages, 1))
        with pytest.raises(ValueError, match="at most 2 pages, found 3; raise --most-pages"):
            list(plain_pages(path, Limits(most_pages=2)))


def test_each_page_of_a_pdf_is_drawn(tmp_path):
    path, document = tmp_path / "a.pdf", pypdfium2.PdfDocument.new()
    for width in (72, 144):
        document.new_page(width, 72)
    document.save(path)
    document.close()
    pages = list(plain_pages(path, Limits(dpi=100)))
    assert [page.pixels.shape for page in pages] == [(100, 100, 3), (100, 200, 3)] and pages[0].pixels.min() == 255
    with pytest.raises(ValueError, match="raise --most-pixels"):
        list(plain_pages(path, Limits(most_pixels=5000)))


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and is not."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [12_000, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(bomb(side, side))
    with pytest.raises(UNREADABLE, match=r"(?i)pixels"):
        only(path)
    assert Image.MAX_IMAGE_PIXELS and Image.MAX_IMAGE_PIXELS < 10**9


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "heic", "pdf", "gif", "webp"])
def test_broken_files_are_refused(tmp_path, ending):
    whole = tmp_path / f"whole.{ending}"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    if ending == "heic":
        pillow_heif.from_pillow(image).save(whole)
    else:
        image.save(whole)
    data = whole.read_bytes()
    for content in (b"", b"nonsense", data[: len(data) // 3]):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(content)
        with pytest.raises(UNREADABLE):
            list(plain_pages(path, Limits()))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "heic", "pdf", "gif", "webp", "bmp", "tga", "jp2", "avif"])
def test_spoilt_bytes_give_a_picture_or_a_refusal(tmp_path, ending):
    path, rng = tmp_path / f"a.{ending}", np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (24, 30, 3), np.uint8))
    if ending == "heic":
        pillow_heif.from_pillow(image).save(path)
    else:
        image.save(path)
    data, ends = path.read_bytes(), {True: 0, False: 0}
    for _ in range(30):
        spoilt = bytearray(data)
        for place in rng.integers(0, min(len(data), 600), 4):
            spoilt[place] = rng.integers(0, 256)
        path.write_bytes(spoilt)
        try:
            is_read = all(page.pixels.ndim == 3 for page in plain_pages(path, Limits(most_pixels=1_000_000)))
        except UNREADABLE:
            is_read = False
        ends[is_read] += 1
    assert sum(ends.values()) == 30


def test_a_program_is_not_run_for_an_image(tmp_path):
    path = tmp_path / "a.png"
    ImageDraw.Draw(image := Image.new("RGB", (8, 6))).line((0, 0, 7, 5))
    image.save(tmp_path / "a.eps")
    path.write_bytes((tmp_path / "a.eps").read_bytes())
    with pytest.raises(UNREADABLE, match="cannot identify"):
        only(path)
