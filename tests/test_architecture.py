"""The house rules that a machine can read."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import kit
from kit.params import ROOT

KIT = ROOT / "kit"
FILES = sorted(KIT.rglob("*.py"))
WINGS = {  # wing: (step, its files and folders under kit/)
    "base": (1, ("params", "boxes", "files", "progress", "launch", "limits")),
    "data": (2, ("data",)),
    "dfine": (2, ("dfine",)),
    "work": (3, (
        "train", "optimisation", "presets", "budget", "batch_size", "doctor", "metrics", "predict", "tta",
        "ensemble", "fusion", "sources", "gains", "soup", "stage2", "shards", "pseudo", "pseudo_rules",
    )),
    "top": (4, ("submission", "competitions", "errors", "label_mistakes", "fiftyone_export", "plots", "pipeline")),
    "deploy": (5, ("deploy", "predictor", "media", "demo")),
}  # fmt: skip
HOMELESS = {"utils", "util", "misc", "common", "helpers", "helper", "tools", "core"}
FRAMEWORKS = {"pytorch_lightning", "lightning", "wandb", "mlflow", "detectron2", "mmdet", "ultralytics", "accelerate"}


def name_of(path: Path) -> str:
    return str(path.relative_to(KIT))


each_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def wing_of(module: str) -> str:
    """module: such as kit.data.coco."""
    name = module.split(".")[1]
    found = [wing for wing, (_, names) in WINGS.items() if name in names]
    assert found, f"kit/{name} stands on no step: give it one in WINGS"
    return found[0]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: expected imports by the full name, got a relative one"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "kit"}
    return found


@pytest.mark.parametrize("path", [path for path in FILES if path != KIT / "__init__.py"], ids=name_of)
def test_a_file_imports_only_its_own_wing_and_lower_steps(path):
    wing = wing_of(module_of(path))
    for module in sorted(imports(path)):
        if module.startswith("kit."):
            other = wing_of(module)
            is_lower = WINGS[other][0] < WINGS[wing][0]
            assert other == wing or is_lower, f"{name_of(path)} ({wing}) must not import {module} ({other})"


def test_no_file_is_a_drawer_for_odds_and_ends():
    assert [name_of(path) for path in FILES if path.stem in HOMELESS or path.parent.name in HOMELESS] == []


@each_file
def test_kit_is_built_on_no_training_framework(path):
    assert {module.split(".")[0] for module in imports(path)} & FRAMEWORKS == set()


@each_file
def test_every_file_begins_by_saying_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name_of(path)} has no docstring"


@each_file
def test_only_the_main_function_of_a_command_prints(path):
    tree = ast.parse(path.read_text())
    commands = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    allowed = {id(node) for command in commands for node in ast.walk(command)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in allowed]
    assert [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"] == []


@each_file
def test_no_error_is_swallowed(path):
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    assert [node.lineno for node in handlers if node.type is None] == []
    wide = [
        each for each in handlers if isinstance(each.type, ast.Name) and each.type.id in ("Exception", "BaseException")
    ]
    assert [node.lineno for node in wide if not isinstance(node.body[-1], ast.Raise)] == []


@each_file
def test_nothing_is_left_to_be_done_in_a_comment(path):
    assert [word for word in ("TODO", "FIXME", "XXX", "HACK") if word in path.read_text()] == []


def test_what_kit_exports_is_there_and_named_once():
    assert sorted(kit.HOMES) == sorted(kit.__all__) == dir(kit)
    assert [
        name for name, home in kit.HOMES.items() if getattr(kit, name) is not getattr(import_module(home), name)
    ] == []


def test_kit_refuses_a_name_it_does_not_have():
    with pytest.raises(AttributeError, match="kit has no 'detektor'; it has SIZES, Detector"):
        _ = kit.detektor


def test_a_notebook_can_refuse_its_parameters_before_torch_is_loaded():
    code = "import sys, kit.params, kit.pipeline; assert not {'torch', 'papermill', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
