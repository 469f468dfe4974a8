"""Pictures of any kind to detections, by any file that kit has written: a checkpoint, ONNX, OpenVINO or TensorRT."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from kit.deploy.choice import choose
from kit.deploy.openvino_runner import OpenVinoRunner
from kit.deploy.runtimes import Found, Runner, Runtime, open_runner
from kit.deploy.threads import available_cores
from kit.media.frame import Frame, Unreadable, with_channels
from kit.media.images import read_picture
from kit.media.sources import Source, frames, kind_of
from kit.predict import Detections, Progress
from kit.predictor.fitting import DEFAULT_THRESHOLD, Fitted, Resize, finished, fitted, thresholds_of
from kit.predictor.overlap import Clock, ahead, in_order
from kit.predictor.prediction import Prediction, Summary, nothing_found

EXPORTED = (".onnx", ".xml", ".engine", ".plan")
READY_BATCHES = 2  # predicted and not yet taken
DECODED_BATCHES = 4  # at most, not yet predicted: inference must never wait for a decoder that had no core
MOST_WORKERS = 8  # unless more are asked for

Picture = np.ndarray | str | Path
Thresholds = float | Mapping[str, float]
Answer = Callable[[], list[Detections]]


@dataclass(frozen=True)
class Prepared:
    """A frame that is decoded and fitted, or why it is not."""

    frame: Frame
    image: np.ndarray | None = None  # (H, W, C) uint8
    place: Fitted | None = None
    fault: str = ""


class Predictor:
    """A detector that is ready to look at pictures. Calls from several threads wait for each other.

    threshold: the least score, of all classes or by the name of each. resize: `plain` is that of the training.
    batch_size: None takes what the file or the device likes. nms_iou: overlap at which the weaker of two boxes of a
    class goes; None leaves all. workers: threads that decode; threads: of the inference; None lets kit choose both. say
    is told what takes long: the first time that a checkpoint is opened, it is exported, and measured in each runtime.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        runtime: Runtime | None = None,
        device: str | None = None,
        threshold: Thresholds = DEFAULT_THRESHOLD,
        resize: Resize = "plain",
        size_hw: tuple[int, int] | None = None,
        batch_size: int | None = None,
        top_k: int | None = None,
        nms_iou: float | None = None,
        workers: int | None = None,
        threads: int | None = None,
        say: Callable[[str], None] | None = None,
    ):
        if resize not in ("plain", "letterbox"):
            raise ValueError(f"resize must be plain or letterbox, got {resize!r}")
        counts = {"batch_size": batch_size, "top_k": top_k, "workers": workers, "threads": threads}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.runner, self.why = opened(source, runtime, device, size_hw, batch_size, top_k, threads, say)
        self.about, self.runtime, self.device = self.runner.about, self.runner.runtime, self.runner.device
        self.size_hw, self.names = self.about.size_hw, self.about.names
        if size_hw not in (None, self.size_hw):
            raise ValueError(f"{source}: takes {self.size_hw} alone, got size_hw {size_hw}; export it in that size")
        self.batch_size = self.about.batch or batch_size or (8 if self.device.startswith("cuda") else 1)
        self.thresholds = thresholds_of(threshold, self.names)  # (K,)
        self.resize, self.top_k, self.nms_iou = resize, top_k, nms_iou
        self.workers = workers or min(MOST_WORKERS, available_cores())
        self.lock = threading.Lock()

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str, but means a path
        self, pictures: Picture, *, threshold: Thresholds | None = None, exif: bool = True
    ) -> Detections: ...

    @overload
    def __call__(
        self, pictures: Sequence[Picture], *, threshold: Thresholds | None = None, exif: bool = True
    ) -> list[Detections]: ...

    def __call__(
        self, pictures: Picture | Sequence[Picture], *, threshold: Thresholds | None = None, exif: bool = True
    ) -> Detections | list[Detections]:
        """Of one picture, or of each in a list: a path, or (H, W, C) or (H, W) uint8, RGB.

        exif: a path's picture is turned upright first, and boxes lie in the upright one.
        """
        if isinstance(pictures, np.ndarray | str | Path):
            return self([pictures], threshold=threshold, exif=exif)[0]
        thresholds = self.thresholds_for(threshold)
        result: list[Detections] = []
        for start in range(0, len(pictures), self.batch_size):
            chunk = pictures[start : start + self.batch_size]
            images = [self.image_of(picture, exif) for picture in chunk]
            places = [fitted(image, self.size_hw, self.resize) for image in images]
            result += self.infer(places, thresholds, fill=self.batch_size if start else 1)
        return result

    def stream(
        self,
        source: Source,
        *,
        recursive: bool = False,
        every: int = 1,
        dpi: int = 150,
        exif: bool = True,
        threshold: Thresholds | None = None,
        clock: Clock | None = None,
    ) -> Generator[Prediction, None, None]:
        """Predictions for each frame of an image, a folder, a glob pattern, a video, a PDF or a list of such, in order.

        Decoding and inference go on in threads while the last prediction is looked at, only a few frames ahead. What
        cannot be read comes as a prediction with a fault. The other arguments are those of kit.media.frames.
        """
        clock = clock or Clock()
        listed = clock.each("decoding", frames(source, recursive=recursive, every=every, dpi=dpi, exif=exif))
        found = self.predictions(listed, self.thresholds_for(threshold), clock)
        if isinstance(self.runner, OpenVinoRunner):  # goes on in the background by itself
            return found
        return ahead(found, depth=READY_BATCHES * self.batch_size)

    def run(self, source: Source, out: Path | str, *, progress: Progress | None = None, **options: Any) -> Summary:
        """Predicts and writes as it goes; see kit.predictor.running.run for the options."""
        from kit.predictor.running import run

        return run(self, source, out, progress=progress, **options)

    def thresholds_for(self, threshold: Thresholds | None) -> np.ndarray:
        """(K,)"""
        return self.thresholds if threshold is None else thresholds_of(threshold, self.names)

    def image_of(self, picture: Picture, exif: bool) -> np.ndarray:
        """(H, W, C) uint8"""
        if isinstance(picture, np.ndarray):
            return with_channels(picture, self.about.channels)
        if kind_of(picture) in ("video", "pdf"):
            raise ValueError(f"{picture}: expected an image, got a {kind_of(picture)}; take predictor.stream for it")
        return read_picture(picture, self.about.channels, exif)

    def predictions(
        self, listed: Generator[Frame, None, None], thresholds: np.ndarray, clock: Clock
    ) -> Generator[Prediction, None, None]:
        """The stages one behind the other: what lists the frames (and reads videos), what prepares them, inference."""
        depth = DECODED_BATCHES * self.batch_size + self.workers
        prepare = partial(self.prepared, clock=clock)
        with (
            ThreadPoolExecutor(self.workers) as pool,
            closing(ahead(listed, depth)) as coming,
            closing(in_order(pool, prepare, coming, depth)) as ready,
        ):
            yield from self.inferred(batches(ready, self.batch_size), thresholds, clock)

    def inferred(
        self, coming: Iterator[list[Prepared]], thresholds: np.ndarray, clock: Clock
    ) -> Generator[Prediction, None, None]:
        """Batch after batch, and several at once where the runtime computes them quicker so."""
        at_once = self.runner.at_once if isinstance(self.runner, OpenVinoRunner) else 1
        under_way: deque[tuple[list[Prepared], Answer]] = deque()
        try:
            for number, batch in enumerate(coming):
                with clock("inference"):
                    places = [each.place for each in batch if each.place]
                    under_way.append((batch, self.begin(places, thresholds, fill=self.batch_size if number else 1)))
                if len(under_way) >= at_once:
                    yield from ended(*under_way.popleft(), clock)
            while under_way:
                yield from ended(*under_way.popleft(), clock)
        finally:
            for _, answer in under_way:  # where it breaks off: what was begun is not left alone with its pictures
                answer()

    def prepared(self, frame: Frame, clock: Clock) -> Prepared:
        try:
            with clock("decoding"):
                image = frame.load(self.about.channels)
        except Unreadable as error:
            return Prepared(frame, fault=str(error))
        with clock("resizing"):
            return Prepared(frame, image, fitted(image, self.size_hw, self.resize))

    def infer(self, places: Sequence[Fitted], thresholds: np.ndarray, fill: int = 1) -> list[Detections]:
        """At most batch_size pictures, in all threads."""
        if not places:
            return []
        images, sizes_hw = self.filled(places, fill)
        with self.lock:
            found = self.runner(images, sizes_hw)
        return self.detections(found, places, thresholds)

    def begin(self, places: Sequence[Fitted], thresholds: np.ndarray, fill: int = 1) -> Answer:
        """As infer; where the runtime can it goes on in the background, and what comes back waits for it."""
        if not places or not isinstance(self.runner, OpenVinoRunner):
            found = self.infer(places, thresholds, fill)
            return lambda: found
        images, sizes_hw = self.filled(places, fill)
        with self.lock:
            wait = self.runner.begin(images, sizes_hw)
        return lambda: self.detections(wait(), places, thresholds)

    def filled(self, places: Sequence[Fitted], fill: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch smaller than `fill`, or than the file takes, is filled up with its last picture.

        Every size of a batch is another shape, and some runtimes compile each shape when it first comes.
        -> (B, H, W, C) uint8, and the sizes that boxes are to be told in, (B, 2).
        """
        missing = (self.about.batch or max(fill, len(places))) - len(places)
        rows = [*places, *[places[-1]] * missing]
        images = np.stack([each.image for each in rows]) if len(rows) > 1 else rows[0].image[None]
        return images, np.array([each.told_hw for each in rows], np.float32)

    def detections(self, found: Found, places: Sequence[Fitted], thresholds: np.ndarray) -> list[Detections]:
        """Of each picture, without those that fill up."""
        return [
            finished(boxes_xyxy, scores, labels, place, thresholds, self.nms_iou)
            for boxes_xyxy, scores, labels, place in zip(
                found.boxes_xyxy[:, : self.top_k],
                found.scores[:, : self.top_k],
                found.labels[:, : self.top_k],
                places,
                strict=False,
            )
        ]


def opened(
    source: Path | str,
    runtime: Runtime | None,
    device: str | None,
    size_hw: tuple[int, int] | None,
    batch_size: int | None,
    top_k: int | None,
    threads: int | None,
    say: Callable[[str], None] | None,
) -> tuple[Runner, str]:
    """An exported file as it is; a checkpoint by the quickest of the runtimes that are there, or the one asked for.

    -> what runs it, and why that.
    """
    if Path(source).suffix.lower() in EXPORTED or runtime in ("torch", "compiled"):
        why = "as asked for" if runtime else "by the kind of the file"
        runner = open_runner(source, runtime, device, size_hw=size_hw, top_k=top_k or 300, threads=threads)
    else:
        choice = choose(
            source,
            size_hw=size_hw,
            batch=batch_size or 1,
            top_k=top_k or 300,
            device=device,
            threads=threads,
            runtimes=None if runtime is None else (runtime,),
            say=say,
        )
        runner, why = choice.open(threads), choice.why
    if top_k is not None and top_k > runner.about.top_k:
        raise ValueError(f"{source}: gives {runner.about.top_k} boxes at most, got top_k {top_k}; export it with more")
    return runner, why


def batches(items: Iterator[Prepared], size: int) -> Iterator[list[Prepared]]:
    """So many that can be predicted in each, and the faulty ones where they stand between them."""
    batch: list[Prepared] = []
    for item in items:
        batch.append(item)
        if sum(each.place is not None for each in batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def ended(batch: list[Prepared], answer: Answer, clock: Clock) -> Iterator[Prediction]:
    with clock("inference"):
        found = iter(answer())
    for each in batch:
        yield prediction_of(each, next(found) if each.place else nothing_found())


def prediction_of(each: Prepared, detections: Detections) -> Prediction:
    frame = each.frame
    return Prediction(frame.name, frame.kind, each.image, detections, frame.path, frame.index, frame.time_s, each.fault)
