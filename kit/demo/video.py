"""A video through the models of the demo page: decoded once, every frame shown to each, drawn copies written."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from kit.demo.models import Model, above, counts, timed
from kit.media import Unreadable, VideoWriter, video_about, video_frames
from kit.predictor.drawing import draw


@dataclass
class Tally:
    """What one model gave so far."""

    model: Model
    copy: Path  # the drawn video
    frames_ms: list[float] = field(default_factory=list)
    found: dict[int, int] = field(default_factory=dict)  # label: boxes in all frames
    picture: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8))  # the last frame, drawn

    def take(self, image: np.ndarray, threshold: float) -> None:
        """image: (H, W, C) uint8."""
        names = self.model.predictor.about.names
        detections = above(timed(self.model, image, self.frames_ms), threshold)
        self.picture = draw(image, detections, names)
        for label, amount in counts(detections, names).items():
            self.found[label] = self.found.get(label, 0) + amount


@dataclass(frozen=True)
class Step:
    """After each frame."""

    done: int
    total: int
    is_cut: bool  # frames beyond the total were left out
    faults: list[str]  # of frames that could not be read
    tallies: list[Tally]


def follow(
    models: Sequence[Model], video: Path, threshold: float, folder: Path, most_frames: int
) -> Generator[Step, None, None]:
    """Frame by frame; the drawn copies in the folder are whole when the iterator has come to its end."""
    about = video_about(video)
    total = min(about.frames or most_frames, most_frames)
    tallies = [Tally(model, folder / f"{index}.mp4") for index, model in enumerate(models)]
    faults: list[str] = []
    with ExitStack() as stack:
        frames = stack.enter_context(closing(video_frames(video)))
        writers = [stack.enter_context(VideoWriter(tally.copy, about.rate_fps)) for tally in tallies]
        for done, frame in enumerate(islice(frames, most_frames), start=1):
            try:
                images = [frame.load(model.predictor.about.channels) for model in models]
            except Unreadable as fault:
                faults.append(str(fault))
                continue
            for tally, writer, image in zip(tallies, writers, images, strict=True):
                tally.take(image, threshold)
                writer.write(tally.picture)
            yield Step(done, max(total, done), about.frames > most_frames, faults, tallies)
        if not tallies[0].frames_ms:
            raise ValueError(faults[0] if faults else f"{video}: expected a video, found no frame in it")
