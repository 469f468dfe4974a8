"""Typed parameters: one frozen class per notebook, and doors that refuse what is misspelt or ill-typed.

The defaults live here and nowhere else. A notebook's `parameters` cell repeats them for the reader, and a test holds
the two equal. Functions in `kit` take plain arguments: params stop at the notebook.
"""

import difflib
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, field, fields
from dataclasses import Field as DataField
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from kit.files import read_json, read_yaml, write_json

ROOT = Path(__file__).resolve().parent.parent  # the repository: every path in a parameter starts here

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

RESTART = "restart the kernel and run from the top"

Name = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]  # a folder's plain name
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Enlargement = Annotated[float, Field(ge=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Parts = Annotated[int, Field(ge=2)]
Side = Annotated[int, Field(ge=32, multiple_of=32)]  # the detector's coarsest stride is 32

NotebookName = Literal[
    "00_browse",
    "01_eda",
    "02_augment",
    "03_train",
    "04_pseudo_label",
    "05_stage2",
    "06_ensemble",
    "07_jetson_export",
    "08_errors",
]  # in the order they are run
SHORT: tuple[NotebookName, ...] = ("01_eda", "03_train", "06_ensemble", "08_errors")


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class Params:
    """What every notebook takes. Try a value by hand with `dataclasses.replace(params, run="other")`."""

    notebook: ClassVar[str] = ""

    run: Name = "default"  # outputs go to runs/<run>/<notebook>/
    data: Text = "data/scenes"  # folder of a COCO dataset; one named scenes... is drawn by kit when it is missing
    competition: Literal["track4", "coco", "kaggle_csv"] = "track4"  # rules of ids, areas, caps and the submission
    notebooks: list[NotebookName] = field(default_factory=lambda: list(SHORT))  # of which this run consists

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The one door all others lead to: names first, then types, then ranges."""
        refuse_unknown(values, cls.names(), cls.__name__)
        refuse_ill_typed_text(values, cls)
        try:
            return cls(**values)
        except ValidationError as error:
            raise readable(error, cls) from None

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """From `globals()` right after the parameters cell; a name that is no parameter stops the run."""
        values = {name: value for name, value in namespace.items() if not is_of_the_kernel(name, value)}
        leftovers = [name for name, value in values.items() if name not in cls.names() and not is_plain(value)]
        if leftovers:
            raise ValueError(
                f"{cls.__name__}: expected a fresh kernel, found {', '.join(sorted(leftovers))}; {RESTART}"
            )
        refuse_unknown(values, cls.names(), cls.__name__, f"; left over from other cells? then {RESTART}")
        return cls.from_dict(values)

    @classmethod
    def from_yaml(cls, path: Path | str) -> Self:
        """The fields of this notebook out of a flat file for the whole chain."""
        values = read_chain(path)
        try:
            return cls.from_dict({name: value for name, value in values.items() if name in cls.names()})
        except (ValueError, TypeError) as error:
            raise type(error)(f"{path}: {error}") from None

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """What `write` has left in a folder of runs/."""
        values = read_json(Path(folder) / "params.json")
        return cls.from_dict({name: value for name, value in values.items() if name != "commit"})

    @classmethod
    def names(cls) -> list[str]:
        return [each.name for each in fields(cls)]

    def write(self, folder: Path | str) -> Path:
        """All resolved values and the commit, as params.json."""
        return write_json(Path(folder) / "params.json", asdict(self) | {"commit": commit()}, indent=1)

    @property
    def out(self) -> Path:
        return self.folder_of(self.notebook)

    def folder_of(self, notebook: str) -> Path:
        """Where another notebook of the same run puts its outputs."""
        return ROOT / "runs" / self.run / notebook

    def fold_file(self, fold: int, part: Literal["train", "val"]) -> Path:
        """The annotations of a fold of train, as 01_eda writes them."""
        return self.folder_of("01_eda") / "folds" / f"fold{fold}_{part}.json"

    def has(self, notebook: NotebookName) -> bool:
        """Whether this run has it: what a notebook reads follows from the parameters, never from what lies about."""
        return notebook in self.notebooks

    @property
    def data_folder(self) -> Path:
        return ROOT / self.data

    def __repr__(self) -> str:
        """One value a line; those that are not the default say so."""
        lines = []
        for each in fields(self):
            value, default = getattr(self, each.name), default_of(each)
            lines.append(f"    {each.name}={value!r}," + ("" if value == default else f"  # not {default!r}"))
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])

    @property
    def draws_scenes(self) -> bool:
        """Only a folder named scenes... is ever drawn: a misspelt path of your own data is an error, not a drawing."""
        return self.data_folder.name.startswith("scenes")


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class SceneParams(Params):
    """For the notebooks that draw the embedded scenes when the data folder is not there yet."""

    scenes_train: Count = 400
    scenes_val: Count = 100
    scenes_unlabelled: Whole = 20
    scenes_size_px: Side = 640
    scenes_seed: Whole = 0
    scenes_cameras: Count = 8
    allow_problems: bool = False  # go on without the annotations that the check found broken

    @property
    def scenes(self) -> dict[str, Any]:
        """What write_scenes is to draw."""
        names = [name for name in SceneParams.names() if name.startswith("scenes_")]
        return {name.removeprefix("scenes_"): getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class EdaParams(SceneParams):
    """Parameters of 01_eda."""

    notebook: ClassVar[str] = "01_eda"

    labels_only: bool = False  # read no image file: they may even be missing
    near_bits: Annotated[int, Field(ge=0, le=128)] = 24  # pictures that differ by no more of 256 are near duplicates
    train_folds: Parts = 5  # of the train part, by camera; fewer where there are fewer cameras
    seed: Whole = 0
    examples: Count = 8  # pictures in a gallery


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class AugmentParams(SceneParams):
    """Parameters of 02_augment. Names begin with offline_ where 03_train has the same for its own, online part."""

    notebook: ClassVar[str] = "02_augment"

    channels: Literal[1, 3, 4] = 3  # of the images: grey, RGB, RGB and a fourth
    copies: Whole = 3  # of each image, beside itself
    offline_flip: Share = 0.5  # probability per copy, as all below
    offline_rotate: Share = 0.0
    offline_rotate_deg: Degrees = 30.0  # to either side
    offline_lens: Share = 0.0  # another fisheye lens
    offline_radial: Share = 0.0  # barrel or pincushion distortion
    offline_vignette: Share = 0.0
    offline_chromatic: Share = 0.0
    offline_brightness_contrast: Share = 0.5
    offline_clahe: Share = 0.5
    offline_gamma: Share = 0.5
    offline_jpeg: Share = 0.8
    offline_shadow: Share = 0.5
    offline_noise: Share = 0.5
    offline_posterize: Share = 0.5
    offline_gravel: Share = 0.5
    offline_copy_paste: Share = 0.0  # objects of other images of the camera
    offline_quality: Annotated[int, Field(ge=1, le=100)] = 92  # of the JPEG files written
    box_outline: Literal["rectangle", "ellipse"] = "rectangle"  # what a box without polygon is bent as
    perspective: Text | None = None  # folder of a COCO data set of ordinary cameras, turned into fisheye pictures
    perspective_classes: list[Text] = field(default_factory=list)  # such as "Tram -> Bus"; none: by equal names
    perspective_copies: Count = 1
    augment_processes: Count = 2
    seed: Whole = 0
    examples: Count = 8

    @property
    def offline(self) -> dict[str, Any]:
        """What Offline is to be made of."""
        names = [name for name in AugmentParams.names() if name.startswith("offline_")]
        return {name.removeprefix("offline_"): getattr(self, name) for name in names}

    @property
    def perspective_folder(self) -> Path | None:
        return ROOT / self.perspective if self.perspective else None


AUGMENTATION = (
    "flip", "vertical_flip", "rot90", "rotate", "rotate_deg", "fisheye", "lens", "radial", "vignette", "chromatic",
    "box_outline", "mosaic_from",
)  # fmt: skip
OF_PRESET = (
    "classification", "freeze", "freeze_until", "flat_until", "final_share", "strong_until", "best_into_stage_2",
    "photometric", "zoom_out", "zoom_out_max", "iou_crop", "mosaic", "mixup", "mosaic_until", "multi_scale",
)  # fmt: skip
RATES = ("lr", "backbone_lr", "weight_decay", "warmup_steps", "ema_decay")
SAMPLING = ("model", "batch_size", "accumulate", "epochs", "scale_min", "scale_max", "seed")


class DrawnAsInTraining:
    """Of parameters that draw images as a training gets them."""

    height_px: int
    width_px: int

    @property
    def augmentation(self) -> dict[str, Any]:
        """What train_policy takes by name, beside what is of the preset."""
        return {name: getattr(self, name) for name in AUGMENTATION}

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height_px, self.width_px

    @property
    def given(self) -> dict[str, Any]:
        """What goes before the preset, where it is not None."""
        return {name: getattr(self, name) for name in OF_PRESET if hasattr(self, name)}


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class TrainParams(SceneParams, DrawnAsInTraining):
    """Parameters of 03_train.

    None: as the preset has it (kit/presets.py). In a rate, a decay or the warm-up that is the published recipe of the
    size, rescaled to the batch and the length of the run.
    """

    notebook: ClassVar[str] = "03_train"

    train_fold: Whole | None = None  # of 01_eda: validate on it and train on the others; None: the val part
    report_share: Share = 0.0  # of val, kept out of every choice and scored at the end alone
    preset: Literal["dfine", "deim", "finetune", "scratch_small"] = "dfine"  # what None below stands for
    budget: Text | None = None  # such as "30 epochs", "20 minutes": sets epochs, and batch_size at most as below
    model: Literal["n", "s", "m", "l", "x"] = "s"
    weights: Text | None = None  # start from: path from the repository root, URL or hub id; None: random
    freeze: Literal["none", "stem", "backbone", "encoder", "decoder"] | None = None  # up to this all stays; heads never
    freeze_until: Literal["end", "stage_2"] | None = None
    channels: Literal[1, 3, 4] = 3  # of the images: grey, RGB, RGB and a fourth
    height_px: Side = 640  # of the detector's input
    width_px: Side = 640
    classification: Literal["vfl", "mal"] | None = None  # loss of the scores

    epochs: Count = 72
    batch_size: Count | None = 16  # images per optimizer step; None: as many as the memory holds
    accumulate: Count = 1  # forward passes that share one optimizer step
    lr: Positive | None = None
    backbone_lr: NotNegative | None = None
    weight_decay: NotNegative | None = None
    warmup_steps: Whole | None = None
    ema_decay: Share | None = None
    clip_norm: Positive | None = 0.1
    flat_until: Share | None = None  # share of all steps at the full rate; then it falls along a cosine
    final_share: Share | None = None  # of the full rate, at the end
    amp: Literal["no", "bf16", "fp16"] = "no"
    repeat_below: Share = 0.0  # images of classes in a smaller share of the images come more often; 0: none does
    class_balance: BelowOne = 0.0  # 0.9 to 0.9999: objects of rare classes count more in the loss; 0: all alike

    strong_until: Share | None = None  # share of the epochs with strong augmentation; the rest is stage 2
    best_into_stage_2: bool | None = None  # stage 2 goes on from the best weights of stage 1
    plain_epochs: Whole | None = None  # epochs at the start without strong augmentation
    photometric: Share | None = None  # from here on: probability per image
    zoom_out: Share | None = None
    zoom_out_max: Enlargement | None = None  # sides of the canvas in sides of the picture
    iou_crop: Share | None = None
    flip: Share = 0.5
    vertical_flip: Share = 0.0
    rot90: Share = 0.0
    rotate: Share = 0.0
    rotate_deg: Degrees = 30.0  # to either side
    fisheye: Share = 0.0  # a perspective picture as a fisheye camera would see it
    lens: Share = 0.0  # a fisheye picture through another fisheye lens
    radial: Share = 0.0  # barrel or pincushion distortion
    vignette: Share = 0.0
    chromatic: Share = 0.0  # aberration: colours shifted along the radius
    box_outline: Literal["rectangle", "ellipse"] = "rectangle"  # what a box without polygon is bent as
    mosaic: Share | None = None
    mixup: Share | None = None
    mosaic_until: Share | None = None  # of the epochs, for both
    mosaic_from: Literal["batch", "all"] = "batch"  # batch: each image is decoded once a batch; all: more variety
    multi_scale: Whole | None = None  # how often the size above is among the others; 0: alone
    scale_min: Positive = 0.75  # of the size above
    scale_max: Positive = 1.25

    select_by: Literal["ap", "f1"] = "ap"  # what makes a checkpoint the best
    val_every: Count = 1  # epochs
    patience: Count | None = None  # stop after so many validations without a better one
    max_minutes: Positive | None = None  # stop in good order after this time; a later run goes on from there
    resume: bool = True  # go on from the last checkpoint of this run
    adapt: bool = False  # also with another batch size, rate, or number of processes than before
    workers: Whole = 2
    processes: Count = 1  # that train together on this machine, each with a GPU where there are any
    cache: Literal["none", "ram", "disk"] = "none"  # decoded training images, kept from epoch to epoch for all workers
    cache_gib: Positive = 4.0  # at most; what does not fit is decoded each time. disk: taken at once, below runs/<run>/
    seed: Whole = 0
    examples: Count = 8

    def __post_init__(self) -> None:
        if self.batch_size and self.batch_size % self.accumulate:
            raise ValueError(f"batch_size: expected a multiple of accumulate={self.accumulate}, got {self.batch_size}")
        if self.preset == "finetune" and self.weights is None:
            raise ValueError("preset: finetune starts from weights, got None; name some, or take scratch_small")
        if self.train_fold is not None and self.has("02_augment"):
            raise ValueError(
                f"train_fold: expected null beside 02_augment, got {self.train_fold}: copies of the images to validate "
                "on would be trained on; leave 02_augment out of notebooks and augment online"
            )

    @property
    def train_folder(self) -> Path:
        """Holds the part to train on: the data itself, or what 02_augment has made of it."""
        return self.folder_of("02_augment") if self.has("02_augment") else self.data_folder

    @property
    def rates(self) -> dict[str, Any]:
        """What goes before the recipe of the size, where it is not None."""
        return {name: getattr(self, name) for name in RATES}

    @property
    def weights_source(self) -> str | None:
        """For load_weights: a path from the repository root is made whole, a URL or a hub id stays."""
        return str(ROOT / self.weights) if self.weights and (ROOT / self.weights).exists() else self.weights


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class BrowseParams(SceneParams, DrawnAsInTraining):
    """Parameters of 00_browse. What 03_train draws its images by has the same names and defaults as there."""

    notebook: ClassVar[str] = "00_browse"

    gallery_images: Count | None = None  # of each part, spread evenly; None: all
    gallery_side_px: Count = 1280  # of the longer side of a picture in the gallery
    augmented: Count = 24  # images of train that are shown as the model gets them
    draws: Count = 4  # of each of these, from the first epoch to the last
    preset: Literal["dfine", "deim", "finetune", "scratch_small"] = TrainParams.preset  # from here on as for 03_train
    model: Literal["n", "s", "m", "l", "x"] = TrainParams.model
    channels: Literal[1, 3, 4] = TrainParams.channels
    height_px: Side = TrainParams.height_px
    width_px: Side = TrainParams.width_px
    epochs: Count = TrainParams.epochs
    batch_size: Count | None = TrainParams.batch_size
    accumulate: Count = TrainParams.accumulate
    strong_until: Share | None = TrainParams.strong_until
    plain_epochs: Whole | None = TrainParams.plain_epochs
    photometric: Share | None = TrainParams.photometric
    zoom_out: Share | None = TrainParams.zoom_out
    zoom_out_max: Enlargement | None = TrainParams.zoom_out_max
    iou_crop: Share | None = TrainParams.iou_crop
    flip: Share = TrainParams.flip
    vertical_flip: Share = TrainParams.vertical_flip
    rot90: Share = TrainParams.rot90
    rotate: Share = TrainParams.rotate
    rotate_deg: Degrees = TrainParams.rotate_deg
    fisheye: Share = TrainParams.fisheye
    lens: Share = TrainParams.lens
    radial: Share = TrainParams.radial
    vignette: Share = TrainParams.vignette
    chromatic: Share = TrainParams.chromatic
    box_outline: Literal["rectangle", "ellipse"] = TrainParams.box_outline
    mosaic: Share | None = TrainParams.mosaic
    mixup: Share | None = TrainParams.mixup
    mosaic_until: Share | None = TrainParams.mosaic_until
    mosaic_from: Literal["batch", "all"] = TrainParams.mosaic_from
    multi_scale: Whole | None = TrainParams.multi_scale
    scale_min: Positive = TrainParams.scale_min
    scale_max: Positive = TrainParams.scale_max
    seed: Whole = TrainParams.seed
    examples: Count = TrainParams.examples

    @property
    def sampling(self) -> dict[str, Any]:
        """What training_sampler takes by name, beside what is of the preset."""
        unprobed = {"batch_size": self.batch_size or TrainParams.batch_size}
        return {name: getattr(self, name) for name in SAMPLING} | unprobed


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class FuseParams(Params):
    """For the notebooks that look at an image more than once, and make one list of all that was found."""

    tta_flip: bool = False  # look at the mirrored image too
    tta_scales: list[Positive] = field(default_factory=lambda: [1.0])  # of the input size
    tta_tiles: Whole = 0  # n: n x n overlapping parts beside the whole image
    fuse: Literal["wbf", "nms", "soft_nms", "nmw"] = "wbf"
    fuse_iou: Share = 0.55  # boxes that overlap so much are one
    fuse_skip: Share = 0.01  # boxes of a lower score are not looked at
    predict_batch_size: Count = 8
    workers: Whole = 2
    top_k: Count = 300  # detections per image


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class PseudoParams(FuseParams):
    """Parameters of 04_pseudo_label."""

    notebook: ClassVar[str] = "04_pseudo_label"

    train_fold: Whole | None = None  # as for 03_train: which images are ground truth, and which are val
    report_share: Share = 0.0  # of val, kept out of every choice: the rules are not judged on it
    teachers: list[Text] = field(default_factory=list)  # folders of trainings or weights, from the root; none: 03_train
    teacher_weights: list[Positive] = field(default_factory=list)  # one a teacher, in their order; none: all alike
    unlabelled: list[Text] = field(default_factory=list)  # folders of images, from the root; none: images/unlabelled
    val_bits: Annotated[int, Field(ge=0, le=256)] = 24  # an image whose hash is so near to one of val is left out
    complete_labelled: bool = False  # add boxes to images with ground truth too, where none of its objects is
    truth_iou: Share = 0.5  # there a box that overlaps an object so much is none to add
    keep_empty: bool = False  # images without any label come in too, as background
    rules: list[Text] = field(default_factory=lambda: ["0.4"])  # least scores, the last that fits; kit/pseudo_rules.py
    shard_images: Count = 64  # finished together: what a kill costs at most
    processes: Count = 1  # on this machine
    allow_problems: bool = False  # go on without the annotations that the check found broken
    examples: Count = 8  # pictures in a gallery

    def __post_init__(self) -> None:
        if self.teacher_weights and len(self.teacher_weights) != max(len(self.teachers), 1):
            raise ValueError(
                f"teacher_weights: expected one for each of {max(len(self.teachers), 1)} teachers, "
                f"got {len(self.teacher_weights)}"
            )


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class Stage2Params(Params):
    """Parameters of 05_stage2. Model and input size are those that stage 1 wrote beside its weights."""

    notebook: ClassVar[str] = "05_stage2"

    trained: Text | None = None  # folder of a finished 03_train, from the repository root; None: the one of this run
    train_fold: Whole | None = None  # of 01_eda: validate on it and train on the others; None: the val part
    report_share: Share = 0.0  # of val, kept out of every choice and scored at the end alone
    stage2_epochs: Count = 5
    stage2_lr: Positive = 1.0e-5
    batch_size: Count | None = 16  # images per optimizer step; None: as in stage 1
    accumulate: Count = 1  # forward passes that share one optimizer step
    amp: Literal["no", "bf16", "fp16"] = "no"
    classification: Literal["vfl", "mal"] | None = None  # None: as in stage 1
    flip: Share = 0.5
    control: bool = True  # the same steps without pseudo labels, to see what these gave
    swa_epochs: Whole = 3  # the last ones, averaged; 0: none
    soup: list[Text] = field(default_factory=list)  # further folders of trainings or weights for the greedy soup
    norm_batches: Whole = 50  # of training images, for the BatchNorm statistics of an average; 0: they are averaged too
    select_by: Literal["ap", "f1"] = "ap"  # what makes a checkpoint the best
    max_minutes: Positive | None = None  # each training stops in good order after this time; a later run goes on
    resume: bool = True  # go on from the last checkpoint of this run
    adapt: bool = False  # also with another batch size, rate, or number of processes than before
    workers: Whole = 2
    processes: Count = 1  # that train together on this machine, each with a GPU where there are any
    seed: Whole = 0
    examples: Count = 8

    def __post_init__(self) -> None:
        if self.batch_size and self.batch_size % self.accumulate:
            raise ValueError(f"batch_size: expected a multiple of accumulate={self.accumulate}, got {self.batch_size}")

    @property
    def trained_folder(self) -> Path:
        return ROOT / self.trained if self.trained else self.folder_of("03_train")

    @property
    def images_per_step(self) -> int:
        """Where it is None, what stage 1 has chosen for itself."""
        return self.batch_size or int(read_json(self.trained_folder / "length.json")["length"]["batch_size"])


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class EnsembleParams(FuseParams):
    """Parameters of 06_ensemble. Models and input sizes are those that the trainings wrote beside their weights."""

    notebook: ClassVar[str] = "06_ensemble"

    models: list[Text] = field(default_factory=list)  # folders of trainings or weights; none: those of this run
    model_weights: list[Positive] = field(default_factory=list)  # one a model and result file; none: all alike
    results: list[Text] = field(default_factory=list)  # COCO results of others on val, from the root
    results_submit: list[Text] = field(default_factory=list)  # the same files' twins on the part that is sent
    report_share: Share = 0.0  # of val, kept out of every choice and scored at the end alone
    allow_problems: bool = False  # go on without the annotations that the check found broken
    drop_losing_steps: bool = True  # what does not raise the competition's metric is left out
    least_gain: NotNegative = 0.0  # a step has to raise it by more
    submit: Literal["val", "test", "unlabelled"] = "val"  # part whose detections are zipped
    min_score: Share = 0.01  # lower ones are never looked at again
    allow_missing_images: bool = False  # of those where nothing at all is found; thresholds may empty an image
    thresholds: Literal["none", "global", "class", "class_group"] = "class"  # a group is day or night, by the file name
    folds: Parts = 5  # parts of val: thresholds are fitted without a part and judged on it
    log: bool = True  # a line in submissions/log.csv
    note: str = ""  # goes into that line
    seed: Whole = 0
    examples: Count = 8

    def __post_init__(self) -> None:
        if self.submit != "val" and len(self.results_submit) != len(self.results):
            raise ValueError(
                f"results_submit: expected {len(self.results)} files, the twins of results on the part {self.submit}, "
                f"got {len(self.results_submit)}; leave out of results what has none"
            )

    @property
    def weights_files(self) -> list[Path]:
        """Of the models that are named, or of the trainings that this run has."""
        own = [self.folder_of(name) for name in ("03_train", "05_stage2") if self.has(name)]
        paths = [ROOT / each for each in self.models] or own
        return [path if path.suffix in (".pt", ".pth", ".safetensors") else path / "best.pt" for path in paths]


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class JetsonParams(Params):
    """Parameters of 07_jetson_export. Of the training, a detector knows its size, classes and input."""

    notebook: ClassVar[str] = "07_jetson_export"

    deploy_models: list[Text] = field(default_factory=list)  # folders of trainings or weights; none: the run's last one
    deploy_sides_px: list[Side] = field(default_factory=list)  # longer sides of the input to try; none: as trained
    precisions: list[Literal["fp16", "int8"]] = field(default_factory=lambda: ["fp16"])  # beside fp32; int8: minutes
    runtimes: list[Literal["torch", "compiled", "onnxruntime", "openvino", "tensorrt"]] = field(
        default_factory=list
    )  # to be measured; none: all that this machine has
    gate_images: Count = 50  # of val, on which each file has to find what the checkpoint finds
    gate_attempts: Count = 3  # at an fp16 file, each with more in fp32
    allow_drop: bool = False  # keep a file that finds less than the gate allows
    calibration_images: Count = 300  # of train, for int8
    int8_drop: Share = 0.01  # of AP, that int8 may cost
    given: list[Text] = field(default_factory=list)  # measured on the Jetson, such as "s@960: 27.4 FPS, F1 0.61"
    fps_images: Count = 200  # of val, that the rate is taken from
    bench_batches: list[Count] = field(default_factory=lambda: [1, 2, 4, 8])
    bench_rounds: Count = 20  # each runtime and batch in turn
    report_share: Share = 0.0  # of val, kept out of every choice and scored at the end alone
    thresholds: Literal["none", "global", "class", "class_group"] = "class"  # a group is day or night, by the file name
    folds: Parts = 5  # parts of val: thresholds are fitted without a part and judged on it
    workspace_mib: Count = 4096  # memory for building a TensorRT engine
    seed: Whole = 0
    examples: Count = 8

    @property
    def weights_files(self) -> list[Path]:
        """Of the models that are named, or of the last training that this run has."""
        own = [self.folder_of(name) for name in ("05_stage2", "03_train") if self.has(name)]
        paths = [ROOT / each for each in self.deploy_models] or own[:1]
        return [path if path.suffix in (".pt", ".pth", ".safetensors") else path / "best.pt" for path in paths]


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class ErrorsParams(Params):
    """Parameters of 08_errors."""

    notebook: ClassVar[str] = "08_errors"

    trained: Text | None = None  # folder of a finished 03_train, from the repository root; None: the one of this run
    match_iou: Share = 0.5  # from here on a detection has found its object
    train_images: Whole = 200  # of train, spread evenly, whose labels are looked at for mistakes beside those of val
    least_suspicion: Share = 0.4  # of a label that is listed as a likely mistake
    predict_batch_size: Count = 8
    workers: Whole = 2
    fiftyone: Literal["none", "refer", "copy"] = "refer"  # write a FiftyOne folder: images stay where they are, or not
    examples: Count = 8

    @property
    def trained_folder(self) -> Path:
        """Of the detector that looks at train: the last stage of this run."""
        if self.has("05_stage2"):
            return self.folder_of("05_stage2")
        return ROOT / self.trained if self.trained else self.folder_of("03_train")


NOTEBOOKS: Mapping[str, type[Params]] = MappingProxyType(  # in the order they are run
    {
        each.notebook: each
        for each in (
            BrowseParams,
            EdaParams,
            AugmentParams,
            TrainParams,
            PseudoParams,
            Stage2Params,
            EnsembleParams,
            JetsonParams,
            ErrorsParams,
        )
    }
)


def read_chain(path: Path | str) -> dict[str, Any]:
    """A flat YAML file for the whole chain; each notebook takes the fields it knows. `run` is the file's name."""
    path = Path(path)
    values = read_yaml(path)
    if not isinstance(values, dict | None):
        raise ValueError(f"{path}: expected lines like `epochs: 3`, got {type(values).__name__}")
    known = dict.fromkeys(name for each in NOTEBOOKS.values() for name in each.names())
    refuse_unknown(values or {}, known, str(path))
    return {"run": path.stem} | (values or {})


def default_of(each: DataField[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def commit() -> str | None:
    """The commit of the working tree, with -dirty where it has changed; None outside a repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine: the run does not depend on it
        return None
    return answer.stdout.strip() or None


# --- errors: what, expected, got, mend ---


def refuse_unknown(values: Mapping[str, Any], known: Iterable[str], owner: str, hint: str = "") -> None:
    known, lines = list(known), []
    for name in values:
        close = difflib.get_close_matches(str(name), known, n=1)
        mend = f", did you mean {close[0]}?" if close else f"; known are {', '.join(known)}{hint}"
        lines += [] if name in known else [f"{owner}: unknown parameter {name}{mend}"]
    if lines:
        raise ValueError("\n".join(lines))


def refuse_ill_typed_text(values: Mapping[str, Any], cls: type[Params]) -> None:
    """papermill -p and quoted YAML give 'None' as a string, which a text field would take for a path."""
    for each in fields(cls):
        value = values.get(each.name)
        if isinstance(value, str) and value.lower() in ("none", "null") and type(None) in get_args(each.type):
            raise TypeError(
                f"{cls.__name__}: {each.name}: expected {type_name(each.type)}, got {value!r}{mend(str, value)}"
            )


def readable(error: ValidationError, cls: type[Params]) -> ValueError | TypeError:
    """pydantic's findings in our words, one a line."""
    types = {each.name: each.type for each in fields(cls)}
    lines, ill_typed = [], False
    for finding in error.errors():
        if not finding["loc"]:  # our own __post_init__
            lines.append(f"{cls.__name__}: {finding['ctx']['error']}")
            continue
        name, value = str(finding["loc"][0]), finding["input"]
        wanted = types[name]
        for place in finding["loc"][1:]:  # in a list
            name, wanted = f"{name}[{place}]", get_args(plain_type(wanted))[0]
        limit = range_text(finding["type"], finding.get("ctx", {}))
        ill_typed |= limit is None and not literals(wanted)
        expected = limit or type_name(wanted)
        lines.append(f"{cls.__name__}: {name}: expected {expected}, got {value!r}{mend(wanted, value)}")
    return (TypeError if ill_typed else ValueError)("\n".join(lines))


def range_text(kind: str, context: Mapping[str, Any]) -> str | None:
    """The range a value of the right type has left, or None where the type itself is wrong."""
    match kind:
        case "greater_than_equal":
            return f"at least {context['ge']:g}"
        case "greater_than":
            return f"more than {context['gt']:g}"
        case "less_than_equal":
            return f"at most {context['le']:g}"
        case "less_than":
            return f"less than {context['lt']:g}"
        case "multiple_of":
            return f"a multiple of {context['multiple_of']:g}"
        case "finite_number":
            return "a finite number"
        case "string_pattern_mismatch":
            return "a plain folder name (letters, digits, _ . + -)"
        case "string_too_short":
            return "a text that is not empty"
        case _:
            return None


def plain_type(wanted: Any) -> Any:
    """The type without its range and without None."""
    if get_origin(wanted) is Annotated:
        return plain_type(get_args(wanted)[0])
    if isinstance(wanted, UnionType) or type(None) in get_args(wanted):
        return plain_type(next(each for each in get_args(wanted) if each is not type(None)))
    return wanted


def literals(wanted: Any) -> tuple[Any, ...]:
    wanted = plain_type(wanted)
    return get_args(wanted) if get_origin(wanted) is Literal else ()


def type_name(wanted: Any) -> str:
    if literals(wanted):
        return "one of " + ", ".join(map(repr, literals(wanted)))
    if get_origin(plain_type(wanted)) is list:
        return "a list like [a, b]"
    return str(getattr(plain_type(wanted), "__name__", wanted))


def mend(wanted: Any, value: object) -> str:
    """What to write instead, where the slip is a known one of YAML or of papermill's command line."""
    wanted, choices = plain_type(wanted), literals(wanted)
    if isinstance(value, str):
        return mend_of_text(wanted, value, choices)
    if isinstance(value, bool) and choices:
        return ' (YAML reads no, off, yes and on as true or false: put it in quotes, "no")'
    if wanted is str and isinstance(value, int | float):
        return " (put it in quotes in YAML; with papermill use -r in place of -p)"
    if wanted is int and isinstance(value, float) and value.is_integer():
        return f" (write {value:.0f})"
    return ""


def mend_of_text(wanted: Any, value: str, choices: tuple[Any, ...]) -> str:
    number = re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)", value)
    if wanted in (int, float) and re.fullmatch(r"[-+]?\d+\.?\d*", value):
        return " (write it without quotes)"
    if number and wanted is float:
        whole, part, sign, power = number.groups()
        return f" (in YAML write {whole}{part or '.0'}e{sign or '+'}{power}, not {value})"
    if value.lower() in ("true", "false") and wanted is bool:
        return f" (write {value.title()} with papermill -p, {value.lower()} in YAML)"
    if value.lower() in ("none", "null"):
        return " (write None with papermill -p, null in YAML)"
    close = difflib.get_close_matches(value, [str(choice) for choice in choices], n=1)
    return f", did you mean {close[0]!r}?" if close else ""


# --- which names of a kernel are parameters ---


def is_of_the_kernel(name: str, value: object) -> bool:
    """Names that IPython puts there, and the params classes and their instances."""
    if name.startswith("_") or name in ("In", "Out", "exit", "quit", "open", "get_ipython"):
        return True
    return isinstance(value, Params) or (isinstance(value, type) and issubclass(value, Params))


def is_plain(value: object) -> bool:
    """A value that a parameters cell can hold: an unknown name of this kind is a misspelt parameter."""
    return value is None or isinstance(value, bool | int | float | str | list | tuple)
