import io
import os
import signal
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from kit import pipeline
from kit.files import read_json, write_json, write_text
from kit.params import ROOT, SHORT
from kit.pipeline import (
    Step,
    StepFailed,
    Terminal,
    Watch,
    alone_in,
    clock,
    data_fingerprint,
    failure,
    fingerprint,
    is_finished,
    main,
    mark_of,
    plan,
    progress_line,
    refuse_missing_folders,
    refuse_too_early,
    run_chain,
    summary,
)

# zmq and the client of Jupyter warn about event loops and paths of their own
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def write_notebook(path: Path, *cells: str) -> Path:
    """The first cell is tagged `parameters`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    return write_text(path, nbformat.writes(notebook))


def step_of(folder: Path, *cells: str, name: str = "one", **parameters: object) -> Step:
    notebook = write_notebook(folder / "notebooks" / f"{name}.ipynb", *cells)
    return Step(notebook, folder / "runs" / name, parameters, parameters)


def run(folder: Path, *steps: Step, **options: object) -> str:
    stream = io.StringIO()
    run_chain(list(steps), folder / "data", Terminal(stream), only=[], **options)
    return stream.getvalue()


# --- the plan ---


def test_a_plan_has_the_notebooks_of_the_run_and_gives_each_only_its_own_parameters(tmp_path):
    steps = plan(write_text(tmp_path / "night.yaml", "model: n\nmatch_iou: 0.75\n"))
    assert [step.name for step in steps] == list(SHORT)
    assert steps[1].parameters == {"run": "night", "model": "n"} and steps[3].parameters == {
        "run": "night",
        "match_iou": 0.75,
    }
    assert steps[1].out == ROOT / "runs" / "night" / "03_train" and steps[2].builds_on == (steps[1].out,)


def test_a_step_builds_on_those_before_it_that_the_run_has_in_the_order_of_the_chain(tmp_path):
    names = ["06_ensemble", "05_stage2", "04_pseudo_label", "03_train", "01_eda"]
    steps = {step.name: step for step in plan(write_text(tmp_path / "a.yaml", f"notebooks: {names}\n"))}
    assert list(steps) == sorted(names)
    assert [folder.name for folder in steps["05_stage2"].builds_on] == ["03_train", "04_pseudo_label"]
    assert steps["03_train"].builds_on == ()


def test_a_training_on_a_fold_builds_on_the_notebook_that_made_it(tmp_path):
    steps = plan(write_text(tmp_path / "a.yaml", "train_fold: 0\n"))
    assert steps[1].builds_on == (steps[0].out,)


def test_a_plan_checks_every_parameter_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match=r"ErrorsParams: match_iou: expected at most 1, got 1\.5"):
        plan(write_text(tmp_path / "a.yaml", "match_iou: 1.5\n"))


def test_force_trains_from_the_start_and_nothing_else_changes(tmp_path):
    path = write_text(tmp_path / "a.yaml", "")
    before, after = plan(path)[1], plan(path, force=True)[1]
    assert after.parameters == {"run": "a", "resume": False}
    assert [name for name in after.resolved if after.resolved[name] != before.resolved[name]] == ["resume"]


# --- what is finished ---


def test_the_fingerprint_changes_with_parameters_text_data_and_the_step_before(tmp_path):
    step = step_of(tmp_path, "a = 1", a=1)
    marks = [fingerprint(step, "data"), fingerprint(replace(step, resolved={"a": 2}), "data"), fingerprint(step, "x")]
    write_notebook(step.notebook, "a = 1", "a")
    marks.append(fingerprint(step, "data"))
    write_json(tmp_path / "before" / "done.json", {"seconds": 1})
    marks.append(fingerprint(replace(step, builds_on=(tmp_path / "before",)), "data"))
    assert len(set(marks)) == 5


def test_the_fingerprint_changes_with_the_files_that_parameters_name(tmp_path):
    weights = write_text(tmp_path / "models" / "best.pt", "1")
    step = step_of(tmp_path, "a = 1", models=[str(tmp_path / "models")])
    before = fingerprint(step, "data")
    write_text(weights, "2")
    assert fingerprint(step, "data") != before and mark_of("owner/model") is None


@pytest.mark.parametrize("name", ["instances_train.json", "instances_train.json.gz"])
def test_the_fingerprint_of_the_data_changes_with_its_annotations(tmp_path, name):
    write_json(tmp_path / "annotations" / name, [1])
    before = data_fingerprint(tmp_path)
    write_json(tmp_path / "annotations" / name, [2])
    assert data_fingerprint(tmp_path) != before


def test_the_fingerprint_changes_with_the_images_without_labels(tmp_path):
    write_text(tmp_path / "images" / "unlabelled" / "a.png", "1")
    step = step_of(tmp_path, "a = 1", unlabelled=[], data=str(tmp_path))
    before = fingerprint(step, "data")
    write_text(tmp_path / "images" / "unlabelled" / "b.png", "1")
    assert fingerprint(step, "data") != before


def test_a_notebook_more_in_the_run_does_not_undo_those_that_are_finished(tmp_path):
    step = step_of(tmp_path, "a = 1", notebooks=["01_eda"])
    assert fingerprint(step, "data") == fingerprint(
        replace(step, resolved={"notebooks": ["01_eda", "03_train"]}), "data"
    )


def test_the_fingerprint_does_not_change_with_resume_and_with_stored_outputs(tmp_path):
    step = step_of(tmp_path, "a = 1", resume=True)
    mark = fingerprint(step, "data")
    notebook = nbformat.read(step.notebook, as_version=4)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, step.notebook)
    assert fingerprint(replace(step, resolved={"resume": False}), "data") == mark


def test_a_step_is_finished_when_its_stamp_fits_and_its_notebook_is_there(tmp_path):
    step = step_of(tmp_path, "a = 1")
    write_json(step.out / "done.json", {"fingerprint": "x"})
    assert not is_finished(step, "x")
    write_text(step.executed, "{}")
    assert is_finished(step, "x") and not is_finished(step, "y")


# --- running ---


@pytest.mark.slow
def test_a_notebook_runs_with_its_parameters_and_a_second_call_skips_it(tmp_path):
    step = step_of(tmp_path, "a = 1", "print('a is', a)", a=5)
    assert "one  done in 0:" in run(tmp_path, step)
    assert "a is 5" in nbformat.read(step.executed, as_version=4).cells[-1].outputs[0].text
    assert read_json(step.out / "params.json")["a"] == 5
    assert run(tmp_path, step) == "one  finished before, skipped\n"


@pytest.mark.slow
def test_a_failing_notebook_stops_the_chain_and_tells_its_last_lines_and_where_it_lies(tmp_path):
    bad = step_of(tmp_path, "a = 1", "raise ValueError('boxes must be (N, 4), got (3, 5)')")
    never = step_of(tmp_path, "a = 1", name="two")
    with pytest.raises(StepFailed) as caught:
        run(tmp_path, bad, never)
    lines = str(caught.value).splitlines()
    assert lines[0] == "one stopped" and lines[-1] == f"the executed notebook: {bad.executed}"
    assert lines[-2].strip() == "ValueError: boxes must be (N, 4), got (3, 5)"
    assert bad.executed.is_file() and not (bad.out / "done.json").exists() and not never.out.exists()


@pytest.mark.slow
def test_a_step_that_was_cut_off_runs_again_and_so_does_what_builds_on_it(tmp_path):
    first = step_of(tmp_path, "a = 1")
    second = replace(step_of(tmp_path, "a = 1", name="two"), builds_on=(first.out,))
    run(tmp_path, first, second)
    (first.out / "done.json").unlink()
    assert "skipped" not in run(tmp_path, first, second)


@pytest.mark.slow
def test_a_training_that_ran_out_of_time_is_run_again(tmp_path):
    step = step_of(tmp_path, "a = 1")
    write_json(step.out / "metrics.json", {"finished": False})
    assert "out of time, the same command trains on" in run(tmp_path, step)
    write_json(step.out / "metrics.json", {"finished": True})
    assert "skipped" not in run(tmp_path, step) and "skipped" in run(tmp_path, step)


@pytest.mark.slow
def test_a_kernel_that_is_killed_is_told_in_words(tmp_path):
    step = step_of(tmp_path, "import os, signal", "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(StepFailed, match="one stopped: the kernel died: out of memory, or killed from outside"):
        run(tmp_path, step)


def at_cell(path: Path, act: Callable[[], object]) -> threading.Thread:
    """Acts as soon as a cell has written that file."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_pipeline_lets_the_cell_save_however_long_it_takes(tmp_path, number):
    saves = f"""
        import pathlib, time
        try:
            pathlib.Path("{tmp_path}/begun").touch()
            time.sleep(300)
        except KeyboardInterrupt:
            time.sleep(7)
            pathlib.Path("{tmp_path}/saved").touch()
            raise KeyboardInterrupt("saved after step 3 of 8")
    """
    step = step_of(tmp_path, "a = 1", textwrap.dedent(saves), "never = 1")
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    at_cell(tmp_path / "begun", lambda: os.kill(os.getpid(), number))
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt, match="saved after step 3 of 8"):
        run_chain([step], tmp_path, Terminal(stream), only=[])
    assert (tmp_path / "saved").exists() and "stopping; a training saves after its step" in stream.getvalue()
    assert not (step.out / "done.json").exists()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.slow
def test_the_second_signal_ends_the_kernel_at_once(tmp_path):
    stubborn = f"""
        import os, pathlib, signal, time
        signal.signal(signal.SIGINT, lambda *_: pathlib.Path("{tmp_path}/told").touch())
        pathlib.Path("{tmp_path}/begun").write_text(str(os.getpid()))
        time.sleep(300)
    """
    step = step_of(tmp_path, "a = 1", textwrap.dedent(stubborn))
    interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    at_cell(tmp_path / "begun", interrupt)
    at_cell(tmp_path / "told", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, step)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)


def test_a_signal_between_two_cells_is_not_lost(tmp_path):
    watch = Watch(step_of(tmp_path, "a = 1"), 1, Terminal(io.StringIO()))
    watch.at_cell(None, 3)
    with pytest.raises(KeyboardInterrupt):
        watch.at_cell(None, 4, stopped=[signal.SIGTERM])
    assert watch.cell == 4


def test_only_the_steps_asked_for_are_looked_at(tmp_path):
    stream = io.StringIO()
    run_chain([step_of(tmp_path, "a = 1")], tmp_path, Terminal(stream), only=["two"])
    assert stream.getvalue() == ""


def test_the_end_of_a_long_traceback_is_shown_without_colours(tmp_path):
    step = step_of(tmp_path, "a = 1")
    text = failure(step, "ValueError", "x", [f"\x1b[31mline {index}\x1b[0m" for index in range(100)])
    assert text.splitlines()[1] == "    line 88" and "\x1b" not in text


def test_two_chains_cannot_work_in_one_folder(tmp_path):
    with alone_in(tmp_path), pytest.raises(ValueError, match="another pipeline is at work here"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        assert (tmp_path / ".lock").exists()


# --- the terminal ---


def test_times_read_like_a_clock():
    assert [clock(0), clock(59.6), clock(3661)] == ["0:00", "1:00", "1:01:01"]


def test_where_the_training_is_comes_from_its_progress_file(tmp_path):
    progress = {"step": 5, "steps": 20, "epoch": 1, "epochs": 4, "loss": 12.5, "eta_s": 61}
    path = write_json(tmp_path / "progress.json", progress)
    assert progress_line(tmp_path, since=0) == "  epoch 1/4  step 5/20  loss 12.500  1:01 to go"
    write_json(path, progress | {"ap50": 0.25})
    assert "AP50 0.250" in progress_line(tmp_path, since=0)


def test_of_several_progress_files_the_latest_is_shown(tmp_path):
    old = write_json(tmp_path / "progress.json", {"what": "old", "done": 1, "total": 4, "eta_s": None})
    os.utime(old, (0, 0))
    write_json(tmp_path / "shards" / "progress.json", {"what": "images", "done": 1, "total": 4, "eta_s": 61.0})
    assert progress_line(tmp_path, since=0) == "  images 1/4  1:01 to go"


def test_the_progress_of_an_earlier_run_is_not_shown(tmp_path):
    write_json(tmp_path / "progress.json", {})
    assert progress_line(tmp_path, since=time.time() + 60) == progress_line(tmp_path / "none", since=0) == ""


def test_without_a_terminal_a_state_is_a_plain_line_now_and_then():
    stream = io.StringIO()
    terminal = Terminal(stream, every_s=3600)
    terminal.show("first")
    terminal.shown_at -= 3600
    terminal.show("second")
    terminal.show("third")
    assert stream.getvalue() == "second\n"


def test_on_a_terminal_a_state_replaces_the_one_before():
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as stream:
        terminal = Terminal(stream)
        terminal.show("first")
        terminal.say("last")
        shown = b""
        while not shown.endswith(b"\n"):
            shown += os.read(master, 1000)
        assert shown == b"\r\x1b[Kfirst\r\x1b[Klast\r\n"
    os.close(master)


def test_a_counter_says_how_long_it_will_take():
    stream = io.StringIO()
    terminal = Terminal(stream, every_s=0)
    count = terminal.counter("scenes")
    count(0, 10)
    count(5, 10)
    assert stream.getvalue() == "scenes  0/10  0:00\nscenes  5/10  0:00, 0:00 to go\n"


# --- the end ---


def test_the_summary_names_scores_submission_pictures_and_notebooks(tmp_path):
    write_json(tmp_path / "06_ensemble" / "metrics.json", {"ap50": 0.5, "f1": 0.25, "submission": "submissions/a.zip"})
    write_text(tmp_path / "06_ensemble" / "worst.png", "")
    write_text(tmp_path / "06_ensemble" / "06_ensemble.ipynb", "")
    lines = summary(tmp_path)
    assert lines[0] == "06_ensemble  AP50 0.500  F1 0.250" and lines[1] == "submission  submissions/a.zip"
    assert "1 in" in lines[2] and lines[3].endswith("06_ensemble.ipynb")


def test_the_summary_tells_the_scores_on_the_images_kept_for_the_report(tmp_path):
    write_json(tmp_path / "03_train" / "metrics.json", {"ap": 0.5, "report": {"ap": 0.25, "ap50": 0.375, "f1": 0.125}})
    write_json(tmp_path / "06_ensemble" / "metrics.json", {"ap": 0.5, "report_ap": 0.25})
    told = [line for line in summary(tmp_path) if "report" in line]
    assert [line.split("report  ")[1] for line in told] == ["AP 0.250  AP50 0.375  F1 0.125", "AP 0.250"]


def test_the_summary_tells_which_detector_wins_the_final(tmp_path):
    write_json(tmp_path / "07_jetson_export" / "metrics.json", {"f1": 0.5, "final": "Submit s@960: 27.4 FPS"})
    assert summary(tmp_path)[:2] == ["07_jetson_export  F1 0.500", "  Submit s@960: 27.4 FPS"]


def test_a_step_alone_waits_for_those_it_builds_on(tmp_path):
    step = replace(step_of(tmp_path, "a = 1"), builds_on=(tmp_path / "03_train",))
    with pytest.raises(ValueError, match="one: it builds on 03_train, which this run has not finished"):
        run(tmp_path, step)
    write_json(tmp_path / "03_train" / "metrics.json", {})
    refuse_too_early(step)


def test_missing_folders_are_told_before_anything_runs(tmp_path):
    there = step_of(tmp_path, "a = 1", name="04_pseudo_label", data=str(tmp_path), unlabelled=[])
    with pytest.raises(ValueError, match=r"images/unlabelled: 04_pseudo_label expected this, found nothing"):
        refuse_missing_folders([there])
    (tmp_path / "images" / "unlabelled").mkdir(parents=True)
    refuse_missing_folders([there])
    with pytest.raises(ValueError, match="one expected this"):
        refuse_missing_folders([step_of(tmp_path, "a = 1", data=str(tmp_path / "mien"))])


def test_the_summary_tells_the_gain_of_each_step_whichever_way_it_went(tmp_path):
    header = "step,kept,gain,ap,ap50,f1,gain_low,gain_high\n"
    rows = "single: a,True,,0.25,0.5,0.375,,\nTTA: flip,False,-0.0625,0.25,0.5,0.3125,-0.1,0.02\n"
    write_text(tmp_path / "06_ensemble" / "steps.csv", header + rows)
    assert summary(tmp_path) == [
        "06_ensemble  steps, F1 held out",
        "  single: a  AP 0.250  AP50 0.500  F1 0.375",
        "  TTA: flip  AP 0.250  AP50 0.500  F1 0.312  gain -0.062 (-0.100 to +0.020)  not kept",
    ]


def test_a_bad_params_file_ends_the_command_with_status_1_and_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "ENVIRONMENT", {})
    monkeypatch.setattr(pipeline.signal, "signal", lambda *_: None)
    assert main([str(write_text(tmp_path / "a.yaml", "epcohs: 3\n"))]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/a.yaml: unknown parameter epcohs, did you mean epochs?\n"
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert "expected a file, found nothing" in capsys.readouterr().err
