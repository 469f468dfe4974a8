"""Shared fixtures. The environment is set before anything imports torch."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.params import ROOT
from kit.pipeline import ENVIRONMENT

for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)

SHARED = Path(os.environ.get("KIT_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """A path under the folder of shared data (beside the repository, or KIT_SHARED); the test is skipped without it."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not in the shared data; set KIT_SHARED to the folder that holds it")
        return path

    return find
