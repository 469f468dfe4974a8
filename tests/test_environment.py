"""One home of versions: environment.yml, constraints.txt and the Makefile agree with pyproject.toml."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from PIL import Image

from kit.files import read_json, read_yaml, write_json, write_text
from kit.params import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
OPTIONAL = [Requirement(line) for name, lines in EXTRAS.items() if name != "tensorrt" for line in lines]
CONDA = read_yaml(ROOT / "environment.yml")
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())


def pip_lines() -> list[str]:
    return next(each["pip"] for each in CONDA["dependencies"] if isinstance(each, dict))


@pytest.mark.parametrize("requirement", CORE + OPTIONAL, ids=lambda requirement: requirement.name)
def test_a_dependency_is_pinned_to_its_minor_version_and_the_constraints_keep_to_it(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator in ("~=", "==") and specifier.version.count(".") >= 2
    assert CONSTRAINTS[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("requirement", CORE + OPTIONAL, ids=lambda requirement: requirement.name)
def test_what_is_installed_is_what_is_asked_for(requirement):
    assert version(requirement.name) in requirement.specifier


def test_torch_and_torchvision_are_the_pair_of_the_issue():
    exact = {requirement.name: str(requirement.specifier) for requirement in CORE}
    assert (exact["torch"], exact["torchvision"]) == ("==2.14.1", "==0.29.1")


def test_the_constraints_hold_versions_and_no_address():
    text = (ROOT / "constraints.txt").read_text()
    assert (
        "/" not in text and "@" not in text and all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in text.split())
    )


def test_tensorrt_is_an_extra_that_nothing_else_asks_for():
    assert list(EXTRAS) == ["dev", "openvino", "media", "demo", "tensorrt"] and len(EXTRAS["tensorrt"]) == 1
    assert [requirement.name for requirement in CORE + OPTIONAL if "tensorrt" in requirement.name.lower()] == []
    assert [name for name in CONSTRAINTS if "tensorrt" in name] == []


def test_conda_installs_the_package_with_all_its_extras():
    assert pip_lines() == ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]


def test_conda_says_no_version_but_that_of_python():
    conda = [each for each in CONDA["dependencies"] if isinstance(each, str)]
    assert conda == ["python=3.11", "pip"]
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11.0")


def test_this_python_is_one_that_the_package_allows():
    assert SpecifierSet(PROJECT["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


def test_the_listing_of_test_images_in_data_readme_works_as_it_stands(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "data" / "README.md").read_text(), re.DOTALL)
    (tmp_path / "data/fisheye8k/images/test").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "data/fisheye8k/images/test/camera19_N_7.png")
    annotations = tmp_path / "data/fisheye8k/annotations"
    write_json(annotations / "instances_train.json", {"categories": [{"id": 0, "name": "Bus"}]})
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    image = {"id": 1937, "file_name": "camera19_N_7.png", "width": 6, "height": 4}
    assert read_json(annotations / "instances_test.json")["images"] == [image]


# --- the Makefile ---


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=clean | environment, capture_output=True, text=True)


def test_help_names_every_command():
    names = ["help", "env", "demo", "run", "smoke", "lab", "test", "test-gpu", "check", "format", "lock"]
    assert [line.split()[0] for line in make("help").stdout.splitlines()] == names


def test_every_command_makes_the_environment_first(tmp_path):
    planned = make("--dry-run", "demo", f"VENV={tmp_path}/none").stdout
    assert planned.index("uv pip install") < planned.index("python -m kit.pipeline params/demo.yaml")
    assert "pytest" in make("--dry-run", "test", f"VENV={tmp_path}/none").stdout


def test_an_environment_that_is_up_to_date_is_not_made_again(tmp_path):
    write_text(tmp_path / "ready", "")
    assert (
        make("--dry-run", "env", f"VENV={tmp_path}").stdout.splitlines()[-1].endswith("Nothing to be done for 'env'.")
    )


def test_new_versions_make_the_environment_again(tmp_path):
    ready = write_text(tmp_path / "ready", "")
    os.utime(ready, (0, 0))
    assert "uv pip install" in make("--dry-run", "env", f"VENV={tmp_path}").stdout


def test_a_python_that_does_not_suit_is_refused_in_one_line(tmp_path):
    python = write_text(tmp_path / "python", "#!/bin/sh\necho Python 3.8.1\nexit 1\n")
    python.chmod(0o755)
    result = make("env", f"VENV={tmp_path}/none", f"PYTHON={python}")
    assert result.returncode != 0 and not (tmp_path / "none").exists()
    assert result.stderr.startswith("make: expected Python 3.11 or 3.12, found Python 3.8.1; install one, or name it:")


def test_conda_makes_the_same_folder_from_its_file(tmp_path):
    planned = make("--dry-run", "env", f"VENV={tmp_path}/none", "CONDA=mamba").stdout
    assert "mamba env" in planned and "--file environment.yml" in planned and "uv pip" not in planned


def test_continuous_integration_calls_the_commands_of_the_readme():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-1] == "make check test" and "set -euo pipefail" in lines


def test_the_hooks_are_the_tools_of_make_format():
    (local,) = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert [hook["entry"].split()[0] for hook in local["hooks"]] == [
        ".venv/bin/ruff",
        ".venv/bin/ruff",
        ".venv/bin/nbstripout",
    ]


def test_the_licence_is_apache_2():
    assert "Apache License" in (ROOT / "LICENSE").read_text() and PROJECT["license"] == "Apache-2.0"
