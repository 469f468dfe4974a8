import torch
from torch import nn

from kit.dfine.backbone import Unit, freeze_norms
from kit.train.norms import SharedNorm, synchronise
from tests import tiny


def test_synchronised_norms_have_the_same_names_weights_and_statistics_and_frozen_ones_stay() -> None:
    detector = tiny.detector()
    freeze_norms(detector.backbone.get_submodule("stem"))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    weights = list(detector.parameters())
    kinds = [type(each).__name__ for each in detector.modules()]
    synchronise(detector, torch.device("cpu"))
    after = detector.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert all(one is other for one, other in zip(weights, detector.parameters(), strict=True))
    synchronised = {"BatchNorm2d": "SharedNorm"}
    assert [type(each).__name__ for each in detector.modules()] == [synchronised.get(kind, kind) for kind in kinds]
    assert kinds.count("FrozenBatchNorm2d") > 0 < kinds.count("BatchNorm2d")


def test_a_unit_with_a_synchronised_norm_does_not_take_its_quick_way() -> None:
    detector, x = tiny.detector().train(), torch.ones(1, 3, 32, 32)
    units = [each for each in detector.modules() if isinstance(each, Unit) and isinstance(each.act, nn.ReLU)]
    assert any(unit.is_quick_for(x) for unit in units)
    synchronise(detector, torch.device("cpu"))
    assert not any(unit.is_quick_for(x) for unit in units)


def test_in_evaluation_a_synchronised_norm_is_a_plain_one() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])
    norm.eval()
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(SharedNorm(norm)(x), norm(x))
