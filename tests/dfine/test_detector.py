from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kit.boxes import Target
from kit.dfine.backbone import Unit
from kit.dfine.decoder import Output, TrainOutput
from kit.dfine.denoising import make_denoising
from kit.dfine.detector import SIZES, Detector, unfrozen
from kit.dfine.losses import losses
from tests import tiny

PUBLISHED_COUNTS = {"n": 3_782_693, "s": 10_321_877, "m": 19_590_064, "l": 31_244_152, "x": 62_621_560}  # 80 classes


@pytest.mark.parametrize("size", list(SIZES))
def test_every_size_has_the_published_number_of_weights(size: str) -> None:
    with torch.device("meta"):
        count = sum(weight.numel() for weight in Detector(unfrozen(size), 80).parameters())
    frozen = {"l": 45_696, "x": 93_920}.get(size, 0)  # entries of frozen norms are buffers in the published count
    assert (
        count - frozen == PUBLISHED_COUNTS[size] - 2
    )  # `up` and `reg_scale` are figures of the size here, not weights


@pytest.mark.parametrize("height, width", [(64, 64), (96, 160), (160, 32)])
def test_one_detector_takes_any_multiple_of_32_and_keeps_no_trace_of_it(height: int, width: int) -> None:
    detector = tiny.detector().eval()
    before = {name: value.shape for name, value in detector.state_dict().items()}
    with torch.no_grad():
        output = detector(torch.rand(2, 3, height, width))
    assert isinstance(output, Output)
    queries = min(20, height * width // 256 + height * width // 1024)  # tokens of strides 16 and 32
    assert output.logits.shape == (2, queries, 2) and output.boxes.shape == (2, queries, 4)
    assert {name: value.shape for name, value in detector.state_dict().items()} == before


def test_a_checkpoint_holds_weights_and_norm_statistics_alone() -> None:
    detector = Detector("n", 3)
    weights = {name for name, _ in detector.named_parameters()}
    rest = {name.rsplit(".", 1)[1] for name in detector.state_dict() if name not in weights}
    assert rest == {"running_mean", "running_var", "num_batches_tracked"}
    assert len(list(detector.buffers())) == sum("running" in n or "num_batches" in n for n in detector.state_dict())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_colour_and_four_channel_images(channels: int) -> None:
    detector = tiny.detector(channels=channels).eval()
    with torch.no_grad():
        assert detector(torch.rand(1, channels, 64, 64)).boxes.shape == (1, 20, 4)
    with pytest.raises(ValueError, match=rf"images must be float \(B, {channels}, H, W\) in \[0, 1\], got torch.uint8"):
        detector(torch.zeros(1, channels, 64, 64, dtype=torch.uint8))


def test_a_size_that_is_no_multiple_of_32_is_told() -> None:
    with pytest.raises(ValueError, match="multiples of 32, got 64 x 70; resize the images"):
        tiny.detector()(torch.rand(1, 3, 64, 70))


def test_an_unknown_size_is_told_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="one of n, s, m, l, x or a Size, got 'nano'"):
        Detector("nano", 3)


def test_half_precision_moves_every_tensor() -> None:
    detector = tiny.detector().eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full, half = detector(images), detector.half()(images.half())
    assert all(value.dtype == torch.float16 for value in detector.state_dict().values() if value.is_floating_point())
    assert half.logits.dtype == torch.float16
    assert torch.allclose(half.boxes.float().sort(dim=1).values, full.boxes.sort(dim=1).values, atol=2e-2)


class Transfers(TorchDispatchMode):
    """Counts what makes the host wait for a device: reading a value, and shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "masked_select", "unique")):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


class Layouts(TorchDispatchMode):
    """Collects what convolutions and norms give that is not channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.other = 0, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple | list) else result
        wanted = any(word in str(func) for word in ("convolution", "batch_norm", "threshold"))
        if wanted and first is not None and first.ndim == 4:  # the images get no slope; other ReLUs are of queries
            self.seen += 1
            if not first.is_contiguous(memory_format=torch.channels_last):
                self.other.append((str(func), tuple(first.shape)))
        return result


def test_channels_stay_last_from_the_images_to_the_decoder_and_back() -> None:
    detector = Detector(tiny.SIZE, 2).train()
    images = torch.rand(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    target = [Target(torch.full((1, 4), 0.5), torch.tensor([1]))] * 2
    with Layouts() as layouts:
        losses(detector(images, make_denoising(target, 2, num_matching=20)), target).total.backward()
    assert layouts.seen > 200 and layouts.other == []


@pytest.mark.parametrize("size", ["n", "l"])
def test_the_layout_of_the_images_changes_neither_the_answers_nor_the_layout_of_the_weights(size: str) -> None:
    detector = Detector(size, 2).eval()
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, last = detector(images), detector(images.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(plain.logits.sort(dim=1).values, last.logits.sort(dim=1).values, atol=1e-4)
    assert all(weight.is_contiguous() for weight in detector.state_dict().values())


@pytest.mark.parametrize("training", [False, True])
def test_forward_never_waits_for_the_device(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unit, "is_quick_for", lambda self, x: False)  # as on a device; on the host none is waited for
    detector = tiny.detector().train(training)
    noise = make_denoising([Target(torch.full((2, 4), 0.4), torch.tensor([0, 1]))], 2, num_matching=20)
    with Transfers() as transfers:
        output = detector(torch.rand(1, 3, 64, 64), noise if training else None)
    assert isinstance(output, TrainOutput if training else Output) and transfers.found == []


def test_training_without_denoising_and_without_objects_reaches_every_weight() -> None:
    detector = tiny.detector().train()
    empty = [Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2
    noise = make_denoising(empty, 2, num_matching=20)
    assert noise.labels.shape == (2, 0)
    losses(detector(torch.rand(2, 3, 64, 64), noise), empty).total.backward()
    assert [name for name, weight in detector.named_parameters() if weight.grad is None] == []


def test_large_sizes_are_frozen_as_published_and_can_be_unfrozen() -> None:
    published, free = Detector("l", 2), Detector(unfrozen("l"), 2)
    frozen = {name for name, weight in published.named_parameters() if not weight.requires_grad}
    assert frozen and all(name.startswith("backbone.stem.") for name in frozen)
    assert not any("backbone" in name for name, m in published.named_modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert all(weight.requires_grad for weight in free.parameters())
    names = {name for name in free.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == {name for name in published.state_dict() if not name.endswith("num_batches_tracked")}


def test_more_queries_than_tokens_are_cut_to_what_there_is() -> None:
    torch.manual_seed(0)
    detector = Detector(replace(SIZES["n"], queries=300), 2).train()
    target = [Target(torch.full((1, 4), 0.5), torch.tensor([1]))]
    output = detector(torch.rand(1, 3, 64, 64), make_denoising(target, 2))
    assert output.queries.logits.shape == (3, 1, 20, 2)
    assert torch.isfinite(losses(output, target).total)
