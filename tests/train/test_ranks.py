from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kit.boxes import Target
from kit.dfine.denoising import Share, make_denoising
from kit.files import read_json
from kit.launch import launch
from kit.optimisation import freeze
from kit.train import read_state
from kit.train.ranks import frozen_parts, in_the_layout_of, refreeze
from tests import tiny
from tests.train.ranked import PLANS, VAL_IMAGES

LOSS, WEIGHT = 1e-6, 1e-6  # relative, and absolute: how far two processes may be from one, after 4 or 8 steps


def targets(counts: list[int], seed: int = 0) -> list[Target]:
    chance = torch.Generator().manual_seed(seed)
    return [
        Target(torch.rand(count, 4, generator=chance) / 2 + 0.1, torch.randint(3, (count,), generator=chance))
        for count in counts
    ]


def noise_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("counts", [[2, 0, 1, 3], [0, 1, 0, 2], [0, 0, 0, 0]])
def test_the_noise_of_two_processes_is_that_of_one_with_all_their_images(counts: list[int]) -> None:
    objects = targets(counts)
    whole = make_denoising(objects, 3, num_matching=5, generator=noise_of(1))
    for rank in range(2):
        share = Share(rank, 2, max(counts))
        part = make_denoising(objects[rank::2], 3, num_matching=5, generator=noise_of(1), share=share)
        assert torch.equal(part.labels, whole.labels[rank::2]) and torch.equal(part.boxes, whole.boxes[rank::2])
        assert torch.equal(part.blocked, whole.blocked) and part.groups == whole.groups
        own = whole.image % 2 == rank
        assert part.image.tolist() == (whole.image[own] // 2).tolist()
        assert part.query.tolist() == whole.query[own].tolist() and part.target.tolist() == whole.target[own].tolist()


@pytest.mark.parametrize("until", ["none", "stem", "backbone", "encoder"])
def test_what_is_frozen_is_told_by_few_names_and_frozen_again_in_another_detector(until: str) -> None:
    detector, other = tiny.detector(), tiny.detector(seed=1)
    freeze(detector, until)
    parts = frozen_parts(detector)
    expected = {"none": [], "stem": ["backbone.stem"], "backbone": ["backbone"], "encoder": ["backbone", "encoder"]}
    assert parts == {"weights": expected[until], "norms": expected[until]}
    refreeze(other, parts)
    for one, two in zip(detector.modules(), other.modules(), strict=True):
        assert type(one) is type(two)
    assert [each.requires_grad for each in detector.parameters()] == [each.requires_grad for each in other.parameters()]


def test_a_gradient_gets_the_strides_of_its_weight_where_that_moves_nothing() -> None:
    weight = torch.empty(4, 3, 1, 1)
    gradient = torch.rand(4, 1, 1, 3).permute(0, 3, 1, 2)  # as a convolution in channels-last gives it
    assert gradient.stride() != weight.stride()
    told = in_the_layout_of(weight.stride(), gradient)
    assert told.stride() == weight.stride() and torch.equal(told, gradient) and told.data_ptr() == gradient.data_ptr()
    other = torch.rand(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    assert in_the_layout_of((75, 25, 5, 1), other) is other


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of tests.train.ranked by one process, in folder 1, and by two, in folder 2."""
    folder = tmp_path_factory.mktemp("trained")
    for processes in (1, 2):
        launch("tests.train.ranked", [str(folder)], processes, lambda line: None)
    return folder


def same(folder: Path, name: str, read: Callable[[Path], dict[str, Tensor]]) -> float:
    one, two = (read(folder / str(world) / name) for world in (1, 2))
    assert list(one) == list(two)
    return max(float((one[each].double() - two[each].double()).abs().max()) for each in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_two_processes_come_to_the_losses_and_weights_of_one(name: str, trained: Path) -> None:
    one, two = (read_json(trained / str(world) / name / "history.json") for world in (1, 2))
    assert len(one) == len(two) == 2
    for expected, found in zip(one, two, strict=True):
        figures = {each: value for each, value in expected.items() if "seconds" not in each}
        assert {"loss", "ddf", "dn_ddf", "ap"} <= set(figures)
        assert {each: found[each] for each in figures} == pytest.approx(figures, rel=LOSS)

    def weights(folder: Path) -> dict[str, Tensor]:
        run = read_state(folder / "last.pt", "cpu")["run"]
        return run["detector"] | {f"average {each}": value for each, value in run["average"].items()}

    assert same(trained, name, weights) < WEIGHT


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_validation_that_does_not_divide_counts_every_image_once(name: str, trained: Path) -> None:
    one, two = (dict(read_json(trained / str(world) / name / "validated.json")) for world in (1, 2))
    assert list(two) == list(range(1, VAL_IMAGES + 1)) and one == two


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_of_two_processes_with_unequal_batches_is_one_norm_forward_and_backward(
    momentum: float | None, trained: Path
) -> None:
    for rank in range(2):
        far = read_json(trained / f"norms{rank}_{momentum}.json")
        assert {"output", "x", "weight", "bias", "running_mean", "running_var", "num_batches_tracked"} == set(far)
        assert max(far.values()) < 2e-6
