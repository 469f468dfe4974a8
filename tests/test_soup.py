from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from kit import load_weights, save_weights
from kit.dfine.backbone import freeze_norms
from kit.dfine.detector import Detector
from kit.soup import average_weights, greedy_soup, load_average, mean_state, reestimate_norms, training_batches
from tests import tiny

ABOUT = {"classes": ["dark", "bright"], "category_ids": [3, 7]}


def saved(folder: Path, name: str, seed: int, about: Mapping[str, object] = ABOUT, classes: int = 2) -> Path:
    return save_weights(tiny.detector(classes, seed), folder / name, about)


def float_state(detector: Detector) -> dict[str, Tensor]:
    return {name: value for name, value in detector.state_dict().items() if value.is_floating_point()}


# --- averages ---


def test_floats_are_averaged_and_integers_come_from_the_last() -> None:
    states = [{"w": torch.tensor([k, 2.0 * k]), "seen": torch.tensor(n)} for k, n in ((1.0, 7), (2.0, 9), (6.0, 4))]
    mean = mean_state(states)
    assert mean["w"].tolist() == [3.0, 6.0] and mean["w"].dtype == torch.float32
    assert mean["seen"] == 4 and mean["seen"].dtype == torch.int64  # 20 / 3 would be neither a count nor an integer


def test_the_sum_is_made_in_double_precision() -> None:
    """In float32 the small one is lost beside the large ones, and half of the result with it."""
    states = [{"w": torch.tensor([value])} for value in (2.0**25, 1.0, -(2.0**25))]
    assert mean_state(states)["w"].item() == pytest.approx(1 / 3)


def test_half_precision_comes_out_as_float32() -> None:
    states = [{"w": torch.tensor([value], dtype=torch.float16)} for value in (1.0, 1.0 + 2.0**-10)]
    assert mean_state(states)["w"].item() == 1.0 + 2.0**-11  # lies between two halves


def test_nothing_has_no_average() -> None:
    with pytest.raises(ValueError, match="at least one checkpoint to average, got none"):
        mean_state([])


def test_only_the_named_files_are_averaged(tmp_path: Path) -> None:
    files = [saved(tmp_path, f"epoch_{seed}.pt", seed) for seed in (1, 2, 3)]
    detector = tiny.detector(seed=9)
    load_average(detector, [files[0], files[2]])
    first, last = float_state(tiny.detector(seed=1)), float_state(tiny.detector(seed=3))
    for name, value in float_state(detector).items():
        assert torch.equal(value, ((first[name].double() + last[name].double()) / 2).float()), name


def test_the_average_of_one_file_is_that_file_to_the_last_bit(tmp_path: Path) -> None:
    loaded, averaged = tiny.detector(seed=8), tiny.detector(seed=9)
    load_weights(loaded, saved(tmp_path, "a.pt", 1))
    load_average(averaged, [tmp_path / "a.pt"])
    assert all(torch.equal(value, float_state(loaded)[name]) for name, value in float_state(averaged).items())


@pytest.mark.parametrize(
    "about, classes, message",
    [
        (ABOUT, 3, "b.pt: expected num_classes 2, found 3; not the same as in .*a.pt; average only alike"),
        (ABOUT | {"classes": ["bright", "dark"]}, 2, "expected classes .*'dark', 'bright'.*, found .*'bright', 'dark'"),
        (ABOUT | {"category_ids": [0, 1]}, 2, r"expected category_ids \[3, 7\], found \[0, 1\]"),
        (ABOUT | {"size": "s"}, 2, "expected size n, found s"),
    ],
)
def test_checkpoints_of_another_kind_are_refused(
    about: dict[str, object], classes: int, message: str, tmp_path: Path
) -> None:
    files = [saved(tmp_path, "a.pt", 1), saved(tmp_path, "b.pt", 2, about, classes)]
    with pytest.raises(ValueError, match=message):
        average_weights(files)


def test_other_shapes_are_refused_where_the_files_say_nothing_of_themselves(tmp_path: Path) -> None:
    state = tiny.detector().state_dict()
    torch.save({"weights": state}, tmp_path / "a.pt")
    torch.save({"weights": {name: value for name, value in state.items() if "score" not in name}}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b.pt: \d+ weights differ in name or shape, such as decoder.*score"):
        average_weights([tmp_path / "a.pt", tmp_path / "b.pt"])


def test_a_detector_that_the_average_does_not_fit_stays_as_it_was(tmp_path: Path) -> None:
    detector = tiny.detector(classes=4)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(ValueError, match="expected the weights of this detector"):
        load_average(detector, [saved(tmp_path, "a.pt", 1)])
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


# --- BatchNorm's statistics ---


def batches(count: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(2, 3, tiny.SIDE, tiny.SIDE, generator=generator) for _ in range(count)]


def first_norm(detector: Detector) -> nn.BatchNorm2d:
    norm = detector.backbone.get_submodule("stem.stem1.bn")
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def test_statistics_become_the_plain_mean_over_the_batches() -> None:
    detector, images = tiny.detector(), batches()
    assert reestimate_norms(detector, images) == 3
    conv = detector.backbone.get_submodule("stem.stem1.conv")
    with torch.no_grad():
        found = [conv(each).transpose(0, 1).flatten(1) for each in images]  # (C, values) each, before the norm
    assert torch.allclose(first_norm(detector).running_mean, torch.stack([x.mean(1) for x in found]).mean(0), atol=1e-5)
    assert torch.allclose(first_norm(detector).running_var, torch.stack([x.var(1) for x in found]).mean(0), rtol=1e-4)


def test_nothing_but_the_statistics_moves() -> None:
    detector = tiny.detector().train()
    first_norm(detector).num_batches_tracked.fill_(5)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    reestimate_norms(detector, batches())
    after = detector.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 1)[-1] for name in moved} == {"running_mean", "running_var"}
    assert first_norm(detector).momentum == 0.1 and first_norm(detector).training and detector.training


def test_what_the_old_statistics_were_does_not_matter() -> None:
    one, other = tiny.detector(), tiny.detector()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(7.0)
            module.running_var.fill_(0.1)
    for detector in (one, other):
        reestimate_norms(detector, batches())
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


def test_frozen_norms_are_left_alone() -> None:
    detector = tiny.detector()
    freeze_norms(detector.backbone)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    reestimate_norms(detector, batches(1))
    moved = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(name.startswith("backbone.") for name in moved)
    assert isinstance(detector.backbone.get_submodule("stem.stem1.bn"), FrozenBatchNorm2d)


def test_no_batch_is_told_and_costs_nothing() -> None:
    detector = tiny.detector()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(ValueError, match="at least one batch of training images, got none"):
        reestimate_norms(detector, [])
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_statistics_averaged_along_are_not_those_of_the_average(tmp_path: Path) -> None:
    """Weights of two strangers cancel, so their mean's activations vary less than those of either."""
    images, averaged = batches(2), tiny.detector()
    files = [saved(tmp_path, f"{seed}.pt", seed) for seed in (1, 2)]
    load_average(averaged, files)
    stale = first_norm(averaged).running_var.clone()
    reestimate_norms(averaged, images)
    with torch.no_grad():
        activations = averaged.backbone.get_submodule("stem.stem1.conv")(torch.cat(images))
    true = activations.transpose(0, 1).flatten(1).var(1)
    assert torch.allclose(first_norm(averaged).running_var, true, rtol=0.05) and not torch.allclose(
        stale, true, rtol=0.5
    )


def test_training_batches_are_full_seeded_and_repeat_no_image(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path, images=7, strong=False)

    def drawn(count: int, size: int = 3, seed: int = 0) -> Iterator[Tensor]:
        return training_batches(data, (32, 64), size, count, seed)

    found = list(drawn(9))
    assert [tuple(each.shape) for each in found] == [(3, 3, 32, 64)] * 2 and found[0].max() <= 1
    assert torch.equal(next(drawn(1)), found[0]) and not torch.equal(next(drawn(1, seed=1)), found[0])
    assert len({tuple(image.flatten().tolist()) for each in found for image in each}) == 6
    assert [len(each) for each in drawn(9, size=16)] == [7]


# --- greedy soup ---


A, B, C, D = (Path(f"{name}.pt") for name in "abcd")


def test_a_soup_takes_what_helps_and_leaves_what_does_not() -> None:
    scores = {(A,): 0.3, (B,): 0.5, (C,): 0.4, (B, C): 0.45, (B, A): 0.6}
    soup = greedy_soup([A, B, C], scores.__getitem__)
    assert soup.files == (B, A) and soup.score == 0.6
    assert [(each.file, each.alone, each.together, each.kept) for each in soup.tries] == [
        (B, 0.5, 0.5, True),
        (C, 0.4, 0.45, False),
        (A, 0.3, 0.6, True),
    ]


def test_what_does_no_harm_joins_and_equals_stay_in_their_order() -> None:
    soup = greedy_soup([A, B], {(A,): 0.5, (B,): 0.5, (A, B): 0.5}.__getitem__)
    assert soup.files == (A, B)


def test_a_soup_is_never_worse_than_its_best_ingredient() -> None:
    alone = {A: 0.1, B: 0.2, C: 0.15, D: 0.05}
    soup = greedy_soup(list(alone), lambda files: alone[files[0]] - 0.01 * (len(files) - 1))
    assert soup.files == (B,) and soup.score == 0.2


def test_a_file_named_twice_counts_once_and_none_is_told() -> None:
    asked = []

    def score(files: tuple[Path, ...]) -> float:
        asked.append(files)
        return 1.0

    assert greedy_soup([A, A], score).files == (A,) and asked == [(A,)]
    with pytest.raises(ValueError, match="at least one checkpoint for the soup, got none"):
        greedy_soup([], score)
