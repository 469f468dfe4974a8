import pytest
import torch
from torch import nn

from kit.deploy.folding import fold_affine, fold_norm, folded
from kit.dfine.detector import Detector
from kit.dfine.encoder import RepBlock
from kit.dfine.layers import ConvNorm


def shaken(detector: Detector) -> Detector:
    """Weights and statistics that a training might have left, the backbone's scales of either sign."""
    for name, weight in detector.named_parameters():
        if ".lab." in name:
            nn.init.uniform_(weight, -1, 1)
        elif weight.ndim == 1 and name.endswith("weight"):
            nn.init.uniform_(weight, 0.5, 1.5)
        else:
            weight.data.add_(torch.randn_like(weight) * 0.02)
    for name, value in detector.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
    return detector


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the detector computes in fp32 in any case, in double precision too."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.parametrize("size", ["n", "s"])
def test_a_folded_detector_is_the_same_to_the_last_digits_of_double_precision(size: str, double: None) -> None:
    torch.manual_seed(0)
    detector = shaken(Detector(size, 3)).eval().double()
    images = torch.rand(2, 3, 128, 96, dtype=torch.double)
    with torch.inference_mode():
        before, after = detector(images), folded(detector)(images)
    assert before.logits.std() > 0.05 and before.boxes.std() > 0.05
    assert (before.logits - after.logits).abs().max() < 1e-11
    assert (before.boxes - after.boxes).abs().max() < 1e-11


def test_folding_leaves_the_detector_alone_and_no_norm_behind() -> None:
    detector = Detector("n", 2)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    after = folded(detector)
    assert detector.training and not after.training
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d | RepBlock) for module in after.modules())


def test_a_norm_without_a_convolution_before_it_stays() -> None:
    parent = nn.Module()
    parent.conv, parent.norm = nn.Identity(), nn.BatchNorm2d(3)
    fold_norm(parent, "conv", "norm")
    assert isinstance(parent.norm, nn.BatchNorm2d)


def test_a_folded_norm_is_in_weight_and_bias() -> None:
    layer = ConvNorm(1, 1, 1).eval()
    nn.init.constant_(layer.conv.weight, 2.0)
    layer.norm.running_mean.fill_(1.0)
    layer.norm.running_var.fill_(4.0 - layer.norm.eps)
    fold_norm(layer, "conv", "norm")  # (2 x - 1) / 2
    assert layer.conv.weight.item() == pytest.approx(1.0) and layer.conv.bias.item() == pytest.approx(-0.5)


@pytest.mark.parametrize("scale", [2.0, -2.0, 0.0])
def test_scale_and_bias_after_relu_become_one_clamp(scale: float) -> None:
    parent = nn.Module()
    parent.conv, parent.act = nn.Conv2d(1, 1, 1), nn.ReLU()
    parent.lab = nn.Module()
    parent.lab.scale, parent.lab.bias = nn.Parameter(torch.tensor([scale])), nn.Parameter(torch.tensor([-0.25]))
    x = torch.linspace(-3, 3, 13).reshape(1, 1, 1, 13)
    before = scale * parent.conv(x).relu() - 0.25
    fold_affine(parent)
    torch.testing.assert_close(parent.act(parent.conv(x)), before)
    assert isinstance(parent.lab, nn.Identity)
