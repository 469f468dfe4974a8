"""Reference figures of the official D-FINE: the rule that makes weights and images, and the arrays that were stored."""

import gzip
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kit.boxes import Target
from kit.dfine.decoder import Predictions, TrainOutput
from kit.dfine.denoising import Denoising
from kit.dfine.detector import Detector
from kit.dfine.weights import load_weights

STORED = Path(__file__).parent.parent / "reference" / "dfine"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "dfine"
SEED = "dfine-A"


def path_of(name: str) -> Path:
    for folder in (STORED, SHARED):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is not among the stored reference figures and ../shared is absent")


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(path_of(f"{name}.npz"), allow_pickle=False) as file:
        return dict(file)


def stream(tag: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(tag.encode("ascii")))


def draw(name: str, shape: list[int], gain: float) -> Tensor:
    """The value that the rule gives one entry of the official state dict."""
    random, last = stream(f"{SEED}:{name}"), name.rsplit(".", 1)[-1]
    if last == "running_var":
        value = 0.5 + random.random_sample(shape)
    elif last == "running_mean" or (len(shape) == 1 and last not in ("weight", "scale")):
        value = 0.1 * random.standard_normal(shape)
    elif len(shape) > 1:
        value = np.sqrt(gain / np.prod(shape[1:])) * random.standard_normal(shape)
    else:
        value = 1 + 0.1 * random.standard_normal(shape)
    return torch.from_numpy(np.asarray(value, np.float32))


def state_dict(size: str, classes: int) -> dict[str, Tensor]:
    """A whole official state dict, under the official names."""
    rule = json.loads(gzip.decompress(path_of(f"names_{size}_{classes}cls.json.gz").read_bytes()))
    drawn = {name: draw(name, shape, rule["gain"]) for name, shape in rule["drawn"].items()}
    assert sum(value.double().sum().item() for value in drawn.values()) == pytest.approx(rule["checksum_sum_float64"])
    kept = {name: torch.tensor(entry["value"]) for name, entry in rule["kept"].items() if entry["value"] is not None}
    return drawn | kept


def detector_of(size: str, classes: int, folder: Path) -> Detector:
    """Goes the way a user's checkpoint goes: through a file and load_weights."""
    torch.save({"model": state_dict(size, classes)}, folder / "official.pth")
    detector = Detector(size, classes)
    load_weights(detector, folder / "official.pth")
    return detector.eval()


def image(batch: int, height: int, width: int) -> Tensor:
    random = stream(f"{SEED}:image:{batch}x3x{height}x{width}")
    coarse = random.random_sample((batch, 3, -(-height // 16), -(-width // 16)))
    fine = random.random_sample((batch, 3, height, width))
    coarse = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    return torch.from_numpy((0.7 * coarse + 0.3 * fine).astype(np.float32))


def targets_of(stored: dict[str, np.ndarray]) -> list[Target]:
    counts = stored["target_counts"].tolist()
    boxes, labels = torch.tensor(stored["target_boxes"]), torch.tensor(stored["target_labels"])
    return [Target(*each) for each in zip(boxes.split(counts), labels.split(counts), strict=True)]


def noise_of(stored: dict[str, np.ndarray]) -> Denoising | None:
    """The denoising queries that were given to the official code."""
    if "dn_groups" not in stored:
        return None
    rows: list[tuple[int, int, int]] = []
    for image_index, count in enumerate(stored["target_counts"].tolist()):
        queries = stored.get(f"dn_positive/{image_index}", np.zeros(0, np.int64)).tolist()
        rows += [(image_index, query, place % count) for place, query in enumerate(queries)]
    images, queries, targets = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
    if "dn_class" not in stored:  # the losses need the layout alone
        nothing = torch.zeros(0)
        return Denoising(nothing, nothing, nothing, images, queries, targets, int(stored["dn_groups"]))
    return Denoising(
        torch.tensor(stored["dn_class"]).long(),
        torch.tensor(stored["dn_box"]).clamp(1e-5, 1 - 1e-5),
        unpacked(stored["dn_attn_mask"], stored["dn_attn_mask_shape"]),
        images,
        queries,
        targets,
        int(stored["dn_groups"]),
    )


def unpacked(bits: np.ndarray, shape: np.ndarray) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits, axis=1)[:, : shape[1]].astype(bool))


class Leaves:
    """The stored outputs as tensors whose gradients can be asked for."""

    def __init__(self, stored: dict[str, np.ndarray]):
        self.stored, self.tensors = stored, dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors.setdefault(name, torch.tensor(self.stored[name]).requires_grad_())

    def predictions(self, layer: str, first: str, reference: str) -> Predictions:
        layers = range(int(self.stored["layers"]))
        return Predictions(
            torch.stack([self[f"{layer}{index}/pred_logits"] for index in layers]),
            torch.stack([self[f"{layer}{index}/pred_boxes"] for index in layers]),
            torch.stack([self[f"{layer}{index}/pred_corners"].unflatten(-1, (4, -1)) for index in layers]),
            torch.tensor(self.stored[reference]),
            self[f"{first}/pred_logits"],
            self[f"{first}/pred_boxes"],
        )

    def output(self) -> TrainOutput:
        noise = noise_of(self.stored)
        noisy = self.predictions("dn", "dn_pre", "dn_ref_points") if "dn0/pred_logits" in self.stored else None
        queries = self.predictions("layer", "pre", "ref_points")
        return TrainOutput(queries, self["enc0/pred_logits"], self["enc0/pred_boxes"], noisy, noise)


def place_of(official_loss: str, layers: int) -> tuple[str, int]:
    """loss_bbox_aux_0 -> the name of our term, and the head it belongs to."""
    found = re.fullmatch(r"loss_(vfl|bbox|giou|fgl|ddf)(_dn)?(?:_(?:aux_)?(\d+|pre|enc_0))?", official_loss)
    assert found, official_loss
    term, noisy, head = found.groups()
    index = {"pre": layers, "enc_0": layers + 1, None: layers - 1}.get(head)
    return ("dn_" if noisy else "") + term.replace("bbox", "l1"), int(head) if index is None else index
