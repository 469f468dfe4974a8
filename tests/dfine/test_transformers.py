"""An independent oracle that any user can run: the D-FINE of `transformers` gives the same, from the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from kit.dfine.detector import Detector
from kit.dfine.weights import load_weights
from tests.dfine.peer import oracle


@pytest.mark.slow
@pytest.mark.parametrize("size", ["n", "s", "m", "l"])
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
