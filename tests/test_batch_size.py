import os
import signal
from dataclasses import replace

import pytest
import torch

from kit import batch_size
from kit.batch_size import Kind, drawn_target, largest_batch, main, peak_in_child, powers
from tests import tiny

GIB = 2**30
KIND = Kind(tiny.SIZE, 2, (64, 64), objects=3)


def growing(each_gib: float, fixed_gib: float = 0.5, asked: list[int] | None = None) -> batch_size.Peak:
    def peak(batch: int) -> int:
        if asked is not None:
            asked.append(batch)
        return int((fixed_gib + each_gib * batch) * GIB)

    return peak


def test_batches_double_up_to_the_most() -> None:
    assert powers(1) == [1] and powers(8) == [1, 2, 4, 8] and powers(12) == [1, 2, 4, 8, 12]


def test_the_largest_batch_that_fits_is_chosen_and_the_reason_told() -> None:
    choice = largest_batch(growing(0.5), 8 * GIB, most=64, share=0.8)
    assert choice.batch_size == 8  # 4.5 of 6.4 GiB; 16 would take 8.5
    assert choice.why == "batch_size 8: 8 images a step took 4.50 GiB of 8.0 GiB free; 16 would take more than 80%"


def test_a_batch_that_will_not_fit_is_not_tried() -> None:
    asked: list[int] = []
    largest_batch(growing(0.5, asked=asked), 8 * GIB)
    assert asked == [1, 2, 4, 8]


def test_no_more_are_taken_than_asked_for() -> None:
    choice = largest_batch(growing(0.001), 8 * GIB, most=12)
    assert choice.batch_size == 12 and choice.why.endswith("more were not asked for")


def test_a_trial_that_was_killed_did_not_fit() -> None:
    assert largest_batch(lambda batch: GIB // 8 if batch < 4 else None, 8 * GIB).batch_size == 2


def test_memory_for_not_even_one_image_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"memory for one image a step, found 1\.0 GiB free, of which 80% may be taken"
    ):
        largest_batch(growing(2.0), GIB)


@pytest.mark.slow
def test_more_images_take_more_memory_and_a_dead_child_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    one = peak_in_child(Kind(tiny.SIZE, 2, (128, 128), objects=3), 1)
    eight = peak_in_child(Kind(tiny.SIZE, 2, (128, 128), objects=3), 8)
    assert one is not None and eight is not None and eight > one > 2**20
    monkeypatch.setattr(batch_size, "send_peak", dies)
    assert peak_in_child(KIND, 1) is None


def dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_drawn_image_has_so_many_objects_or_none() -> None:
    device = torch.device("cpu")
    assert drawn_target(KIND, device).boxes.shape == (3, 4) and drawn_target(KIND, device).labels.tolist() == [0, 1, 0]
    assert drawn_target(replace(KIND, objects=0), device).boxes.shape == (0, 4)


def test_the_command_refuses_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "q"]) == 2
    assert "model must be one of n, s, m, l, x" in capsys.readouterr().err
