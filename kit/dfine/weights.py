"""Weights in and out: ours, the official D-FINE's .pth, and Hugging Face folders; from a path, a URL or a hub id."""

import json
import pickle
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file as save_safetensors
from timm.models import adapt_input_conv
from torch import Tensor

from kit.dfine.detector import PUBLISHED_NAMES, SIZES, Detector
from kit.files import atomic, one_line

FORMAT = "kit-dfine-1"
MOST_CLASSES = 100_000  # of a file: memory is taken for each
DERIVED = (
    "anchors",
    "valid_mask",
    "up",
    "reg_scale",
    "num_points_scale",
    "num_batches_tracked",
)  # follow from the size
UNREADABLE = (  # what readers raise when they are fed with garbage
    pickle.UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError,
    AttributeError, ArithmeticError, AssertionError, MemoryError,
)  # fmt: skip
HEADS = re.compile(r"^decoder\.(selection\.score|score\.\d+|label_embedding)\.(weight|bias)$")  # one row a class


@dataclass(frozen=True)
class LoadReport:
    """What load_weights did: `replaced` parts keep their random start, `adapted` ones were converted."""

    source: str
    replaced: tuple[str, ...]
    adapted: tuple[str, ...]
    info: dict[str, Any]

    def __str__(self) -> str:
        text = f"weights from {self.source}"
        if self.replaced:
            text += f"; the file has other classes, so these start anew: {', '.join(self.replaced)}"
        return text + (f"; other image channels, so converted: {', '.join(self.adapted)}" if self.adapted else "")


# Hugging Face's names and ours; both the names of early and of present files. `qkv` is put together afterwards.
HUGGING_FACE_NAMES = (
    (r"^(class_embed|bbox_embed)\.", r"model.decoder.\1."),  # the same tensors stand twice
    (r"^model\.backbone\.model\.embedder\.", "backbone.stem."),
    (r"^model\.backbone\.model\.encoder\.stages\.(\d+)\.", r"backbone.stages_\1."),
    (r"^(backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(backbone\..*)\.normalization\.", r"\1.bn."),
    (r"^model\.encoder_input_proj\.(\d+)\.0\.", r"encoder.project.\1.conv."),
    (r"^model\.encoder_input_proj\.(\d+)\.1\.", r"encoder.project.\1.norm."),
    (r"^model\.decoder_input_proj\.(\d+)\.0\.", r"decoder.project.\1.conv."),
    (r"^model\.decoder_input_proj\.(\d+)\.1\.", r"decoder.project.\1.norm."),
    (r"^model\.encoder\.(?:aifi|encoder)\.0\.layers\.0\.", "encoder.attention."),
    (r"^encoder\.attention\.self_attn_layer_norm\.", "encoder.attention.norm1."),
    (r"^encoder\.attention\.final_layer_norm\.", "encoder.attention.norm2."),
    (r"^model\.encoder\.lateral_convs\.", "encoder.lateral."),
    (r"^model\.encoder\.downsample_convs\.(\d+)\.conv1\.", r"encoder.down.\1.0."),
    (r"^model\.encoder\.downsample_convs\.(\d+)\.conv2\.", r"encoder.down.\1.1."),
    (r"^model\.encoder\.fpn_blocks\.", "encoder.top_down."),
    (r"^model\.encoder\.pan_blocks\.", "encoder.bottom_up."),
    (r"^(encoder\.(?:top_down|bottom_up)\.\d+)\.conv1\.", r"\1.enter."),
    (r"^(encoder\.(?:top_down|bottom_up)\.\d+)\.conv2\.", r"\1.first.1."),
    (r"^(encoder\.(?:top_down|bottom_up)\.\d+)\.conv3\.", r"\1.second.1."),
    (r"^(encoder\.(?:top_down|bottom_up)\.\d+)\.conv4\.", r"\1.leave."),
    (r"\.csp_rep1\.", ".first.0."),
    (r"\.csp_rep2\.", ".second.0."),
    (r"\.(first|second)\.0\.conv1\.", r".\1.0.deep."),
    (r"\.(first|second)\.0\.conv2\.", r".\1.0.shallow."),
    (r"\.bottlenecks\.(\d+)\.conv1\.", r".blocks.\1.square."),
    (r"\.bottlenecks\.(\d+)\.conv2\.", r".blocks.\1.point."),
    (r"^model\.denoising_class_embed\.", "decoder.label_embedding."),
    (r"^model\.enc_output\.0\.", "decoder.selection.proj."),
    (r"^model\.enc_output\.1\.", "decoder.selection.norm."),
    (r"^model\.enc_score_head\.", "decoder.selection.score."),
    (r"^model\.enc_bbox_head\.", "decoder.selection.box."),
    (r"^model\.decoder\.query_pos_head\.", "decoder.query_position."),
    (r"^model\.decoder\.pre_bbox_head\.", "decoder.first_box."),
    (r"^model\.decoder\.lqe_layers\.(\d+)\.reg_conf\.", r"decoder.quality.\1.mlp."),
    (r"^model\.decoder\.class_embed\.", "decoder.score."),
    (r"^model\.decoder\.bbox_embed\.", "decoder.edges."),
    (r"^model\.decoder\.layers\.", "decoder.layers."),
    (r"^(decoder\.layers\.\d+)\.encoder_attn\.sampling_offsets\.", r"\1.sampling.offsets."),
    (r"^(decoder\.layers\.\d+)\.encoder_attn\.attention_weights\.", r"\1.sampling.weights."),
    (r"^(decoder\.layers\.\d+)\.gateway\.", r"\1.gate."),
    (r"^(decoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"^((?:encoder\.attention|decoder\.layers\.\d+))\.self_attn\.(?:out_proj|o_proj)\.", r"\1.attention.out."),
    (r"^((?:encoder\.attention|decoder\.layers\.\d+))\.self_attn\.([qkv])_proj\.", r"\1.attention.qkv.\2."),
    (r"^((?:encoder\.attention|decoder\.layers\.\d+))\.(?:fc1|mlp\.layers\.0)\.", r"\1.widen."),
    (r"^((?:encoder\.attention|decoder\.layers\.\d+))\.(?:fc2|mlp\.layers\.1)\.", r"\1.narrow."),
)


def load_weights(detector: Detector, source: Path | str) -> LoadReport:
    """Fills the detector in place, or leaves it as it was and raises.

    source: our own file, an official .pth (its moving average, if it has one), a Hugging Face folder or .safetensors;
    or the URL of such a file; or the hub id of such a folder (`owner/name`). Heads of another class count start anew.
    """
    tensors, info = read_weights(source)
    if "size" in info and info["size"] != detector.size.name:
        raise ValueError(f"{source}: expected weights of size {detector.size.name}, found size {info['size']}")
    state = detector.state_dict()
    replaced = other_classes(tensors, state)
    adapted = adapt_channels(tensors, state)
    tensors = {name: value for name, value in tensors.items() if name not in replaced}
    refuse_misfits(tensors, state, set(replaced), str(source))
    detector.load_state_dict({name: value.to(state[name].dtype) for name, value in tensors.items()}, strict=False)
    return LoadReport(str(source), tuple(sorted(replaced)), tuple(adapted), info)


def load_detector(source: Path | str) -> tuple[Detector, dict[str, Any]]:
    """The detector of one of our own files, in eval mode, and what the file says of itself (classes, input size)."""
    _, info = read_weights(source)
    if info.get("format") != FORMAT:
        raise ValueError(f"{source}: expected a file of save_weights, found another; take load_weights")
    detector = new_detector(info, source)
    report = load_weights(detector, source)
    if report.replaced or report.adapted:
        found = f"found others: {', '.join((*report.replaced, *report.adapted))[:200]}"
        what = f"{detector.num_classes} classes and {detector.channels} channels"
        raise ValueError(f"{source}: expected weights of {what}, as it says, {found}; save it anew")
    return detector.eval(), info


def new_detector(info: Mapping[str, Any], source: Path | str) -> Detector:
    """As a file says of itself; ValueError for what no detector is, before any memory is taken for it."""
    size, classes, channels = (info.get(key) for key in ("size", "num_classes", "channels"))
    is_known = size in list(SIZES) and type(channels) is int and channels in (1, 3, 4)
    if not is_known or type(classes) is not int or not 0 < classes <= MOST_CLASSES:
        wanted = f"size of {', '.join(SIZES)}, num_classes of 1 to {MOST_CLASSES} and channels of 1, 3 or 4"
        found = one_line(f"{size!r:.60}, {classes!r:.60} and {channels!r:.60}")
        raise ValueError(f"{source}: expected {wanted}, found {found}; save it anew")
    return Detector(str(size), classes, int(channels or 3))


def save_weights(detector: Detector, path: Path | str, info: Mapping[str, Any] | None = None) -> Path:
    """All that load_weights and a predictor need: weights, size, classes, channels, and `info` (plain values).

    A path that ends in .safetensors gives that format, in half precision: half as large, for the repository or the hub.
    """
    about = {
        "format": FORMAT,
        "size": detector.size.name,
        "num_classes": detector.num_classes,
        "channels": detector.channels,
    } | dict(info or {})
    weights = {name: value.detach().cpu().contiguous() for name, value in detector.state_dict().items()}
    with atomic(path) as temporary:
        if Path(path).suffix == ".safetensors":
            halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
            save_safetensors(halves, temporary, {name: json.dumps(value) for name, value in about.items()})
        else:
            torch.save(about | {"weights": weights}, temporary)
    return Path(path)


# --- reading ---


def read_weights(source: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under our names, and what else the file says of itself."""
    text = str(source)
    if re.match(r"^https?://", text):
        with tempfile.TemporaryDirectory() as folder:
            return read_file(download(text, Path(folder)), text)
    path = Path(source)
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not path.suffix:
        path = hub_folder(text)
    if path.is_dir():
        return read_file(weights_in(path), text)
    return read_file(path, text)


def download(url: str, folder: Path) -> Path:
    path = folder / (Path(url.split("?")[0]).name or "weights.pth")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise ValueError(
            f"{url}: expected a file to download, {error}; download it by hand and give its path"
        ) from error
    return path


def hub_folder(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.safetensors", "*.json"]))
    except (OSError, LocalEntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError) as error:
        raise ValueError(
            f"{hub_id}: expected a file, a folder, or a model of the Hugging Face hub; no such path, and the hub says: "
            f"{error}; check the name, or download it by hand and give the folder"
        ) from error


def weights_in(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise ValueError(f"{folder}: expected one .safetensors file, found {len(found)}; give the file itself")
    return found[0]


def read_file(path: Path, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"{source}: expected a weights file, found nothing; check the path")
    try:
        content = (
            read_safetensors(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except UNREADABLE as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        found = one_line(first_line)[:300]
        raise ValueError(f"{source}: expected a weights file, cannot read it: {found}; is it cut off?") from error
    tensors, info = tensors_in(content, source)
    return own_names(tensors), info


def read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        about = {name: text for name, text in (file.metadata() or {}).items() if name != "format" or text != "pt"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  the file is no mapping
    own = about.get("format") == json.dumps(FORMAT)
    return ({name: json.loads(text) for name, text in about.items()} if own else {}) | {"weights": tensors}


def tensors_in(content: Any, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a checkpoint: ours, the moving average's, the model's, or the content itself."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{source}: expected a checkpoint (a dict of tensors), got {type(content).__name__}")
    info = {name: value for name, value in content.items() if name != "weights"} if "weights" in content else {}
    for keys in (("weights",), ("ema", "module"), ("ema",), ("model",), ("state_dict",), ()):
        inner: Any = content
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            return dict(inner), info
    raise ValueError(
        f"{source}: expected tensors at the top, or under weights, ema.module, model or state_dict; "
        f"found {', '.join(map(str, list(content)[:8]))}"
    )


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names to ours; what follows from the size is left out."""
    tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    table: Sequence[tuple[str, str]] = PUBLISHED_NAMES
    if any(name.startswith(("model.backbone.", "model.decoder.")) for name in tensors):
        table = HUGGING_FACE_NAMES
    kept = {name: value for name, value in tensors.items() if name.rsplit(".", 1)[-1] not in DERIVED}
    return joined_qkv({renamed(name, table): value for name, value in kept.items()})


def renamed(name: str, table: Sequence[tuple[str, str]] = PUBLISHED_NAMES) -> str:
    for published, ours in table:
        name = re.sub(published, ours, name)
    return name


def joined_qkv(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Three tensors under qkv.q, qkv.k, qkv.v become one."""
    joined = {name: value for name, value in tensors.items() if ".qkv.q." not in name}
    for name in [name for name in tensors if ".qkv.q." in name]:
        parts = [joined.pop(name.replace(".q.", f".{part}."), tensors[name]) for part in "qkv"]
        joined[name.replace(".q.", ".")] = torch.cat(parts)
    return joined


# --- what does not fit ---


def other_classes(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Heads whose rows are another number of classes; all else about them has to fit."""
    return [
        name
        for name, value in tensors.items()
        if HEADS.match(name) and name in state
        if len(value) != len(state[name]) and value.shape[1:] == state[name].shape[1:]
    ]


def adapt_channels(tensors: dict[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """RGB weights for grey or four-channel images, as timm does it: summed, or repeated and rescaled."""
    name = "backbone.stem.stem1.conv.weight"
    if name not in tensors or tensors[name].shape[1] != 3 or state[name].shape[1] == 3:
        return []
    tensors[name] = adapt_input_conv(state[name].shape[1], tensors[name])
    return [name]


def refuse_misfits(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], replaced: set[str], source: str) -> None:
    missing = [name for name in state if name not in tensors and name not in replaced]
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in state]
    reshaped = [
        f"{name} (expected {tuple(state[name].shape)}, found {tuple(value.shape)})"
        for name, value in tensors.items()
        if name in state and value.shape != state[name].shape
    ]
    lines = [
        f"{what}: {', '.join(names[:20])}{f' and {len(names) - 20} more' if len(names) > 20 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
        if names
    ]
    if lines:
        raise ValueError(
            f"{source}: expected the weights of this detector, but some do not fit; is it another size?\n"
            + "\n".join(lines)
        )
