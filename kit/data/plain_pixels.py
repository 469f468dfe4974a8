"""Any image file as plain pictures, 8-bit RGB, with what was done to it in words.

Read are the usual formats, and HEIC, AVIF, TIFF (pages, 16 bits, floats), CMYK, palettes, transparency, animations and
PDFs. What cannot be done without a decision is refused with the option that decides it. Nothing that runs programs of
its own, such as PostScript, is opened.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pillow_heif
import pypdfium2  # type: ignore[import-untyped]
from PIL import Image, ImageCms

from kit.data.image_files import EXIF_ORIENTATION

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
HEIF_ENDINGS = (".heic", ".heif", ".hif")
ENDINGS = (
    *(".avif", ".bmp", ".gif", ".jpg", ".jpeg", ".jpe", ".jp2", ".j2k", ".png", ".apng", ".pgm", ".ppm", ".pbm"),
    *(".pnm", ".tga", ".tif", ".tiff", ".webp", ".pdf", *HEIF_ENDINGS),
)
UNREADABLE = (  # what the decoders raise on broken files
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError,
    struct.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
BITS_PER_SAMPLE = 258  # of TIFF
DARK = 2**12  # 16-bit values that all stay under it fill an eighth of the range at most: a camera of 12 bits or fewer

Range = Literal["format", "image"]


@dataclass(frozen=True)
class Limits:
    """How files are read. value_range: of 16 bits, integers and floats: the format's, or each image's own."""

    most_pixels: int = 100_000_000  # of one page
    most_pages: int = 1000
    dpi: float = 150.0  # of PDF pages
    value_range: Range = "format"


@dataclass(frozen=True)
class Plain:
    """One picture, or one page."""

    pixels: np.ndarray  # (H, W, 3) uint8
    steps: list[str]  # what was done
    losses: list[str]  # what of it does not come back
    stored_hw: tuple[int, int]
    orientation: int = 1  # of EXIF, applied


def plain_pages(path: Path, limits: Limits) -> Iterator[Plain]:
    """All pictures of a file. Raises one of UNREADABLE where it is broken, too large, or of another kind."""
    if path.suffix.lower() == ".pdf":
        yield from pdf_pages(path, limits)
        return
    with pixel_limit(limits.most_pixels), opened(path, limits) as image:
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if pages > limits.most_pages:
            raise ValueError(f"expected at most {limits.most_pages} pages, found {pages}; raise --most-pages")
        for page in range(pages):
            if pages > 1:
                image.seek(page)
            refuse_huge(image.width, image.height, limits)
            yield plain_of(image, path, limits, [f"page {page + 1} of {pages}"] * (pages > 1))


@contextmanager
def pixel_limit(most_pixels: int) -> Iterator[None]:
    """Pillow's own limit, for as long as a file is read: a small file can ask for any amount of memory."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = most_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def refuse_huge(width: float, height: float, limits: Limits) -> None:
    if width * height > limits.most_pixels:
        found = f"expected at most {limits.most_pixels} pixels, found {width:.0f} x {height:.0f}"
        raise ValueError(f"{found}; raise --most-pixels if you trust the file and have the memory")


def opened(path: Path, limits: Limits) -> Image.Image:
    """HEIC is turned by its decoder, so its EXIF orientation is not applied again; labels are of what is shown."""
    if path.suffix.lower() in HEIF_ENDINGS:
        heif = pillow_heif.open_heif(path)
        refuse_huge(heif.size[0], heif.size[1], limits)
        image: Image.Image = heif.to_pillow()
        image.format = "HEIF"
        image.info |= {"bits": heif.info.get("bit_depth", 8), "pictures": len(heif)}
        return image
    try:
        return Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{error} Raise --most-pixels if you trust the file and have the memory") from error


def pdf_pages(path: Path, limits: Limits) -> Iterator[Plain]:
    """Each page as it is printed at limits.dpi."""
    document = pypdfium2.PdfDocument(path)
    try:
        if len(document) > limits.most_pages:
            raise ValueError(f"expected at most {limits.most_pages} pages, found {len(document)}; raise --most-pages")
        for number in range(len(document)):
            page, scale = document[number], limits.dpi / 72
            width, height = (side * scale for side in page.get_size())
            refuse_huge(width, height, limits)
            pixels = np.array(page.render(scale=scale, rev_byteorder=True).to_pil().convert("RGB"))
            steps = [f"page {number + 1} of {len(document)}", f"PDF drawn at {limits.dpi:g} dpi"]
            yield Plain(pixels, steps, ["text and lines of the PDF are pixels now"], pixels.shape[:2])
    finally:
        document.close()


def is_plain(path: Path) -> bool:
    """A JPEG or PNG that already is what this file makes: it stays byte for byte."""
    with pixel_limit(2**62), Image.open(path, formats=("JPEG", "PNG")) as image:
        is_single = getattr(image, "n_frames", 1) == 1 and "transparency" not in image.info
        is_upright = image.getexif().get(EXIF_ORIENTATION, 1) == 1
        return image.mode == "RGB" and is_single and is_upright and bits_of(image, path) == 8


def bits_of(image: Image.Image, path: Path) -> int:
    """Of one value in the file: Pillow itself gives 16-bit colours as 8."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return max(file.read(25)[24], 8)  # the header comes first
    if image.format == "TIFF":
        return int(max(np.atleast_1d(image.tag_v2.get(BITS_PER_SAMPLE, 8))))  # type: ignore[attr-defined]
    return int(image.info.get("bits", 8)) if image.format == "HEIF" else 8


# --- one picture ---


def plain_of(image: Image.Image, path: Path, limits: Limits, steps: list[str]) -> Plain:
    bits, losses = bits_of(image, path), left_out(image)
    if image.format not in ("JPEG", "PNG"):
        steps = [f"{image.format} read", *steps]
    orientation = orientation_of(image)
    image.load()
    profile = image.info.get("icc_profile")
    whole = as_eight_bits(image, limits.value_range, steps, losses)
    if bits > 8 and whole is image:
        steps.append(f"{bits} bits reduced to 8")
        losses.append(f"the lower {bits - 8} bits")
    rgb = as_rgb(without_alpha(whole, steps, losses), profile, steps)
    if orientation != 1:
        steps.append(f"EXIF orientation {orientation} applied")
        rgb = rgb if image.format == "TIFF" else rgb.transpose(TURNS[orientation])  # Pillow turns TIFF as it loads it
    shown_hw = (rgb.height, rgb.width)
    return Plain(np.array(rgb), steps, losses, shown_hw[::-1] if orientation >= 5 else shown_hw, orientation)


def orientation_of(image: Image.Image) -> int:
    found = image.getexif().get(EXIF_ORIENTATION, 1)
    return found if image.format != "HEIF" and found in TURNS else 1


def left_out(image: Image.Image) -> list[str]:
    """Pictures of a file that is one picture in the main."""
    if image.format == "MPO" or image.info.get("pictures", 1) > 1:
        return ["further pictures of the file, such as depth or a preview, are left out"]
    return []


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def as_eight_bits(image: Image.Image, value_range: Range, steps: list[str], losses: list[str]) -> Image.Image:
    """Modes of one channel with more than 8 bits as grey; others unchanged. Adds to steps and losses."""
    if not (image.mode == "F" or image.mode.startswith("I")):
        return image
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        losses.append(f"{int((~np.isfinite(values)).sum())} values that are no finite number are black")
        values = np.where(np.isfinite(values), values, 0)
    low, high = float(values.min()), float(values.max())
    if value_range == "image":
        steps.append(f"values {low:g} to {high:g} stretched to 0 to 255")
        scaled = (values - low) * (255 / max(high - low, 1e-300))
    else:
        scaled = in_format_range(values, image.mode, steps)
        if image.mode != "F" and high < DARK:
            steps.append(f"dark: no value over {high:g} of 65535; --range image stretches them")
    losses.append("finer steps than 1 in 255")
    return Image.fromarray(np.round(scaled.clip(0, 255)).astype(np.uint8), "L")


def in_format_range(values: np.ndarray, mode: str, steps: list[str]) -> np.ndarray:
    """(H, W) -> (H, W), 0 to 255; ValueError where the format does not tell what is white."""
    low, high = float(values.min()), float(values.max())
    most = 65535 if mode != "F" else 1 if high <= 1 else 255
    if low < 0 or high > most:
        what = "floats of 0 to 1 or 0 to 255" if mode == "F" else "integers of 0 to 65535"
        raise ValueError(f"expected {what}, found {low:g} to {high:g}; --range image stretches each image by itself")
    if mode == "F":
        steps.append(f"floats of 0 to {most} read")
        return values * (255 / most)
    steps.append("16 bits reduced to 8")
    return np.floor(values / 256)  # as OpenCV and Pillow reduce colours of 16 bits


def without_alpha(image: Image.Image, steps: list[str], losses: list[str]) -> Image.Image:
    """Over white, as viewers of pages show it."""
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if image.mode == "P" or image.mode == "PA":
        steps.append("palette turned into colours")
    if not has_alpha:
        return image.convert("RGB") if image.mode == "P" else image
    rgba = image.convert("RGBA")
    clear = int((np.asarray(rgba.getchannel("A")) < 255).sum())
    steps.append("alpha laid over white" if clear else "alpha, opaque everywhere, left out")
    if clear:
        losses.append(f"transparency of {clear} pixels")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def as_rgb(image: Image.Image, profile: bytes | None, steps: list[str]) -> Image.Image:
    """By the file's colour profile where it has one that fits; else by Pillow's plain formula."""
    if image.mode == "LAB":
        steps.append("LAB turned into sRGB")
        return through(image, ImageCms.createProfile("LAB"))
    if profile and image.mode in ("CMYK", "RGB", "L"):
        try:
            turned = through(image, ImageCms.ImageCmsProfile(BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            steps.append(f"colour profile not used: {error}")
        else:
            steps.append(f"{image.mode} turned into sRGB by its colour profile")
            return turned
    if image.mode != "RGB":
        how = " without a colour profile, by the plain formula" if image.mode == "CMYK" else ""
        steps.append(f"{image.mode} turned into RGB{how}")
    return image.convert("RGB")


def through(image: Image.Image, profile: Any) -> Image.Image:
    turned = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if turned is None:
        raise ValueError("the profile gave no picture")
    return turned
