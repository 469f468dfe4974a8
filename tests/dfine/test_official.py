"""Every number that the official code computes, ours computes too; tolerances as far as float32 allows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from kit.boxes import Target
from kit.dfine.bins import bin_values, edge_targets, move_edges
from kit.dfine.decoder import Output
from kit.dfine.denoising import make_denoising
from kit.dfine.losses import losses, with_proposals
from kit.dfine.matching import match
from kit.dfine.weights import renamed
from kit.predict import top_detections
from tests.dfine import official

CRITERIA = ("plain", "layers_differ", "one_empty", "crowded", "all_empty")


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs queries before they are compared: equal scores may stand in another order."""
    return linear_sum_assignment(np.abs(a[:, None] - b[None]).max(axis=-1))


@pytest.mark.parametrize("size", ["n", "s"])
@pytest.mark.parametrize("shape, classes", [((2, 320, 320), 5), ((1, 384, 640), 5), ((1, 640, 640), 80)])
def test_forward_gives_the_official_logits_and_boxes(
    size: str, shape: tuple[int, int, int], classes: int, tmp_path: Path
) -> None:
    stored = official.arrays(f"forward_{size}_{classes}cls_{'x'.join(map(str, shape))}")
    detector = official.detector_of(size, classes, tmp_path)
    with torch.no_grad():
        found = detector(official.image(*shape))
    layout = "rowcol/" if shape[1] != shape[2] else ""  # the official position embedding is scrambled on rectangles
    for index in range(shape[0]):
        logits, boxes = stored[f"{layout}pred_logits"][index], stored[f"{layout}pred_boxes"][index]
        ours, theirs = nearest(
            np.concatenate([found.logits[index], found.boxes[index]], axis=1), np.concatenate([logits, boxes], axis=1)
        )
        assert np.abs(found.logits[index].numpy()[ours] - logits[theirs]).max() < 3e-4
        assert np.abs(found.boxes[index].numpy()[ours] - boxes[theirs]).max() < 3e-5


@pytest.mark.parametrize("size", ["n", "s"])
def test_every_stage_has_the_official_statistics(size: str, tmp_path: Path) -> None:
    stored = official.arrays(f"forward_{size}_5cls_2x320x320")
    detector = official.detector_of(size, 5, tmp_path)
    with torch.no_grad():
        features = detector.backbone(official.image(2, 320, 320))
        levels = detector.encoder(features)
    for name, parts in (("backbone", features), ("encoder", levels)):
        for index, part in enumerate(parts):
            found = [part.double().mean(), part.double().std(unbiased=False), part.abs().max()]
            assert np.allclose(found, stored[f"{name}{index}/stats"], rtol=1e-5, atol=1e-5)
            places = torch.arange(64) * 2654435761 % part.numel()
            assert np.allclose(part.flatten()[places], stored[f"{name}{index}/samples"], atol=1e-4)


@pytest.mark.parametrize("size", ["n", "s"])
@pytest.mark.parametrize("kind", ["nodn", "dn"])
def test_training_gives_the_official_losses_and_gradients(size: str, kind: str, tmp_path: Path) -> None:
    stored = official.arrays(f"train_{size}_5cls_2x320x320_{kind}")
    detector = official.detector_of(size, 5, tmp_path).train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    output = detector(official.image(2, 320, 320), official.noise_of(stored))
    found = losses(output, official.targets_of(stored))
    assert_official_terms(found.terms, stored, layers=3, rtol=2e-4)
    found.total.backward()
    weights, limit = dict(detector.named_parameters()), float(stored["grad_total_norm"])
    for name, norm in zip(stored["grad_names"].tolist(), stored["grad_norm"], strict=True):
        assert abs(norm_of(weights[renamed(name)]) - norm) <= 0.01 * (norm + 0.001 * limit), name


def norm_of(weight: Tensor) -> float:
    return 0.0 if weight.grad is None else weight.grad.norm().item()


def assert_official_terms(terms: dict[str, Tensor], stored: dict[str, np.ndarray], layers: int, rtol: float) -> None:
    for name, value in zip(stored["loss_names"].tolist(), stored["loss_values"], strict=True):
        term, head = official.place_of(name, layers)
        values = terms.get(term, torch.zeros(0)).tolist()
        ours = values[head] if head < len(values) else 0.0  # the last layer has no teacher; no denoising, no terms
        assert ours == pytest.approx(value, rel=rtol, abs=1e-6), name
    total = sum(value.sum().item() for value in terms.values())
    assert total == pytest.approx(float(stored["loss_total"]), rel=rtol)


@pytest.mark.parametrize("name", CRITERIA)
def test_losses_and_their_gradients_are_the_official_ones(name: str) -> None:
    stored = official.arrays(f"criterion_{name}")
    leaves = official.Leaves(stored)
    found = losses(leaves.output(), official.targets_of(stored), reg_scale=float(stored["reg_scale"]))
    assert_official_terms(found.terms, stored, int(stored["layers"]), rtol=4e-6)
    found.total.backward()
    for tag, norm in zip(stored["grad_tags"].tolist(), stored["grad_norm"], strict=True):
        assert norm_of(leaves.tensors[tag]) == pytest.approx(norm, rel=1e-5), tag


@pytest.mark.parametrize("name", CRITERIA)
def test_matching_and_its_union_are_the_official_ones(name: str) -> None:
    stored = official.arrays(f"criterion_{name}")
    layers, targets = int(stored["layers"]), official.targets_of(stored)
    each, union = match(*with_proposals(official.Leaves(stored).output()), targets)
    heads = [*(f"aux{index}" for index in range(layers - 1)), "final", "pre", "enc0"]
    starts = np.cumsum([0, *stored["target_counts"][:-1]])
    for image, start in enumerate(starts):
        for index, head in enumerate(heads):
            here = (each.answer == index) & (each.image == image)
            pairs = np.stack([each.query[here].numpy(), each.target[here].numpy() - start])
            assert sorted(pairs.T.tolist()) == sorted(stored[f"match/{head}/{image}"].T.tolist())
        here = union.image == image
        pairs = np.stack([union.query[here].numpy(), union.target[here].numpy() - start])
        assert sorted(pairs.T.tolist()) == sorted(stored[f"match/union/{image}"].T.tolist())


@pytest.mark.parametrize("reg_scale", [4, 8])
def test_bins_and_edges_are_the_official_ones(reg_scale: int) -> None:
    stored = official.arrays("parts")
    points = torch.tensor(stored[f"decode/{reg_scale}/points"])
    moved = move_edges(points, torch.tensor(stored[f"decode/{reg_scale}/distance"]), reg_scale)
    targets = edge_targets(points, torch.tensor(stored[f"fgl/{reg_scale}/boxes_xyxy"]), reg_scale)
    assert np.allclose(bin_values(reg_scale), stored[f"W/{reg_scale}"], atol=2e-6)
    assert np.allclose(moved, stored[f"decode/{reg_scale}/boxes"], atol=1e-6)
    assert targets.left.flatten().tolist() == stored[f"fgl/{reg_scale}/index"].astype(int).tolist()
    assert np.allclose(targets.right_weight.flatten(), stored[f"fgl/{reg_scale}/right"], atol=1e-5)
    assert np.allclose(targets.left_weight.flatten(), stored[f"fgl/{reg_scale}/left"], atol=1e-5)


@pytest.mark.parametrize("counts", [[3, 5], [0, 2], [7], [150, 20], [1]])
def test_denoising_has_the_official_layout(counts: list[int]) -> None:
    stored, tag = official.arrays("parts"), "_".join(map(str, counts))
    targets = [Target(torch.full((count, 4), 0.5), torch.zeros(count, dtype=torch.int64)) for count in counts]
    noise = make_denoising(targets, 5, num_matching=30)
    mask = official.unpacked(stored[f"dn/{tag}/mask"], stored[f"dn/{tag}/mask_shape"])
    assert noise.groups == stored[f"dn/{tag}/groups"] and torch.equal(noise.blocked, mask)
    for image in range(len(counts)):
        assert noise.query[noise.image == image].tolist() == stored[f"dn/{tag}/positive/{image}"].tolist()


@pytest.mark.parametrize("classes", [5, 80])
def test_the_best_detections_are_the_official_ones(classes: int) -> None:
    stored = official.arrays("postprocess")
    output = Output(torch.tensor(stored[f"c{classes}/pred_logits"]), torch.tensor(stored[f"c{classes}/pred_boxes"]))
    sizes_hw = [(int(height), int(width)) for width, height in stored[f"c{classes}/orig_wh"]]
    for image, found in enumerate(top_detections(output, sizes_hw)):
        assert np.allclose(found.scores, stored[f"c{classes}/{image}/scores"], atol=1e-6)
        assert found.labels.tolist() == stored[f"c{classes}/{image}/labels"].tolist()
        assert np.allclose(found.boxes_xyxy_px, stored[f"c{classes}/{image}/boxes"], atol=1e-2)
