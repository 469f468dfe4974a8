"""What a file name tells of a picture: its camera, its time of day, its frame."""

import re
from dataclasses import dataclass
from pathlib import PurePath

TRACK4_VIEW = r"camera(?P<camera>\d+)_(?P<scene>[MAEN])_(?P<frame>\d+)"  # M morning, A afternoon, E evening, N night
NIGHT = "N"


@dataclass(frozen=True)
class View:
    """camera and scene as they stand in the name; scene: empty where the name has none; frame: -1 likewise."""

    camera: str
    scene: str = ""
    frame: int = -1

    @property
    def is_night(self) -> bool:
        return self.scene == NIGHT


def view_of(file_name: str, pattern: str | None) -> View | None:
    """None where there is no pattern, or the name is not of it; what follows the pattern (`_copy1.jpg`) is free.

    pattern: a regular expression with the groups camera and, where the names have them, scene and frame.
    """
    found = re.match(pattern, PurePath(file_name).name) if pattern else None
    if found is None:
        return None
    parts = found.groupdict()
    return View(parts["camera"], parts.get("scene") or "", int(parts.get("frame") or -1))


def group_of(file_name: str, pattern: str | None) -> str:
    """day or night; day where the name does not tell."""
    view = view_of(file_name, pattern)
    return "night" if view is not None and view.is_night else "day"
