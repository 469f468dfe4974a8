"""The TensorRT API that kit calls, held against NVIDIA's own Python bindings of the oldest and the newest version.

The bindings import without TensorRT's libraries when a few symbols stand in for them. That checks names, signatures and
numbers; nothing can be run.
"""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kit.deploy import engine, tensorrt
from kit.params import ROOT
from tests.deploy import fake_tensorrt

ENDS = {"10.13.2.6": 10, "11.4.0.106": 11}  # version: of the libraries
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
SYMBOLS = """
    createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL createNvOnnxParser_INTERNAL
    createNvOnnxParserRefitter_INTERNAL getNvOnnxParserVersion getPluginRegistry getBuilderPluginRegistry
    initLibNvInferPlugins
"""
DESCRIBE = """
import json, tensorrt_bindings as trt
classes = {name: value for name, value in vars(trt).items() if isinstance(value, type)}
print(json.dumps({
    "version": trt.__version__,
    "strongly_typed": int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
    "classes": {name: {each: getattr(value, each).__doc__ for each in dir(value)} for name, value in classes.items()},
}))
"""
LISTEN = """
heard, told = [], []
listener = new_listener(trt, heard.append)
for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
    listener.log(getattr(trt.ILogger, severity), severity)
monitor = new_monitor(trt, lambda done, total: told.append(done))
monitor.phase_start("build", None, 2)
assert monitor.step_complete("build", 0)
monitor.phase_finish("build")
assert isinstance(listener, trt.ILogger) and isinstance(monitor, trt.IProgressMonitor)
try:
    trt.Builder(listener)
except TypeError as error:
    refused = str(error)
print(json.dumps([heard, listener.errors, told, refused]))
"""
REMOVED = """
    BuilderFlag.FP16 BuilderFlag.BF16 BuilderFlag.INT8 BuilderFlag.FP8 BuilderFlag.INT4 BuilderFlag.WEIGHTLESS
    BuilderFlag.OBEY_PRECISION_CONSTRAINTS BuilderFlag.PREFER_PRECISION_CONSTRAINTS Builder.platform_has_fast_fp16
    NetworkDefinitionCreationFlag.EXPLICIT_BATCH IBuilderConfig.int8_calibrator IBuilderConfig.set_calibration_profile
    OnnxParser.supports_model ICudaEngine.device_memory_size ITensor.set_dynamic_range IInt8EntropyCalibrator2
"""
BUILDER = {  # names of variables in the sources: what they hold
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
}
CALLS = {
    "get_input": "ITensor",
    "get_output": "ITensor",
    "get_error": "ParserError",
    "get_timing_cache": "ITimingCache",
}
RUNNER = {"engine": "ICudaEngine", "context": "IExecutionContext", "trt_runtime": "Runtime"}
SOURCES = {
    ROOT / "kit" / "deploy" / "tensorrt.py": BUILDER | CALLS | {"error": "ParserError"},
    ROOT / "kit" / "deploy" / "tensorrt_runner.py": RUNNER,
    ROOT / "kit" / "deploy" / "engine.py": {},
    ROOT / "jetson" / "engine.py": BUILDER | CALLS | {f"self.{name}": kind for name, kind in RUNNER.items()},
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=ENDS)
def api(request, tmp_path_factory) -> dict:
    """version, classes: {class: {attribute: its docstring}}."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc to make stand-ins of TensorRT's libraries with")
    folder = tmp_path_factory.mktemp("tensorrt")
    wheel = download(f"tensorrt-cu13-bindings=={request.param}", folder)
    zipfile.ZipFile(wheel).extractall(folder)
    stand_in(folder, ENDS[request.param])
    return told(folder, DESCRIBE) | {"asked": request.param, "folder": folder}


def told(folder: Path, script: str):
    """What a script prints beside the bindings, as JSON."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def download(requirement: str, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
    ]
    done = subprocess.run([*command, requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"pip cannot have {requirement}: {(done.stderr.strip() or 'nothing found').splitlines()[-1]}")
    return wheels[0]


def stand_in(folder: Path, major: int) -> None:
    source = folder / "stand_in.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in SYMBOLS.split()))
    for name in LIBRARIES:
        command = ["gcc", "-shared", "-fPIC", str(source), "-o", str(folder / f"lib{name}.so.{major}")]
        subprocess.run(command, check=True)


def test_these_are_the_bindings_asked_for(api):
    assert api["version"] == api["asked"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_name_of_the_module_is_there(api, source):
    used = sorted(module_names(ast.parse(source.read_text())))
    assert used
    assert [name for name in used if not is_there(api, name)] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_method_that_is_called_is_there_and_takes_these_arguments(api, source):
    tree, objects = ast.parse(source.read_text()), SOURCES[source]
    used = list(members(tree, objects))
    assert bool(used) == bool(objects)
    assert [f"{owner}.{name}" for owner, name, _ in used if name not in api["classes"][owner]] == []
    calls = [(owner, name, call) for owner, name, call in [*used, *constructions(tree)] if call is not None]
    assert [f"{owner}.{name}" for owner, name, call in calls if not fits(call, api["classes"][owner][name])] == []


def test_what_the_newest_has_removed_is_used_nowhere(api):
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    used = {name for tree in trees.values() for name in module_names(tree)}
    used |= {f"{owner}.{name}" for path, tree in trees.items() for owner, name, _ in members(tree, SOURCES[path])}
    assert len(used) > 30 and used & set(REMOVED.split()) == set()
    there = [name for name in REMOVED.split() if is_there(api, name)]
    assert there == ([] if ENDS[api["asked"]] == 11 else REMOVED.split())


def test_the_number_of_the_strongly_typed_flag_changes_so_that_the_code_must_ask_for_it(api):
    assert api["strongly_typed"] == {10: 1, 11: 0}[ENDS[api["asked"]]]
    assert "1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)" in next(iter(SOURCES)).read_text()


def test_the_real_api_takes_our_logger_and_our_progress_monitor(api):
    """Their code as it stands, without kit around it, which would load torch."""
    parts = (engine.ignore, engine.new_listener, tensorrt.Phases, tensorrt.new_monitor)
    head = "from __future__ import annotations\nimport json, threading\nimport tensorrt_bindings as trt\n"
    heard, errors, steps, refused = told(api["folder"], head + "\n".join(map(inspect.getsource, parts)) + LISTEN)
    assert heard == ["INTERNAL_ERROR", "ERROR", "WARNING"] and errors == heard[:2] and steps == [500, 1000]
    assert "nullptr" in refused  # by the stand-in of the library, after the bindings had taken the logger


def test_the_fake_of_the_other_tests_has_nothing_that_tensorrt_has_not(api):
    fake = fake_tensorrt.module([], {})
    for name, owner in vars(fake).items():
        if isinstance(owner, type):
            public = {each for each in vars(owner) if not each.startswith("_")} - fake_tensorrt.OWN
            assert public <= set(api["classes"][name]), name


def test_a_call_with_too_few_or_too_many_arguments_would_be_seen():
    documentation = "set(self: a.B, name: str, most: int = 0) -> None\n\n  Sets.\n"
    calls = [ast.parse(text).body[0].value for text in ("b.set()", "b.set(1)", "b.set(1, most=2)", "b.set(1, 2, 3)")]
    assert [fits(call, documentation) for call in calls] == [False, True, True, False]


def module_names(tree: ast.AST) -> set[str]:
    """Such as BuilderFlag.TF32, of trt.BuilderFlag.TF32."""
    found = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name.removeprefix("trt.") for name in found if re.fullmatch(r"trt\.\w+(\.\w+)?", name)}


def is_there(api: dict, name: str) -> bool:
    owner, _, member = name.partition(".")
    return owner == "__version__" or (owner in api["classes"] and (not member or member in api["classes"][owner]))


def members(tree: ast.AST, objects: dict[str, str]):
    """(class, attribute, its call or None) of each use of one of the objects."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            kind = objects.get(name) or objects.get(ast.unparse(owner))
            if kind:
                yield kind, node.attr, calls.get(id(node))


def constructions(tree: ast.AST):
    """(class, __init__, call) of each trt.Class(...)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.fullmatch(r"trt\.[A-Z]\w+", ast.unparse(node.func)):
            yield ast.unparse(node.func).removeprefix("trt."), "__init__", node


def fits(call: ast.Call, documentation: str) -> bool:
    """Whether one of the signatures that pybind writes down takes so many arguments."""
    given = len(call.args) + len(call.keywords)
    for listed in re.findall(r"^(?:\d+\. )?\w+\(self: [\w.]+(.*)\) -> ", documentation, re.MULTILINE):
        arguments = re.findall(r", (\w+): [^,=]+(= )?", listed)
        if sum(not default for _, default in arguments) <= given <= len(arguments):
            return True
    return False
