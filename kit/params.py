"""Typed parameters: one frozen class per notebook, and doors that refuse what is misspelt or ill-typed.

The defaults live here and nowhere else. A notebook's `parameters` cell repeats them for the reader, and a test holds
the two equal. Functions in `kit` take plain arguments: params stop at the notebook.
"""

import difflib
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
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
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Side = Annotated[int, Field(ge=32, multiple_of=32)]  # the detector's coarsest stride is 32


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class Params:
    """What every notebook takes. Try a value by hand with `dataclasses.replace(params, run="other")`."""

    notebook: ClassVar[str] = ""

    run: Name = "default"  # outputs go to runs/<run>/<notebook>/
    data: Text = "data/scenes"  # folder of a COCO dataset; one named scenes... is drawn by kit when it is missing
    competition: Literal["track4", "coco"] = "track4"  # rules of image ids, areas, caps and the submission

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
        return cls.from_dict({name: value for name, value in values.items() if name in cls.names()})

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """What `write` has left in a folder of runs/."""
        values = read_json(Path(folder) / "params.json")
        return cls.from_dict({name: value for name, value in values.items() if name != "commit"})

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]

    def write(self, folder: Path | str) -> Path:
        """All resolved values and the commit, as params.json."""
        return write_json(Path(folder) / "params.json", asdict(self) | {"commit": commit()}, indent=1)

    @property
    def out(self) -> Path:
        return self.folder_of(self.notebook)

    def folder_of(self, notebook: str) -> Path:
        """Where another notebook of the same run puts its outputs."""
        return ROOT / "runs" / self.run / notebook

    @property
    def data_folder(self) -> Path:
        return ROOT / self.data

    def __repr__(self) -> str:
        """One value a line; those that are not the default say so."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            lines.append(
                f"    {field.name}={value!r}," + ("" if value == field.default else f"  # not {field.default!r}")
            )
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

    examples: Count = 8  # pictures in a gallery


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class TrainParams(SceneParams):
    """Parameters of 03_train. None in a rate, a decay or the warm-up: the published recipe of the size, rescaled."""

    notebook: ClassVar[str] = "03_train"

    model: Literal["n", "s", "m", "l", "x"] = "s"
    weights: Text | None = None  # start from: path from the repository root, URL or hub id; None: random
    freeze: Literal["none", "stem", "backbone", "encoder"] = "none"  # everything up to this part stays as it is
    channels: Literal[1, 3, 4] = 3  # of the images: grey, RGB, RGB and a fourth
    height_px: Side = 640  # of the detector's input
    width_px: Side = 640
    classification: Literal["vfl", "mal"] = "vfl"  # loss of the scores

    epochs: Count = 72
    batch_size: Count = 16  # images per optimizer step
    accumulate: Count = 1  # forward passes that share one optimizer step
    lr: Positive | None = None
    backbone_lr: NotNegative | None = None
    weight_decay: NotNegative | None = None
    warmup_steps: Whole | None = None
    ema_decay: Share | None = None
    clip_norm: Positive | None = 0.1
    flat_until: Share = 0.5  # share of all steps at the full rate; then it falls along a cosine
    final_share: Share = 0.05  # of the full rate, at the end
    amp: Literal["no", "bf16", "fp16"] = "no"

    strong_until: Share = 0.9  # share of the epochs with strong augmentation; the rest is stage 2
    best_into_stage_2: bool = True  # stage 2 goes on from the best weights of stage 1
    plain_epochs: Whole = 0  # epochs at the start without strong augmentation
    photometric: Share = 0.5  # from here on: probability per image
    zoom_out: Share = 0.5
    zoom_out_max: Annotated[float, Field(ge=1)] = 4.0  # sides of the canvas in sides of the picture
    iou_crop: Share = 0.8
    flip: Share = 0.5
    vertical_flip: Share = 0.0
    rot90: Share = 0.0
    rotate: Share = 0.0
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 30.0  # to either side
    mosaic: Share = 0.0
    mixup: Share = 0.0
    multi_scale: Whole | None = None  # how often the size above is among the others; None: as published, 0: alone
    scale_min: Positive = 0.75  # of the size above
    scale_max: Positive = 1.25

    select_by: Literal["ap", "f1"] = "ap"  # what makes a checkpoint the best
    val_every: Count = 1  # epochs
    patience: Count | None = None  # stop after so many validations without a better one
    max_minutes: Positive | None = None  # stop in good order after this time; a later run goes on from there
    resume: bool = True  # go on from the last checkpoint of this run
    workers: Whole = 2
    seed: Whole = 0
    examples: Count = 8

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size: expected a multiple of accumulate={self.accumulate}, got {self.batch_size}")

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height_px, self.width_px

    @property
    def strong_until_epoch(self) -> int:
        return round(self.strong_until * self.epochs)

    @property
    def weights_source(self) -> str | None:
        """For load_weights: a path from the repository root is made whole, a URL or a hub id stays."""
        return str(ROOT / self.weights) if self.weights and (ROOT / self.weights).exists() else self.weights


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class EnsembleParams(Params):
    """Parameters of 06_ensemble. Model and input size are those that the training wrote beside its weights."""

    notebook: ClassVar[str] = "06_ensemble"

    trained: Text | None = None  # folder of a finished 03_train, from the repository root; None: the one of this run
    submit: Literal["val", "test", "unlabelled"] = "val"  # part whose detections are zipped
    predict_batch_size: Count = 8
    workers: Whole = 2
    top_k: Count = 300  # detections per image
    min_score: Share = 0.01  # lower ones are never looked at again
    allow_missing_images: bool = False  # of those where nothing at all is found; thresholds may empty an image
    thresholds: Literal["none", "global", "class", "class_group"] = "class"  # a group is day or night, by the file name
    folds: Annotated[int, Field(ge=2)] = 5  # parts of val: thresholds are fitted without a part and judged on it
    log: bool = True  # a line in submissions/log.csv
    note: str = ""  # goes into that line
    seed: Whole = 0
    examples: Count = 8

    @property
    def trained_folder(self) -> Path:
        return ROOT / self.trained if self.trained else self.folder_of("03_train")


@dataclass(frozen=True, kw_only=True, repr=False, config=STRICT)
class ErrorsParams(Params):
    """Parameters of 08_errors."""

    notebook: ClassVar[str] = "08_errors"

    match_iou: Share = 0.5  # from here on a detection has found its object
    examples: Count = 8


NOTEBOOKS: Mapping[str, type[Params]] = MappingProxyType(  # in the order they are run
    {each.notebook: each for each in (EdaParams, TrainParams, EnsembleParams, ErrorsParams)}
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
    for field in fields(cls):
        value = values.get(field.name)
        if isinstance(value, str) and value.lower() in ("none", "null") and type(None) in get_args(field.type):
            raise TypeError(
                f"{cls.__name__}: {field.name}: expected {type_name(field.type)}, got {value!r}{mend(str, value)}"
            )


def readable(error: ValidationError, cls: type[Params]) -> ValueError | TypeError:
    """pydantic's findings in our words, one a line."""
    types = {field.name: field.type for field in fields(cls)}
    lines, ill_typed = [], False
    for finding in error.errors():
        if not finding["loc"]:  # our own __post_init__
            lines.append(f"{cls.__name__}: {finding['ctx']['error']}")
            continue
        name, value = str(finding["loc"][0]), finding["input"]
        wanted = types[name]
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
