"""Memory as the kernel tells it, from files laid out as its own."""

import math
import os
from pathlib import Path

import pytest

from kit.limits import free_bytes, resident_bytes

MEMINFO = "MemTotal: 9 kB\nMemAvailable:    4096 kB\n"
V2 = {"proc/self/cgroup": "0::/pod/box\n", "proc/meminfo": MEMINFO}
GROUP = "sys/fs/cgroup/pod"


def laid_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_this_process_takes_is_read(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n")
    assert (resident_bytes("VmRSS", status), resident_bytes("VmHWM", status)) == (100 << 20, 200 << 20)
    status.write_text("Name:\tpython\n")
    with pytest.raises(ValueError, match="status: expected a line VmRSS, found none"):
        resident_bytes("VmRSS", status)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, math.inf),
        ({"proc/meminfo": MEMINFO}, 4 << 20),
        (V2, 4 << 20),
        (V2 | {f"{GROUP}/box/memory.max": "max\n", f"{GROUP}/box/memory.current": "7\n"}, 4 << 20),
        (V2 | {f"{GROUP}/memory.max": "3000000\n", f"{GROUP}/memory.current": "1000000\n"}, 2_000_000),
        (
            V2
            | {f"{GROUP}/memory.max": "3000000\n", f"{GROUP}/memory.current": "1000000\n"}
            | {f"{GROUP}/memory.stat": "anon 1\ninactive_file 400000\nactive_file 9\n"},
            2_400_000,
        ),
        (V2 | {f"{GROUP}/box/memory.max": "10\n", f"{GROUP}/box/memory.current": "11\n"}, 0),
        (
            {"proc/meminfo": MEMINFO}
            | {
                f"sys/fs/cgroup/memory/memory.{name}_in_bytes": text
                for name, text in (("limit", "900"), ("usage", "800"))
            }
            | {"sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n"},
            150,
        ),
    ],
)
def test_free_is_what_the_machine_and_every_group_leave(tmp_path: Path, files: dict[str, str], free: float) -> None:
    assert free_bytes(laid_out(tmp_path, files)) == free


def test_this_machine_has_something_free() -> None:
    assert 0 < free_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < resident_bytes("VmRSS") <= resident_bytes("VmHWM")
