import pytest

from kit.deploy.flops import count_flops, count_parameters
from kit.deploy.folding import folded
from kit.dfine.detector import Detector

# The official code, 640 x 640, 80 classes: parameters, GFLOP in training form, in deploy form, of backbone and decoder.
PUBLISHED = {
    "n": (3_782_691, 7.327, 7.314, (5.178, 0.980)),
    "s": (10_321_875, 25.673, 25.497, (5.178, 4.450)),
    "m": (19_590_062, 58.358, 57.035, (18.490, 5.394)),
    "l": (31_244_150, 93.581, 91.603, (44.537, 7.283)),
    "x": (62_621_558, 207.512, 203.076, (106.648, 8.934)),
}
slow = pytest.mark.slow


@pytest.mark.parametrize("size", ["n", "s", *(pytest.param(each, marks=slow) for each in "mlx")])
def test_parameters_and_operations_are_those_of_the_official_code(size: str):
    parameters, trained, _, parts = PUBLISHED[size]
    detector = Detector(size, 80)
    flops = count_flops(detector)
    assert count_parameters(detector) == parameters
    assert flops.total / 1e9 == pytest.approx(trained, rel=1e-3)
    assert flops.backbone / 1e9 == pytest.approx(parts[0], rel=1e-4)
    assert flops.decoder / 1e9 == pytest.approx(parts[1], rel=1e-3)


def test_the_deployed_form_costs_no_more_than_that_of_the_official_code():
    assert count_flops(folded(Detector("n", 80))).total / 1e9 < 1.001 * PUBLISHED["n"][2]


def test_a_batch_costs_as_many_times_as_much_and_the_detector_keeps_its_values():
    detector = Detector("n", 5).train()
    one, four = count_flops(detector, (320, 256)), count_flops(detector, (320, 256), batch=4)
    assert four.total == 4 * one.total and one.total == one.backbone + one.encoder + one.decoder
    assert detector.training and not next(detector.parameters()).is_meta
