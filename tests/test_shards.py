import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.data.unlabelled import entries_of
from kit.dfine.weights import save_weights
from kit.files import read_json, sha256, write_json
from kit.params import ROOT
from kit.predict import predict_dataset
from kit.shards import (
    Plan,
    Settings,
    command_arguments,
    do_plans,
    main,
    make_plan,
    one_thread,
    predict_all,
    read_plan,
    work,
)
from tests import tiny

SETTINGS = Settings("0" * 64, (64, 64), [3, 7], shard_images=4)


def images(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "file_name": f"{n}.png", "height": 9, "width": 9, "bytes": 5} for n in range(1, count + 1)]


def fake(asked: list[int], pause_s: float = 0.0) -> Callable[..., Any]:
    """Finds one box in each image, of a score that tells which."""

    def predict(shard: Any, progress: Any) -> Any:
        time.sleep(pause_s)
        asked.extend(image["id"] for image in shard)
        box = {"category_id": 3, "bbox": [0, 0, 5, 5]}
        return {"whole": [{"image_id": image["id"], "score": 1 / image["id"]} | box for image in shard]}

    return predict


def contents(plan: Plan) -> list[bytes]:
    return [plan.file_of(shard).read_bytes() for shard in range(plan.shards)]


def test_shards_are_the_same_bytes_for_any_number_of_processes(tmp_path: Path) -> None:
    alone, together = (make_plan(tmp_path / name, "w.pt", SETTINGS, images(11)) for name in "ab")
    first: list[int] = []
    work(alone, fake(first))
    asked: list[list[int]] = [[], [], []]
    done = [work(replace(together), fake(asked[rank]), rank, world=3) for rank in range(3)]
    assert alone.shards == 3 and contents(alone) == contents(together)
    assert first == list(range(1, 12)) and done == [3, 0, 0]  # the first finds no other at work and does it all
    assert alone.missing() == [] and [box["image_id"] for box in alone.read(2)["whole"]] == [9, 10, 11]


def test_each_process_begins_with_its_own_turn(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "w.pt", SETTINGS, images(16))
    asked: list[int] = []
    work(plan, fake(asked), rank=1, world=2)
    assert asked == [5, 6, 7, 8, 13, 14, 15, 16, 1, 2, 3, 4, 9, 10, 11, 12]


def test_what_is_there_is_never_done_again(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "w.pt", SETTINGS, images(8))
    work(plan, fake([]))
    before = contents(plan)[0]
    plan.file_of(1).unlink()
    (plan.folder / ".shard_000001.json.half.gz").write_bytes(b"cut off")  # of someone killed while writing
    asked: list[int] = []
    told: list[tuple[int, int]] = []
    with pytest.raises(ValueError, match=r"expected 2 shards, 1 are missing, such as \[1\]"):
        plan.read(1)
    assert work(plan, fake(asked), progress=lambda *state: told.append(state)) == 1
    assert asked == [5, 6, 7, 8] and contents(plan)[0] == before
    assert sorted(path.name for path in plan.folder.glob("*shard*")) == ["shard_000000.json.gz", "shard_000001.json.gz"]


def test_a_disk_without_locks_is_no_obstacle_and_other_faults_are_told(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(number: int) -> Callable[..., None]:
        def lockf(*_arguments: Any) -> None:
            raise OSError(number, os.strerror(number))

        return lockf

    plan = make_plan(tmp_path, "w.pt", SETTINGS, images(8))
    monkeypatch.setattr("kit.shards.fcntl.lockf", refuse(errno.EAGAIN))  # another process has them
    assert work(plan, fake([])) == 0
    monkeypatch.setattr("kit.shards.fcntl.lockf", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        work(plan, fake([]))
    monkeypatch.setattr("kit.shards.fcntl.lockf", refuse(errno.ENOLCK))
    assert work(plan, fake([])) == 2


def test_other_settings_or_images_have_another_folder_and_the_same_have_the_same(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"weights_sha256": "1" * 64}, {"size_hw": (64, 96)}, {"flip": True}, {"scales": (1.0, 1.5)}, {"tiles": 2},
        {"min_score": 0.02}, {"top_k": 100}, {"shard_images": 5},
    ]  # fmt: skip
    folders = [make_plan(tmp_path, "w.pt", replace(SETTINGS, **change), images(8)).folder for change in changes]
    folders.append(make_plan(tmp_path, "w.pt", SETTINGS, images(7)).folder)
    folders.append(make_plan(tmp_path, "w.pt", SETTINGS, [image | {"bytes": 6} for image in images(8)]).folder)
    assert len(set(folders)) == len(folders)
    assert make_plan(tmp_path, "elsewhere.pt", SETTINGS, images(8)).folder == folders[0]


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "w.pt", SETTINGS, images(2))
    content = read_json(plan.folder / "manifest.json")
    content["settings"]["flip"] = True
    write_json(plan.folder / "manifest.json", content)
    with pytest.raises(ValueError, match="the content differs; delete it"):
        read_plan(plan.folder)


def test_no_images_and_images_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one image to predict on"):
        make_plan(tmp_path, "w.pt", SETTINGS, [])
    with pytest.raises(ValueError, match="some have the same; renumber"):
        make_plan(tmp_path, "w.pt", SETTINGS, images(2) * 2)


@pytest.fixture
def small(tmp_path: Path) -> Plan:
    """A detector and 5 images in 3 shards, with a second view."""
    data = tiny.dataset(tmp_path / "data", images=5)
    weights = save_weights(tiny.detector(), tmp_path / "best.pt")
    settings = Settings(sha256(weights), (64, 64), [3, 7], flip=True, top_k=20, min_score=0.0, shard_images=2)
    return make_plan(tmp_path / "plan", weights, settings, entries_of(data.coco, data.images, ROOT))


def test_a_plan_holds_what_predict_dataset_finds_in_all_its_views(small: Plan, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    predict_all([small], batch_size=2, progress=lambda *state: told.append(state))
    data, detector = tiny.dataset(tmp_path / "data", images=5), tiny.detector()
    with one_thread():
        alone = predict_dataset(detector, data.coco, data.images, size_hw=(64, 64), batch_size=2, top_k=20, min_score=0)
    views = [small.read(shard) for shard in range(3)]
    assert [box for view in views for box in view["whole"]] == alone
    assert all(list(view) == ["whole", "flip"] for view in views)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_other_weights_than_planned_are_refused(small: Plan) -> None:
    save_weights(tiny.detector(seed=1), small.weights)
    with pytest.raises(ValueError, match=r"expected the weights that .* was planned with, found others"):
        do_plans([small], batch_size=2, workers=0)


def test_the_command_does_what_is_missing_and_says_so(small: Plan, capsys: Any, monkeypatch: Any) -> None:
    predict_all([small], batch_size=2)
    before = contents(small)
    small.file_of(1).unlink()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command_arguments([small], batch_size=2, workers=0)) == 0
    assert contents(small) == before
    assert "process 2 of 2: 5 of 5 images are done" in capsys.readouterr().out


# --- killed at any moment ---

ROUNDS = """
import os, random, signal, sys, time
from pathlib import Path
from kit.shards import read_plan, work
from tests.test_shards import fake

plan, dice, kills = read_plan(Path(sys.argv[1])), random.Random(int(sys.argv[2])), 0

def start(rank, world):
    process = os.fork()
    if process:
        return process
    asked = []
    work(plan, fake(asked, 0.003), rank, world)
    (plan.folder / f"asked_{rank}").write_text(" ".join(map(str, asked)))
    os._exit(0)

while len(plan.missing()) > 20:
    world = dice.randint(1, 4)
    processes = [start(rank, world) for rank in range(world)]
    time.sleep(dice.uniform(0.01, 0.08))
    for process in processes:
        os.kill(process, signal.SIGKILL)
    kills += sum(os.waitpid(process, 0)[1] == signal.SIGKILL for process in processes)
for process in [start(rank, 3) for rank in range(3)]:
    os.waitpid(process, 0)
print(kills)
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_gone_on_by_other_numbers_of_processes_it_ends_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    """With SIGKILL, all processes of a round at once, as on a machine that goes down."""
    whole, torn = (make_plan(tmp_path / name, "w.pt", SETTINGS, images(1600)) for name in "ab")
    work(whole, fake([]))
    command = [sys.executable, "-c", ROUNDS, str(torn.folder), "0"]  # a process that may be forked: no threads yet
    kills = int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert kills >= 10 and torn.missing() == [] and contents(torn) == contents(whole)
    last = [int(word) for path in torn.folder.glob("asked_*") for word in path.read_text().split()]
    assert len(last) == len(set(last))  # of three at work no two did the same
    assert list(torn.folder.glob(".shard*")) == []  # and nothing half-written is left


@pytest.mark.slow
def test_a_killed_worker_ends_the_launch_and_a_single_process_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "data", images=60)
    weights = save_weights(tiny.detector(), tmp_path / "best.pt")
    settings = Settings(sha256(weights), (64, 64), [3, 7], top_k=20, min_score=0.0, shard_images=1)
    entries = entries_of(data.coco, data.images, ROOT)
    whole, torn = (make_plan(tmp_path / name, weights, settings, entries) for name in "ab")
    predict_all([whole], batch_size=2)
    with pytest.raises(RuntimeError, match="expected 2 processes to end well"):
        predict_all([torn], processes=2, batch_size=2, progress=lambda done, total: kill_one_worker(torn))
    assert torn.missing()
    predict_all([torn], batch_size=2)
    assert contents(torn) == contents(whole)


def kill_one_worker(plan: Plan) -> None:
    """Of those that hold this plan; they are this test's own."""
    for folder in Path("/proc").glob("[0-9]*"):
        words = (folder / "cmdline").read_bytes().split(b"\0") if (folder / "cmdline").exists() else []
        if str(plan.folder).encode() in words and b"torch.distributed.run" not in words:
            os.kill(int(folder.name), signal.SIGKILL)
            return
