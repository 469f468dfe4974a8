"""The contract of the notebooks, and the chain from end to end on the smallest data."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.files import read_json
from kit.params import AUGMENTATION, NOTEBOOKS, OF_PRESET, RATES, ROOT, SAMPLING

FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
LONGEST = {"01_eda": 40}  # cells; 25 for the others


def cells(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    return [cell for cell in read_json(path)["cells"] if kind in (None, cell["cell_type"])]


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def code(path: Path) -> list[ast.Module]:
    """Each code cell but the one of the parameters and the one that reads them."""
    return [ast.parse(text(cell)) for cell in cells(path, "code")[2:]]


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_there_is_a_notebook_for_every_class_of_params():
    assert [path.stem for path in FILES] == list(NOTEBOOKS)


@each_notebook
def test_a_notebook_begins_with_its_title(path):
    first = cells(path)[0]
    assert first["cell_type"] == "markdown" and text(first).startswith(f"# {path.stem[:2]} ")


@each_notebook
def test_the_first_code_cell_repeats_the_defaults_for_the_reader(path):
    cell = cells(path, "code")[0]
    assert cell["metadata"]["tags"] == ["parameters"]
    values = {}
    for node in ast.parse(text(cell)).body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1, f"{ast.unparse(node)}: not a plain assignment"
        values[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    defaults = {name: getattr(NOTEBOOKS[path.stem](), name) for name in NOTEBOOKS[path.stem].names()}
    assert list(values) == list(defaults) and values == defaults


@each_notebook
def test_papermill_can_read_every_line_of_the_parameters(path):
    """It gives up on a line whose comment holds a second equals sign."""
    assert [line for line in text(cells(path, "code")[0]).splitlines() if line.count("=") > 1] == []


@each_notebook
def test_the_second_code_cell_refuses_unknown_parameters(path):
    name = NOTEBOOKS[path.stem].__name__
    lines = [line for line in text(cells(path, "code")[1]).splitlines() if line]
    assert lines[:2] == [f"from kit.params import {name}", f"params = {name}.from_notebook(globals())"]


@each_notebook
def test_imports_stand_together_in_one_cell(path):
    importing = [tree for tree in code(path) if any(is_import(node) for node in ast.walk(tree))]
    assert len(importing) == 1 and all(is_import(node) for node in importing[0].body)


@each_notebook
def test_a_notebook_is_short_and_so_are_its_cells(path):
    assert len(cells(path)) <= LONGEST.get(path.stem, 25)
    allowed = [25 if text(cell).startswith(("from ", "import ")) else 15 for cell in cells(path, "code")]
    lengths = [len(text(cell).splitlines()) for cell in cells(path, "code")]
    assert [pair for pair in list(zip(lengths, allowed, strict=True))[1:] if pair[0] > pair[1]] == []


@each_notebook
def test_a_notebook_defines_no_class_and_no_long_function(path):
    nodes = [node for tree in code(path) for node in ast.walk(tree)]
    assert [node.name for node in nodes if isinstance(node, ast.ClassDef)] == []
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if node.end_lineno - node.lineno > 3] == []


@each_notebook
def test_git_holds_no_outputs_and_no_counts(path):
    assert [cell["id"] for cell in cells(path, "code") if cell["outputs"] or cell["execution_count"]] == []
    assert [cell["id"] for cell in cells(path)] == [str(index) for index in range(len(cells(path)))]


@each_notebook
def test_a_notebook_starts_in_any_python3_kernel(path):
    assert read_json(path)["metadata"]["kernelspec"]["name"] == "python3"


@each_notebook
def test_every_parameter_is_used_or_belongs_to_all(path):
    """A knob must turn something. `run`, `data` and the like work through properties of the params."""
    used = " ".join(text(cell) for cell in cells(path, "code")[1:])
    through = {
        "run": "params.out", "notebooks": "params.out", "data": "params.(data|train)_folder",
        "height_px": "params.size_hw", "width_px": "params.size_hw",
        "weights": "params.weights_source", "trained": "params.trained_folder", "models": "params.weights_files",
        "deploy_models": "params.weights_files",
        "perspective": "params.perspective_folder",
    }  # fmt: skip
    names = NOTEBOOKS[path.stem].names()
    through |= {name: "params.augmentation" for name in AUGMENTATION if path.stem in ("00_browse", "03_train")}
    through |= {name: "params.given" for name in OF_PRESET if path.stem in ("00_browse", "03_train")}
    through |= {name: "params.rates" for name in RATES}
    through |= {"batch_size": "params.images_per_step"} if path.stem == "05_stage2" else {}
    through |= {name: "params.sampling" for name in SAMPLING if path.stem == "00_browse"}
    through |= {name: "params.scenes" for name in names if name.startswith("scenes_")}
    through |= {name: "params.offline" for name in names if name.startswith("offline_")}
    assert [name for name in names if not re.search(rf"{through.get(name, f'params.{name}')}\b", used)] == []


# --- from end to end ---


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the repository, so that a run leaves no trace in this one."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("kit", "notebooks", "params", "weights"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def command(clone: Path, *arguments: str, folder: str = ".") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(clone), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=clone / folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_chain_runs_from_end_to_end_and_a_second_call_skips_all_of_it(clone):
    first = command(clone, "kit.pipeline", "params/smoke.yaml")
    assert first.returncode == 0, first.stdout + first.stderr
    run = clone / "runs" / "smoke"
    assert [path.name for path in sorted(run.glob("*/*.ipynb"))] == [f"{name}.ipynb" for name in NOTEBOOKS]
    assert list((clone / "submissions").glob("*.zip")) and list(run.glob("*/*.png"))
    second = command(clone, "kit.pipeline", "params/smoke.yaml")
    assert second.stdout.count("finished before, skipped") == len(NOTEBOOKS)


@pytest.mark.slow
@each_notebook
def test_papermill_with_a_misspelt_parameter_stops_at_once_with_the_right_one(clone, path):
    result = command(clone, "papermill", path.name, f"out_{path.name}", "-p", "exmaples", "3", folder="notebooks")
    assert result.returncode != 0 and "unknown parameter exmaples, did you mean examples?" in result.stderr


@pytest.mark.slow
def test_papermill_alone_starts_the_size_it_is_told(clone):
    """Everything else has a default; here the run is kept short by the smallest of everything."""
    small = ["-p", "scenes_train", "4", "-p", "scenes_val", "2", "-p", "scenes_size_px", "128", "-p", "batch_size", "2"]
    small += ["-p", "epochs", "1", "-p", "height_px", "64", "-p", "width_px", "64", "-p", "workers", "0"]
    result = command(clone, "papermill", "03_train.ipynb", "out.ipynb", "-p", "model", "l", *small, folder="notebooks")
    assert result.returncode == 0, result.stderr
    assert read_json(clone / "runs" / "default" / "03_train" / "params.json")["model"] == "l"
