from pathlib import Path

import pytest
import torch

from kit.deploy import threads
from kit.deploy.threads import available_cores, cpu_quota, describe, thread_count, torch_threads


def machine(root: Path, siblings: dict[int, str], files: dict[str, str] | None = None) -> Path:
    """A made-up machine: which logical processors share a core, and what control groups say."""
    texts = {
        f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": text for number, text in siblings.items()
    }
    for name, text in (texts | (files or {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may use logical processors 0 to 7."""
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_the_second_thread_of_a_core_does_not_count(tmp_path: Path, eight: None):
    pairs = {number: f"{number % 4},{number % 4 + 4}\n" for number in range(8)}
    assert available_cores(machine(tmp_path, pairs)) == 4


def test_where_the_kernel_tells_nothing_each_processor_is_a_core(tmp_path: Path, eight: None):
    assert available_cores(tmp_path) == 8 and cpu_quota(tmp_path) == float("inf")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),  # a container of two and a half cores
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),  # never none
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 1",
            },
            3,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_the_share_of_a_container_limits_the_cores(tmp_path: Path, eight: None, files: dict[str, str], cores: int):
    assert available_cores(machine(tmp_path, {}, files)) == cores


def test_what_the_user_says_goes_before_what_kit_finds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 6)
    found = []
    for value in ("", "3", "4,2", "many", "0"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        found.append((thread_count(), thread_count(5)))
    assert found == [(6, 5), (3, 5), (4, 5), (6, 5), (6, 5)]
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        thread_count(0)


def test_the_line_tells_how_many_why_and_how_they_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert describe() == "2 threads on 2 cores (one a core); threads that wait sleep"
    assert describe(3).endswith("(as asked); threads that wait sleep, and more threads than cores make each slower")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "wait busily (OMP_WAIT_POLICY=ACTIVE)" in describe(1)
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert "wait busily (torch was loaded before kit): on shared cores set OMP_WAIT_POLICY=PASSIVE" in describe(1)


def test_torch_has_its_threads_back_afterwards():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="stop"), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before
