import numpy as np
import pytest
import torch

from kit.demo.models import LEAST_SCORE, MOST_ROUNDS, above, agreeing, answers, counts, open_models, short_names
from kit.predict import Detections


def boxes(*rows: tuple[float, float, float, float], labels: list[int] | None = None) -> Detections:
    amount = len(rows)
    labels = [0] * amount if labels is None else labels
    return Detections(torch.tensor(rows).reshape(-1, 4), torch.ones(amount), torch.tensor(labels, dtype=torch.int64))


def test_names_are_as_short_as_tells_them_apart():
    assert short_names(["runs/a/03_train/best.pt", "runs/a/05_stage2/best.pt", "x/y.onnx"]) == [
        "03_train/best.pt", "05_stage2/best.pt", "y.onnx",
    ]  # fmt: skip


def test_a_name_may_be_the_end_of_another_path():
    assert short_names(["/best.pt", "/a/best.pt"]) == ["/best.pt", "a/best.pt"]


def test_a_model_given_twice_is_refused():
    with pytest.raises(ValueError, match=r"given once, got a\.pt, \./a\.pt"):
        short_names(["a.pt", "./a.pt"])


def test_models_are_measured_in_turns(model):
    one, other = model("one.pt"), model("other.pt")
    found = answers([one, other], lambda channels: np.zeros((48, 80, channels), np.uint8))
    assert [answer.model.name for answer in found] == ["one.pt", "other.pt"]
    assert len(one.predictor.shapes) == len(other.predictor.shapes) == MOST_ROUNDS
    assert [len(answer.rounds_ms) for answer in found] == [MOST_ROUNDS, MOST_ROUNDS]
    assert set(one.predictor.shapes) == {(48, 80, 3)} and found[0].latency_ms == sorted(found[0].rounds_ms)[2]


def test_a_detection_at_the_threshold_is_shown():
    detections = Detections(torch.zeros(3, 4), torch.tensor([0.75, 0.5, 0.25]), torch.tensor([0, 1, 2]))
    assert above(detections, 0.5).labels.tolist() == [0, 1]
    assert above(detections, 0.76).labels.tolist() == []


def test_classes_are_counted_the_most_frequent_first():
    assert counts(boxes(*[(0, 0, 1, 1)] * 4, labels=[2, 0, 2, 2]), ["a", "b", "c"]) == {2: 3, 0: 1}
    assert counts(boxes(), ["a", "b", "c"]) == {}


def test_boxes_agree_by_class_name_and_overlap_one_to_one():
    a = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), labels=[0, 0, 1])
    b = boxes((0, 0, 10, 5), (0, 5, 10, 10), (20, 0, 30, 4.9), (40, 0, 50, 10), labels=[1, 1, 1, 1])
    names, other_names = ["car", "bus"], ["bus", "car"]
    # The first has two halves of IoU 0.5 and takes one; of the second 0.49 is seen; the third is of another class.
    assert agreeing(a, names, b, other_names) == agreeing(b, other_names, a, names) == 1
    assert agreeing(a, names, a, names) == 3


def test_nothing_agrees_with_nothing():
    assert agreeing(boxes(), ["car"], boxes((0, 0, 1, 1)), ["car"]) == agreeing(boxes(), ["car"], boxes(), ["car"]) == 0


def test_a_checkpoint_is_opened_and_says_what_it_is(starter_at):
    [opened] = open_models([starter_at(64, "starter.pt")], runtime="torch", device="cpu")
    assert opened.name == "starter.pt"
    assert opened.about == "D-FINE n, 64 x 64 px, torch fp32 on cpu"
    found = opened.predictor(np.full((50, 40, 3), 127, np.uint8))
    assert bool((found.scores >= LEAST_SCORE).all())


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.pt"):
        open_models([tmp_path / "nowhere.pt"], runtime="torch")
