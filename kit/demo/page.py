"""The demo page: an image or a video, one model or two side by side, boxes and latency."""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import gradio
import numpy as np
from PIL import Image

from kit.demo.look import card, class_chips, comparison, faster, heading, line, milliseconds
from kit.demo.models import LEAST_SCORE, MOST_SCORE, Answer, Model, above, answers, counts
from kit.demo.video import Step, Tally, follow
from kit.media import kind_of, read_picture
from kit.predictor.drawing import draw

NOTHING = -1  # in place of a second model
LIVE_S = 0.5  # between two pictures of a video that is being worked on
MEASURED = "from the decoded image to its boxes; reading and drawing not counted"
TURN = "One file at a time: this one is being looked at, or waits for its turn."
WAITING = "Waiting for an image or a video."
FORGET_S = 1800  # what visitors leave is deleted after so long, and when the page ends
MOST_PIXELS = 80_000_000  # of an image

Update = dict[Any, Any]  # component: its new value or look


@dataclass(frozen=True)
class Seen:
    """What a visitor has before them, so that another threshold or model needs no other upload."""

    path: Path | None = None
    answers: list[Answer] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name if self.path else ""


@dataclass(frozen=True)
class Column:
    """Of one model."""

    whole: gradio.Column
    card: gradio.HTML
    picture: gradio.Image
    video: gradio.Video

    def show(self, card: str, picture: np.ndarray | None = None, video: Path | None = None) -> Update:
        return {
            self.whole: gradio.update(visible=True),
            self.card: card,
            self.picture: gradio.update(value=picture, visible=picture is not None),
            self.video: gradio.update(value=video, visible=video is not None),
        }

    def hide(self) -> Update:
        return {self.whole: gradio.update(visible=False), self.picture: None, self.video: None}


@dataclass(frozen=True)
class Page:
    """The components that change, and what changes them."""

    models: list[Model]
    folder: Path  # for the drawn videos, while they are made
    most_frames: int
    upload: gradio.File
    status: gradio.HTML
    stop: gradio.Button
    seen: gradio.State
    columns: list[Column]

    @property
    def outputs(self) -> list[Any]:
        parts = [part for each in self.columns for part in (each.whole, each.card, each.picture, each.video)]
        return [self.upload, self.status, self.stop, self.seen, *parts]

    def chosen(self, *numbers: int) -> list[Model]:
        return [self.models[number] for number in numbers if number != NOTHING]

    def detect(self, upload: str | None, seen: Seen, first: int, second: int, threshold: float) -> Iterator[Update]:
        """Of the file that was dropped now, or else before. What is wrong with it is said in the page."""
        models = self.chosen(first, second)
        path = Path(upload) if upload else seen.path
        ready = {self.upload: None}  # for the next file
        if path is None or not path.is_file():
            text = WAITING if path is None else f"{path.name} is no longer kept; drop it again."
            yield ready | self.cleared(models, text)
            return
        try:
            for update in self.found(path, models, threshold):
                yield ready | update
        except (ValueError, OSError, ImportError) as error:
            path.unlink(missing_ok=True)
            yield ready | self.cleared(models, about_file(str(error), path), "wrong")
        except Exception:
            yield ready | self.cleared(models, f"{path.name}: a model failed; the terminal tells why.", "wrong")
            raise

    def found(self, path: Path, models: Sequence[Model], threshold: float) -> Iterator[Update]:
        """For an image one update, for a video many."""
        kind = kind_of(path)
        if kind == "video":
            yield from self.video(path, models, threshold)
        elif kind == "image":
            check_pixels(path)
            seen = Seen(path, answers(models, partial(read_picture, path)))
            yield {self.seen: seen, self.stop: gradio.update(visible=False)} | self.drawn(seen, threshold)
        else:
            raise ValueError(f"{path}: expected an image or a video, found {path.suffix or 'no ending'}")

    def drawn(self, seen: Seen, threshold: float) -> Update:
        """What is above the threshold. Without an image: a line that says what to do."""
        if not seen.answers:
            return {self.status: line("Press Detect to use this threshold." if seen.path else WAITING)}
        updates = [image_update(*each, threshold) for each in zip(self.columns, seen.answers, strict=False)]
        hidden = [column.hide() for column in self.columns[len(seen.answers) :]]
        return {self.status: line(image_line(seen, threshold), "good")} | merged(updates + hidden)

    def video(self, path: Path, models: Sequence[Model], threshold: float) -> Iterator[Update]:
        busy = {self.stop: gradio.update(visible=True), self.seen: Seen(path)}
        yield self.cleared(models, f"Opening {path.name}.", "busy") | busy
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as folder,
            closing(follow(models, path, threshold, Path(folder), self.most_frames)) as steps,
        ):
            started = shown = monotonic()
            step = None
            for step in steps:
                if monotonic() - shown > LIVE_S:
                    yield self.live(step, monotonic() - started)
                    shown = monotonic()
            if step is not None:
                yield self.finished(path, step)

    def live(self, step: Step, elapsed_s: float) -> Update:
        left_s = elapsed_s / step.done * (step.total - step.done)
        text = f"Frame {step.done} of {step.total}, about {left_s:.0f} s to go."
        columns = zip(self.columns, step.tallies, strict=False)
        return {self.status: line(text, "busy")} | merged(
            [column.show(video_card(tally), tally.picture) for column, tally in columns]
        )

    def finished(self, path: Path, step: Step) -> Update:
        columns = zip(self.columns, step.tallies, strict=False)
        shown = merged([column.show(video_card(tally), video=tally.copy) for column, tally in columns])
        return shown | {
            self.status: line(about_file(video_line(path.name, step), path), "good"),
            self.stop: gradio.update(visible=False),
        }

    def cleared(self, models: Sequence[Model], text: str, kind: str = "") -> Update:
        """Cards without figures, no picture, and a line."""
        shown = [column.show(idle_card(model)) for column, model in zip(self.columns, models, strict=False)]
        hidden = [column.hide() for column in self.columns[len(models) :]]
        status = {self.status: line(text, kind), self.stop: gradio.update(visible=False)}
        return status | {self.seen: Seen()} | merged(shown + hidden)

    def stopped(self) -> Update:
        return {self.status: line("Stopped."), self.stop: gradio.update(visible=False)}


def merged(updates: Sequence[Update]) -> Update:
    return {part: value for update in updates for part, value in update.items()}


def check_pixels(path: Path) -> None:
    """From the file's head, before anything is decoded; what is no image is left to the reader."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is said here is stricter
            with Image.open(path) as image:
                width, height = image.size
    except (OSError, SyntaxError, ValueError):
        return
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: expected at most {MOST_PIXELS:,} pixels, found more; make it smaller") from error
    if width * height > MOST_PIXELS:
        raise ValueError(f"{path}: expected at most {MOST_PIXELS:,} pixels, found {width} x {height}; make it smaller")


def about_file(text: str, path: Path) -> str:
    """Names the file as the visitor knows it and not by its place on this machine."""
    return text.replace(str(path), path.name).replace(str(path.parent), "").strip()


def idle_card(model: Model) -> str:
    return card(model.name, model.about, {}, "")


def image_update(column: Column, answer: Answer, threshold: float) -> Update:
    names = answer.model.predictor.about.names
    found = above(answer.detections, threshold)
    figures = {
        "ms": milliseconds(answer.latency_ms),
        "images/s": f"{1000 / answer.latency_ms:.1f}",
        "found": str(len(found.scores)),
    }
    chips = class_chips({label: str(amount) for label, amount in counts(found, names).items()}, names)
    return column.show(card(answer.model.name, answer.model.about, figures, chips), draw(answer.image, found, names))


def image_line(seen: Seen, threshold: float) -> str:
    height, width = seen.answers[0].image.shape[:2]
    said = [f"{seen.name}, {width} x {height} px."]
    if len(seen.answers) == 2:
        one, other = seen.answers
        said.append(comparison(one, other, threshold))
    said.append(f"Latency: median of {len(seen.answers[0].rounds_ms)}, {MEASURED}.")
    return " ".join(said)


def video_card(tally: Tally) -> str:
    """Figures of a frame."""
    frames, names = len(tally.frames_ms), tally.model.predictor.about.names
    latency_ms = median(tally.frames_ms)
    mean = sum(tally.found.values()) / frames
    figures = {
        "ms": milliseconds(latency_ms),
        "frames/s": f"{1000 / latency_ms:.1f}",
        "found in a frame": f"{mean:.1f}",
    }
    frequent = sorted(tally.found.items(), key=lambda each: -each[1])
    chips = class_chips({label: f"{amount / frames:.1f}" for label, amount in frequent}, names)
    return card(tally.model.name, tally.model.about, figures, chips)


def video_line(name: str, step: Step) -> str:
    said = [f"{name}, {len(step.tallies[0].frames_ms)} frames."]
    if len(step.tallies) == 2:
        one, other = step.tallies
        said.append(faster(one.model.name, median(one.frames_ms), other.model.name, median(other.frames_ms)))
    said.append(f"Latency: median of all frames, {MEASURED}.")
    if step.is_cut:
        said.append(f"The rest of the video was left out (at most {step.total} frames).")
    if step.faults:
        said.append(f"{len(step.faults)} frames could not be read and were skipped; the first: {step.faults[0]}.")
    return " ".join(said)


def build_page(models: Sequence[Model], folder: Path, threshold: float = 0.4, most_frames: int = 600) -> gradio.Blocks:
    """One inference at a time; the rest waits in a queue."""
    names = [(model.name, index) for index, model in enumerate(models)]
    several = len(models) > 1
    with gradio.Blocks(title="Detection demo", analytics_enabled=False, delete_cache=(60, FORGET_S)) as blocks:
        gradio.HTML(heading(len(models)))
        with gradio.Row():
            upload = gradio.File(label="Image or video", height=130, elem_id="upload", scale=2, min_width=240)
            with gradio.Column(scale=5, min_width=320):
                with gradio.Row():
                    first = gradio.Dropdown(names, value=0, label="Model", elem_id="first", interactive=True)
                    rivals, rival = [("nothing", NOTHING), *names], 1 if several else NOTHING
                    second = gradio.Dropdown(
                        rivals, value=rival, label="Compare with", visible=several, elem_id="second"
                    )
                    slider = gradio.Slider(
                        LEAST_SCORE, MOST_SCORE, threshold, step=0.01, label="Threshold", elem_id="threshold"
                    )
                with gradio.Row():
                    start = gradio.Button("Detect", variant="primary", elem_id="detect", scale=0, min_width=110)
                    stop = gradio.Button("Stop", variant="stop", visible=False, elem_id="stop", scale=0, min_width=90)
                    status = gradio.HTML(line(WAITING), elem_id="status", scale=1)
        with gradio.Row():
            columns = [build_column(models[index], index) for index in range(1 + several)]
        seen = gradio.State(Seen(), time_to_live=FORGET_S)
        page = Page(list(models), folder, most_frames, upload, status, stop, seen, columns)
        connect(page, first, second, slider, start)
    return blocks


def build_column(model: Model, index: int) -> Column:
    plain: dict[str, Any] = {"interactive": False, "visible": False, "elem_classes": "kit-picture"}
    with gradio.Column(min_width=360) as whole:
        words = gradio.HTML(idle_card(model), elem_id=f"card_{index}")
        picture = gradio.Image(
            show_label=False, format="jpeg", buttons=["download", "fullscreen"], elem_id=f"picture_{index}", **plain
        )
        video = gradio.Video(
            show_label=False, autoplay=True, loop=True, buttons=["download"], elem_id=f"video_{index}", **plain
        )
    return Column(whole, words, picture, video)


def connect(
    page: Page, first: gradio.Dropdown, second: gradio.Dropdown, slider: gradio.Slider, start: gradio.Button
) -> None:
    """Which act of the visitor calls what. While one file is looked at, those of other visitors wait."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    running = gradio.on(
        [page.upload.upload, start.click, first.input, second.input],
        lambda: line(TURN, "busy"),
        outputs=page.status,
        queue=False,
        **quiet,
    ).then(
        page.detect,
        [page.upload, page.seen, first, second, slider],
        page.outputs,
        concurrency_limit=1,
        concurrency_id="models",
        **quiet,
    )
    slider.change(page.drawn, [page.seen, slider], page.outputs, **quiet)
    page.stop.click(page.stopped, None, page.outputs, cancels=[running], **quiet)
