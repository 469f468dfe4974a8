"""What differs from competition to competition, a page each; `kit.submission` holds what they share.

To add one: copy the page that is nearest, change it, list it below, and name it in `competition` of kit/params.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

from kit.competitions.coco import COCO
from kit.competitions.kaggle_csv import KAGGLE_CSV
from kit.competitions.track4 import TRACK4
from kit.submission import Competition

COMPETITIONS: Mapping[str, Competition] = MappingProxyType({each.name: each for each in (TRACK4, COCO, KAGGLE_CSV)})

__all__ = ["COMPETITIONS", "Competition"]
