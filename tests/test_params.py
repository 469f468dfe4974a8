import subprocess
import sys
from dataclasses import fields, replace

import pytest

from kit.files import write_text
from kit.params import (
    NOTEBOOKS,
    ROOT,
    EdaParams,
    EnsembleParams,
    JetsonParams,
    Params,
    TrainParams,
    default_of,
    read_chain,
)

YAML_FILES = sorted((ROOT / "params").glob("*.yaml"))


def message(error: type[Exception], values: dict[str, object], cls: type[Params] = TrainParams) -> str:
    with pytest.raises(error) as caught:
        cls.from_dict(values)
    return str(caught.value)


def test_defaults_make_valid_params_of_every_notebook():
    assert [cls.from_dict({}).out.name for cls in NOTEBOOKS.values()] == list(NOTEBOOKS)


def test_a_misspelt_name_is_refused_with_the_right_one():
    assert message(ValueError, {"epcohs": 3}) == "TrainParams: unknown parameter epcohs, did you mean epochs?"


def test_a_name_that_resembles_none_is_refused_with_all_of_them():
    text = message(ValueError, {"zzz": 3})
    assert text.startswith("TrainParams: unknown parameter zzz; known are run, data, ") and "batch_size" in text


def test_every_misspelt_name_is_told_at_once():
    assert message(ValueError, {"epcohs": 3, "modle": "s"}).splitlines() == [
        "TrainParams: unknown parameter epcohs, did you mean epochs?",
        "TrainParams: unknown parameter modle, did you mean model?",
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lr": "1e-4"}, "TrainParams: lr: expected float, got '1e-4' (in YAML write 1.0e-4, not 1e-4)"),
        ({"lr": "2.5e4"}, "TrainParams: lr: expected float, got '2.5e4' (in YAML write 2.5e+4, not 2.5e4)"),
        ({"lr": True}, "TrainParams: lr: expected float, got True"),
        ({"epochs": "3"}, "TrainParams: epochs: expected int, got '3' (write it without quotes)"),
        ({"epochs": 3.0}, "TrainParams: epochs: expected int, got 3.0 (write 3)"),
        ({"epochs": True}, "TrainParams: epochs: expected int, got True"),
        ({"epochs": None}, "TrainParams: epochs: expected int, got None"),
        (
            {"resume": "true"},
            "TrainParams: resume: expected bool, got 'true' (write True with papermill -p, true in YAML)",
        ),
        ({"resume": 1}, "TrainParams: resume: expected bool, got 1"),
        (
            {"weights": "none"},
            "TrainParams: weights: expected str, got 'none' (write None with papermill -p, null in YAML)",
        ),
        (
            {"run": 7},
            "TrainParams: run: expected str, got 7 (put it in quotes in YAML; with papermill use -r in place of -p)",
        ),
    ],
)
def test_a_wrong_type_is_refused_and_the_slip_is_named(values, text):
    assert message(TypeError, values) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"epochs": 0}, "TrainParams: epochs: expected at least 1, got 0"),
        ({"lr": 0.0}, "TrainParams: lr: expected more than 0, got 0.0"),
        ({"lr": float("nan")}, "TrainParams: lr: expected a finite number, got nan"),
        ({"flip": 1.5}, "TrainParams: flip: expected at most 1, got 1.5"),
        ({"height_px": 650}, "TrainParams: height_px: expected a multiple of 32, got 650"),
        (
            {"run": "../x"},
            "TrainParams: run: expected a plain folder name (letters, digits, _ . + -), got '../x'",
        ),
        ({"data": ""}, "TrainParams: data: expected a text that is not empty, got ''"),
        (
            {"model": "xl"},
            "TrainParams: model: expected one of 'n', 's', 'm', 'l', 'x', got 'xl', did you mean 'x'?",
        ),
        (
            {"batch_size": 16, "accumulate": 3},
            "TrainParams: batch_size: expected a multiple of accumulate=3, got 16",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(values, text):
    assert message(ValueError, values) == text


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"tta_scales": 1.0}, TypeError, "EnsembleParams: tta_scales: expected a list like [a, b], got 1.0"),
        ({"tta_scales": [1.0, "2"]}, TypeError, "tta_scales[1]: expected float, got '2' (write it without quotes)"),
        ({"tta_scales": [1.0, 0.0]}, ValueError, "EnsembleParams: tta_scales[1]: expected more than 0, got 0.0"),
        ({"notebooks": ["03_trian"]}, ValueError, "got '03_trian', did you mean '03_train'?"),
    ],
)
def test_what_is_wrong_in_a_list_is_told_with_its_place(values, error, text):
    assert text in message(error, values, EnsembleParams)


def test_lists_of_two_params_are_two_lists():
    first, second = EnsembleParams(), EnsembleParams()
    first.models.append("x")
    assert second.models == [] and EnsembleParams().models == []


def test_a_key_of_two_notebooks_has_one_type_and_one_default():
    """A flat file gives it to both."""
    seen = {}
    for cls in NOTEBOOKS.values():
        for field in fields(cls):
            here = (field.type, default_of(field))
            assert seen.setdefault(field.name, here) == here, field.name


def test_no_that_yaml_reads_as_false_is_explained():
    text = message(ValueError, {"amp": False})
    assert text.endswith('got False (YAML reads no, off, yes and on as true or false: put it in quotes, "no")')


def test_a_whole_number_does_for_a_float():
    lr = TrainParams.from_dict({"lr": 1}).lr
    assert lr == 1.0 and isinstance(lr, float)


def test_params_are_frozen_and_replace_checks_again():
    params = TrainParams.from_dict({})
    with pytest.raises(AttributeError):
        params.epochs = 3
    assert replace(params, epochs=3).epochs == 3
    with pytest.raises(ValueError):
        replace(params, epochs=0)


def test_the_notebook_form_takes_parameters_and_passes_over_what_ipython_puts_there():
    namespace = {"In": [], "Out": {}, "_i1": "", "get_ipython": print, "TrainParams": TrainParams, "model": "l"}
    assert TrainParams.from_notebook(namespace) == TrainParams(model="l")


def test_the_notebook_form_refuses_a_misspelt_parameter():
    with pytest.raises(ValueError, match="unknown parameter epcohs, did you mean epochs"):
        TrainParams.from_notebook({"epcohs": 3})


def test_a_used_kernel_is_told_its_leftovers():
    with pytest.raises(ValueError, match="found pytest; restart the kernel and run from the top"):
        TrainParams.from_notebook({"model": "l", "pytest": pytest})
    with pytest.raises(ValueError, match="left over from other cells"):
        TrainParams.from_notebook({"zzz": 3})


def test_a_cell_run_twice_passes_over_its_own_result():
    params = EdaParams()
    assert EdaParams.from_notebook({"params": params, "EdaParams": EdaParams}) == params


def test_a_fresh_kernel_holds_nothing_that_the_notebook_form_refuses():
    code = "from kit.params import EdaParams as E; assert E.from_notebook(globals()) == E()"
    subprocess.run([sys.executable, "-W", "ignore", "-m", "IPython", "--no-banner", "-c", code], check=True)


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("cls", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_every_yaml_loads_into_every_notebook(path, cls):
    assert cls.from_yaml(path).run == path.stem


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_yaml_holds_only_what_differs_from_the_defaults(path):
    defaults = {field.name: default_of(field) for cls in NOTEBOOKS.values() for field in fields(cls)}
    assert [name for name, value in read_chain(path).items() if value == defaults[name]] == []


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_yaml_says_at_its_head_what_it_tries(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith(f"# {path.stem}: ") and lines[1].startswith(("# make ", "# python -m kit.pipeline "))


def test_a_chain_file_refuses_what_no_notebook_knows(tmp_path):
    path = write_text(tmp_path / "a.yaml", "epcohs: 3\n")
    with pytest.raises(ValueError, match=r"a\.yaml: unknown parameter epcohs, did you mean epochs\?"):
        EnsembleParams.from_yaml(path)


def test_a_chain_file_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected lines like `epochs: 3`, got list"):
        read_chain(write_text(tmp_path / "a.yaml", "- 3\n"))


def test_an_empty_chain_file_gives_the_defaults_and_the_name_of_the_file(tmp_path):
    assert TrainParams.from_yaml(write_text(tmp_path / "night.yaml", "")) == TrainParams(run="night")


def test_yaml_reads_1e_4_as_text_and_the_mend_is_told(tmp_path):
    with pytest.raises(TypeError, match=r"in YAML write 1\.0e-4, not 1e-4"):
        TrainParams.from_yaml(write_text(tmp_path / "a.yaml", "lr: 1e-4\n"))


def test_what_is_written_is_read_back(tmp_path):
    params = TrainParams(model="n", lr=1e-3, weights=None)
    params.write(tmp_path)
    assert TrainParams.read(tmp_path) == params


def test_the_text_form_marks_what_is_not_the_default():
    lines = repr(TrainParams(epochs=3)).splitlines()
    assert "    epochs=3,  # not 72" in lines and "    batch_size=16," in lines


def test_paths_start_at_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    params = TrainParams(run="night", weights="pyproject.toml")
    assert params.out == ROOT / "runs" / "night" / "03_train"
    assert params.weights_source == str(ROOT / "pyproject.toml")
    assert replace(params, weights="owner/model").weights_source == "owner/model"


def test_only_a_folder_named_scenes_is_drawn():
    assert TrainParams(data="data/scenes_night").draws_scenes
    assert not TrainParams(data="data/fisheye8k").draws_scenes


def test_an_ensemble_reads_the_models_it_is_told_or_those_of_its_run() -> None:
    run = EnsembleParams(notebooks=["03_train", "05_stage2", "06_ensemble"])
    assert run.weights_files == [run.folder_of(name) / "best.pt" for name in ("03_train", "05_stage2")]
    assert EnsembleParams(models=["a/03_train", "b/x.pt"]).weights_files == [
        ROOT / "a/03_train/best.pt",
        ROOT / "b/x.pt",
    ]
    assert EnsembleParams(notebooks=["06_ensemble"]).weights_files == []


def test_the_last_training_of_the_run_is_deployed_or_those_that_are_named() -> None:
    run = JetsonParams(notebooks=["03_train", "05_stage2", "07_jetson_export"])
    assert run.weights_files == [run.folder_of("05_stage2") / "best.pt"]
    assert JetsonParams(notebooks=["03_train"]).weights_files == [run.folder_of("03_train") / "best.pt"]
    assert JetsonParams(deploy_models=["a/03_train", "b/x.pt"]).weights_files == [
        ROOT / "a/03_train/best.pt",
        ROOT / "b/x.pt",
    ]


def test_results_of_others_need_a_twin_on_the_part_that_is_sent() -> None:
    assert EnsembleParams(results=["a.json"]).results_submit == []  # val is sent: the file itself
    text = message(ValueError, {"results": ["a.json"], "submit": "test"}, EnsembleParams)
    assert "results_submit: expected 1 files, the twins of results on the part test, got 0" in text


def test_a_file_with_a_wrong_value_is_named(tmp_path):
    path = write_text(tmp_path / "run.yaml", "epochs: many\n")
    with pytest.raises(TypeError, match=r"run\.yaml: TrainParams: epochs: expected int"):
        TrainParams.from_yaml(path)
