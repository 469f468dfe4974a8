"""What a worker settles: seen from within a process that a loader started."""

import ctypes
import gc
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_info
from torch.utils.data import DataLoader, Dataset

from kit.data import workers

HOLES_MIB = 60


class Look(Dataset[dict[str, float]]):
    """What a worker finds when it is asked for an item."""

    def __getitem__(self, index: int) -> dict[str, float]:
        blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
        return {
            "cv2": cv2.getNumThreads(),
            "blas": max(blas),
            "frozen": gc.get_freeze_count(),
            "given_back": given_back_mib(),
        }

    def __len__(self) -> int:
        return 1


def given_back_mib() -> float:
    """Of memory that was freed between blocks that are in use, as long as the worker waits."""
    blocks = [np.ones(1 << 16, np.uint8) for _ in range(16 * HOLES_MIB)]
    kept, blocks = blocks[::8], []
    full = resident_mib()
    time.sleep(20 * workers.REST_S)
    assert kept[0].all()
    return full - resident_mib()


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's; here: another C library")
def test_a_worker_keeps_one_thread_and_no_memory_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "REST_S", 0.05)
    loader = DataLoader(Look(), None, num_workers=1, worker_init_fn=workers.settle_worker)
    (found,) = list(loader)
    assert (found["cv2"], found["blas"]) == (1, 1)
    assert found["frozen"] > 10_000
    assert found["given_back"] > HOLES_MIB / 2


def test_without_glibc_nothing_is_given_back_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(workers, "Thread", lambda **_: started.append(1))
    monkeypatch.setattr(workers, "one_thread_each", lambda _worker: None)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    workers.settle_worker(0)
    assert not started
