"""Videos: their frames one after the other, and new ones that browsers play; by PyAV, an extra (media)."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from kit.files import atomic, one_line
from kit.media.frame import Frame, Load, Unreadable, unreadable, with_channels


@dataclass(frozen=True)
class VideoAbout:
    frames: int  # 0 where the file does not tell
    rate_fps: Fraction
    size_hw: tuple[int, int]  # upright


@dataclass(frozen=True)
class Decoded:
    """A frame of a video as PyAV gives it, or why there is none."""

    index: int
    time_s: float | None = None
    picture: Any = None
    fault: str = ""


def pyav() -> Any:
    """PyAV; where it is not installed, an ImportError of one line says how to get it."""
    try:
        return import_module("av")
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install -e '.[media]'") from error


@contextmanager
def opened_video(path: Path | str) -> Iterator[tuple[Any, Any]]:
    """Its container and its first video stream."""
    av = pyav()
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:  # the last: tags that are no text
        reason = getattr(error, "strerror", None) or one_line(error)
        raise Unreadable(f"{path}: expected a video, {reason}") from error
    with container:
        if not container.streams.video:
            raise Unreadable(f"{path}: expected a video, found a file without a picture track")
        yield container, container.streams.video[0]


def video_about(path: Path | str) -> VideoAbout:
    with opened_video(path) as (container, stream):
        rate_fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
        told = stream.frames or round(float((container.duration or 0) / 1_000_000 * rate_fps))
        first = next((each.picture for each in decoded(container, stream) if each.picture), None)
        size_hw = (stream.height, stream.width)
        return VideoAbout(told, rate_fps, size_hw[::-1] if first and first.rotation % 180 else size_hw)


def video_frames(
    path: Path | str, every: int = 1, exif: bool = True, name: str | None = None
) -> Generator[Frame, None, None]:
    """Each every-th frame. A broken one is a frame that cannot be loaded; what comes after it is read on."""
    path = Path(path)
    name = path.name if name is None else name
    try:
        with opened_video(path) as (container, stream):
            stream.thread_type = "AUTO"
            for each in decoded(container, stream):
                if each.picture is None:
                    at = f"frame {each.index}" + (f" at {each.time_s:.3f} s" if each.time_s is not None else "")
                    load = unreadable(f"{path}: {at} {each.fault}")
                elif each.index % every == 0:
                    load = pixels_of(each.picture, exif)
                else:
                    continue
                yield Frame(name, "video", load, path, each.index, each.time_s)
    except Unreadable as error:
        yield Frame(name, "video", unreadable(str(error)), path)


def decoded(container: Any, stream: Any) -> Iterator[Decoded]:
    """All frames in the order in which they are shown, the broken ones in their places.

    Decoders hand out later than they take, and pass over in silence what hangs on a broken frame. So what has been read
    is remembered by its time until it comes out; what is earlier than what comes out does not come any more.
    """
    av = pyav()
    awaited: list[int] = []  # a heap of times, in the stream's own unit
    index = packets = 0

    def lost(pts: int) -> Decoded:
        return Decoded(index, float(pts * stream.time_base), fault="cannot be decoded, or hangs on one that cannot")

    for packet in packets_of(container, stream):
        if packet.size:
            packets += 1
            if packet.pts is not None and not packet.is_discard:
                heappush(awaited, packet.pts)
        try:
            pictures = packet.decode()
        except av.FFmpegError as error:  # maybe of an earlier packet: it works ahead
            pictures = []
            if packet.pts is None:
                yield Decoded(index, fault=f"cannot be decoded: {error.strerror}")
                index += 1
        for picture in pictures:
            while awaited and picture.pts is not None and awaited[0] < picture.pts:
                yield lost(heappop(awaited))
                index += 1
            if awaited and awaited[0] == picture.pts:
                heappop(awaited)
            if picture.is_corrupt:
                yield Decoded(index, picture.time, fault="is damaged")
            else:
                yield Decoded(index, picture.time, picture)
            index += 1
    while awaited:
        yield lost(heappop(awaited))
        index += 1
    if packets < stream.frames:
        yield Decoded(index, fault=f"and all after it are missing: expected {stream.frames}, found {packets}")


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """What can be read of the file; the last packet is an empty one, which makes the decoder hand out the rest."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except pyav().FFmpegError:
            return  # decoded() tells how many frames are missing
        if packet is None:
            return
        yield packet


def pixels_of(picture: Any, exif: bool) -> Load:
    """picture: a decoded frame of PyAV, which becomes RGB only where it is wanted."""

    def load(channels: int) -> np.ndarray:
        image = picture.to_ndarray(format="rgb24")
        quarters = round(picture.rotation / 90) if exif else 0
        return with_channels(np.ascontiguousarray(np.rot90(image, quarters)), channels)

    return load


class VideoWriter:
    """An MP4 that every browser plays (H.264, even sides), whole or absent. A context manager.

    Frames of another size than the first are made to fit.
    """

    def __init__(self, path: Path | str, rate_fps: Fraction | float):
        self.path, self.rate_fps = Path(path), Fraction(rate_fps).limit_denominator(1001)
        self.stream: Any = None

    def __enter__(self) -> "VideoWriter":
        av = pyav()
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic(self.path))
            options = {"movflags": "faststart"}
            self.container = stack.enter_context(av.open(str(temporary), "w", format="mp4", options=options))
            self.stack = stack.pop_all()
        return self

    def write(self, image: np.ndarray) -> None:
        """image: (H, W, 3) uint8, RGB."""
        av = pyav()
        if self.stream is None:
            self.stream = self.new_stream(image.shape[0], image.shape[1])
        width, height = self.stream.width, self.stream.height
        image = image[:height, :width]
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self.container.mux(self.stream.encode(frame))

    def new_stream(self, height: int, width: int) -> Any:
        """An odd last row or column is left out: the format has one colour for 2 x 2 pixels."""
        if min(height, width) < 2:
            raise ValueError(f"{self.path}: frames must have at least 2 x 2 px, got {width} x {height}")
        has_h264 = "libx264" in pyav().codecs_available
        options = {"preset": "veryfast", "crf": "21"} if has_h264 else {"qscale": "3"}
        stream = self.container.add_stream("libx264" if has_h264 else "mpeg4", rate=self.rate_fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stack.__exit__(kind, error, trace)  # nothing takes the name
            return
        with self.stack:
            if self.stream is None:
                raise ValueError(f"{self.path}: expected at least one frame, none was written")
            self.container.mux(self.stream.encode(None))
