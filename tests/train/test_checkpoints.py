import os
import pickle
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from kit.train.checkpoints import (
    CHECKPOINT,
    FORGOTTEN,
    PREVIOUS,
    DamagedError,
    Stride,
    clear_remains,
    digest_of,
    read_newest,
    read_state,
    refuse_other_run,
    stride,
    write_generation,
    write_state,
)


def state(step: int) -> dict[str, object]:
    weights = {"w": torch.arange(3000.0) + step, "n": torch.tensor(step)}
    return {"fingerprint": "{}", "run": {"step": step, "weights": weights, "betas": (0.9, 0.999), "sums": {}}}


def written(out: Path, *steps: int) -> Path:
    for step in steps:
        write_generation(out, state(step), keep=True)
    return out / CHECKPOINT


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def test_two_generations_are_kept_and_no_third_and_nothing_half_done(tmp_path: Path) -> None:
    last = written(tmp_path, 1, 2, 3)
    steps = [read_state(path, "cpu")["run"]["step"] for path in (last, tmp_path / PREVIOUS)]
    assert steps == [3, 2] and sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, PREVIOUS]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_checkpoint_cut_short_is_refused_and_the_previous_one_is_used_and_said(share: float, tmp_path: Path) -> None:
    last, said = written(tmp_path, 1, 2), []
    os.truncate(last, int(share * last.stat().st_size))
    found = read_newest(tmp_path, "cpu", said.append)
    assert found is not None and found[0]["run"]["step"] == 1 and not found[1]
    assert len(said) == 1 and "last.pt: expected a checkpoint as it was written" in said[0]
    assert said[0].endswith("going on from previous.pt, step 1")


def test_after_a_damaged_one_the_good_previous_one_is_not_overwritten_by_it(tmp_path: Path) -> None:
    last = written(tmp_path, 1, 2)
    os.truncate(last, 100)
    write_generation(tmp_path, state(3), keep=False)
    assert read_state(tmp_path / PREVIOUS, "cpu")["run"]["step"] == 1 and read_state(last, "cpu")["run"]["step"] == 3


def test_a_changed_bit_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    whole, right = path.read_bytes(), digest_of(state(1))
    chance, refused = random.Random(0), 0
    for place in [*range(0, 400, 7), *range(len(whole) - 400, len(whole), 7), *chance.choices(range(len(whole)), k=80)]:
        path.write_bytes(whole)
        flip(path, place)
        try:
            assert digest_of(read_state(path, "cpu")) == right  # in the padding, or in what nobody reads
        except DamagedError:
            refused += 1
    assert refused > 80


def test_weights_changed_and_saved_again_are_refused_by_the_digest(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    content = torch.load(path, weights_only=True)
    content["run"]["weights"]["w"][7] += 1
    torch.save(content, path)
    with pytest.raises(DamagedError, match="found content of another digest; it was cut short or changed"):
        read_state(path, "cpu")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"fingerprint": Harm()}, tmp_path / CHECKPOINT)
    with pytest.raises(DamagedError, match=r"last\.pt: expected a checkpoint as it was written"):
        read_state(tmp_path / CHECKPOINT, "cpu")
    (tmp_path / PREVIOUS).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(DamagedError, match=r"previous\.pt: .*not a zip"):
        read_state(tmp_path / PREVIOUS, "cpu")
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_of_old_without_a_digest_is_read(tmp_path: Path) -> None:
    torch.save(state(4), tmp_path / CHECKPOINT)
    assert read_state(tmp_path / CHECKPOINT, "cpu")["run"]["step"] == 4


def test_where_both_are_damaged_the_way_out_is_told(tmp_path: Path) -> None:
    last = written(tmp_path, 1)
    os.truncate(last, 100)
    with pytest.raises(DamagedError, match=r"there is no previous.pt: begin again with resume=False"):
        read_newest(tmp_path, "cpu", print)


def test_other_weights_in_the_place_of_a_checkpoint_are_refused(tmp_path: Path) -> None:
    last = written(tmp_path, 1, 2)
    write_state(last, {"weights": torch.zeros(2)})
    said: list[str] = []
    found = read_newest(tmp_path, "cpu", said.append)
    assert found is not None and found[0]["run"]["step"] == 1 and "found the keys weights" in said[0]


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Writing past `size` bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 700, 9000])
def test_a_disk_that_fills_up_leaves_both_generations_and_tells_it_in_one_line(size: int, tmp_path: Path) -> None:
    last = written(tmp_path, 1, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        disk_of(size),
        pytest.raises(OSError, match=r"cannot write into .* MiB free\); what was there stays: make room"),
    ):
        written(tmp_path, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and last.exists()


def test_what_a_killed_writer_left_goes_and_the_rest_stays(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    for name in (".last.ab12.pt", ".previous.x.pt", ".epoch_3.q.pt", ".history.z.json"):
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    clear_remains(tmp_path, print)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, "notes.txt", PREVIOUS]


def test_without_last_the_previous_one_is_put_aside_and_it_is_said(tmp_path: Path) -> None:
    written(tmp_path, 1, 2).unlink()
    said: list[str] = []
    clear_remains(tmp_path, said.append)
    assert (tmp_path / FORGOTTEN).exists() and read_newest(tmp_path, "cpu", print) is None
    assert "last.pt was taken away, so the run begins anew; previous.pt is now forgotten.pt" in said[0]


def test_digests_tell_types_shapes_and_order_and_not_the_layout_in_memory() -> None:
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert digest_of(image) == digest_of(image.to(memory_format=torch.channels_last))
    others = [image.double(), image.reshape(1, 2, 4, 3), [image], {"a": image}, 1, 1.0, "1", (1,), [1], True, None]
    assert len({digest_of(other) for other in [image, *others]}) == 12
    assert digest_of(torch.tensor([])) != digest_of(torch.tensor([0.0]))


def test_the_place_in_an_epoch_is_kept_by_the_images_seen() -> None:
    old, new = stride(images=100, batch_size=8, accumulate=1, world=1), stride(100, 16, 2, 2)
    assert old == Stride(12, 8) and new == Stride(6, 16)
    assert [new.step_at(step, old) for step in (0, 5, 6, 11, 12, 17)] == [0, 2, 3, 5, 6, 8]
    assert [old.step_at(step, new) for step in (0, 1, 6, 7)] == [0, 2, 12, 14]
    assert Stride(2, 4).step_at(4, Stride(5, 2)) == 1  # 8 of 10 images were seen: the epoch still has to end


def test_another_batch_size_is_refused_unless_chosen_and_other_data_always(tmp_path: Path) -> None:
    refuse_other_run(tmp_path, {}, adapt=False)
    refuse_other_run(tmp_path, {"batch_size": "4, now 8", "world": "1, now 2", "amp": "fp16, now bf16"}, adapt=True)
    with pytest.raises(
        ValueError, match=r"differs in batch_size \(4, now 8\); adapt=True goes on with the images seen"
    ):
        refuse_other_run(tmp_path, {"batch_size": "4, now 8"}, adapt=False)
    with pytest.raises(ValueError, match=r"differs in seed \(0, now 3\); use another run name"):
        refuse_other_run(tmp_path, {"batch_size": "4, now 8", "seed": "0, now 3"}, adapt=True)
