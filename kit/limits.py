"""What the kernel tells of this process: the memory it takes, what is free, and the control groups that bound it."""

import math
from pathlib import Path
from typing import Literal

ROOT = Path("/")  # under which the kernel tells
Field = Literal["VmRSS", "VmHWM"]  # now, and at the highest so far


def resident_bytes(field: Field, status: Path = Path("/proc/self/status")) -> int:
    """Memory of this process."""
    return told_bytes(status, field)


def free_bytes(root: Path = ROOT) -> float:
    """What a new process can have, of the machine or of the container where that has less; infinite where nobody tells.

    Files that a container has read count as its memory until the room is needed: they are counted as free.
    """
    meminfo = root / "proc/meminfo"
    of_machine = told_bytes(meminfo, "MemAvailable") if meminfo.is_file() else math.inf
    return max(0.0, min([of_machine, *(left_bytes(folder) for folder in memory_folders(root))]))


def told_bytes(file: Path, field: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{file}: expected a line {field}, found none")


def memory_folders(root: Path) -> list[Path]:
    return [*group_folders(root), root / "sys/fs/cgroup/memory"]


def group_folders(root: Path = ROOT) -> list[Path]:
    """The control groups of this process, version 2, from its own up to the first."""
    lines = root / "proc/self/cgroup"
    group = "/"
    for line in lines.read_text().splitlines() if lines.is_file() else []:
        if line.startswith("0::"):
            group = line.removeprefix("0::")
    base = root / "sys/fs/cgroup"
    folder = base / group.strip("/")
    return [place for place in (folder, *folder.parents) if place.is_relative_to(base)]


def left_bytes(folder: Path) -> float:
    """Of the limit of one control group, version 2 or 1; infinite where it sets none."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        if (folder / limit).is_file() and (folder / used).is_file():
            most = (folder / limit).read_text().strip()
            taken = int((folder / used).read_text()) - files_bytes(folder / "memory.stat")
            return math.inf if most == "max" else int(most) - taken
    return math.inf


def files_bytes(stat: Path) -> int:
    """Pages of files that were not used lately."""
    lines = stat.read_text().splitlines() if stat.is_file() else []
    told = dict(line.split() for line in lines)
    return int(told.get("total_inactive_file", told.get("inactive_file", 0)))
