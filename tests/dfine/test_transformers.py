"""An independent oracle that any user can run: the D-FINE of `transformers` gives the same, from the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

from kit.dfine.detector import Detector
from kit.dfine.weights import load_weights

NANO_BACKBONE = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "hidden_sizes": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
    "out_indices": [3, 4],
}
NANO = {
    "encoder_hidden_dim": 128,
    "encoder_in_channels": [512, 1024],
    "feat_strides": [16, 32],
    "encoder_ffn_dim": 512,
    "encode_proj_layers": [1],
    "hidden_expansion": 0.34,
    "depth_mult": 0.5,
    "d_model": 128,
    "decoder_in_channels": [128, 128],
    "decoder_ffn_dim": 512,
    "num_feature_levels": 2,
    "decoder_n_points": [6, 6],
    "decoder_layers": 3,
}
SMALL_BACKBONE = NANO_BACKBONE | {"out_indices": [2, 3, 4]}
SMALL = {
    "encoder_in_channels": [256, 512, 1024],
    "hidden_expansion": 0.5,
    "depth_mult": 0.34,
    "decoder_n_points": [3, 6, 3],
    "decoder_layers": 3,
}
LARGE_BACKBONE = {"out_indices": [2, 3, 4]}
LARGE = {"decoder_n_points": [3, 6, 3], "decoder_layers": 6}


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "n": (NANO_BACKBONE, NANO),
    "s": (SMALL_BACKBONE, SMALL),
    "l": (LARGE_BACKBONE, LARGE),
}


def oracle(size: str, classes: int, **changes: object) -> DFineForObjectDetection:
    backbone, rest = CONFIGS[size]
    torch.manual_seed(0)
    config = DFineConfig(
        backbone_config=HGNetV2Config(**backbone), num_labels=classes, eval_size=None, **rest, **changes
    )
    model = DFineForObjectDetection(config).eval()
    with torch.no_grad():  # away from the start, where heads are zero and norms do nothing
        for name, value in model.state_dict().items():
            if value.is_floating_point() and not name.endswith(("up", "reg_scale", "num_points_scale")):
                value.add_(torch.rand_like(value) * 0.2 * (value.abs().mean() + 0.02))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("size", ["n", "s", "l"])
def test_transformers_finds_the_same_from_the_same_folder(size: str, tmp_path: Path) -> None:
    model = oracle(size, classes=7)
    model.save_pretrained(tmp_path)
    detector = Detector(size, 7).eval()
    report = load_weights(detector, tmp_path)
    images = torch.rand(2, 3, 256, 320, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs, ours = model(images), detector(images)
    assert report.replaced == ()
    assert theirs.logits.std() > 0.01  # the comparison means something
    for index in range(2):
        a = np.concatenate([ours.logits[index], ours.boxes[index]], axis=1)
        b = np.concatenate([theirs.logits[index], theirs.pred_boxes[index]], axis=1)
        row, column = linear_sum_assignment(np.abs(a[:, None] - b[None]).max(axis=-1))
        difference = np.abs(a[row] - b[column])
        assert np.quantile(difference.max(axis=1), 0.99) < 3e-4  # near ties of the top-k may swap a query for another


def test_names_of_early_and_present_files_lead_to_the_same(tmp_path: Path) -> None:
    model = oracle("n", classes=3)
    present = {name: value.clone() for name, value in model.state_dict().items()}
    early = {}
    for name, value in present.items():
        for new, old in ((".aifi.", ".encoder."), (".o_proj.", ".out_proj."), (".mlp.layers.0.", ".fc1.")):
            name = name.replace(new, old)
        early[name.replace(".mlp.layers.1.", ".fc2.")] = value
    assert set(early) != set(present)
    detectors = []
    for index, tensors in enumerate((present, early)):
        torch.save(tensors, tmp_path / f"{index}.pth")
        detectors.append(Detector("n", 3))
        load_weights(detectors[-1], tmp_path / f"{index}.pth")
    for a, b in zip(detectors[0].state_dict().values(), detectors[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)
