"""The command: what a person and a program see of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from specimens import cells

from cvdm.checkpoint import load_checkpoint
from cvdm.errors import ConfigError
from cvdm.images import read_annotations, read_image, write_tiff
from flows.cli import app
from flows.console import Answer, perform
from flows.launch import launch
from flows.registry import Registry

TASK = "test-cells"


@pytest.fixture
def cvdm(capfd):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments])
        return (int(end.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def registered(project_settings, tiny_checkpoint_dir):
    """A store with one version of one task, which serves."""
    registry = Registry.open(project_settings)
    run = registry.runs.start(TASK, "a run", params={}, tags={})
    registry.runs.log_series(run, [(0, {"test/psnr_fit": 37.5, "loss/total": 1.0})])
    registry.runs.finish(run.run_id)
    number = registry.models.register(
        TASK,
        run,
        tiny_checkpoint_dir,
        {"dataset_digest": "d", "verdict": "promote", "interval_guarantee": "two fields' worth"},
    )
    registry.models.set_alias(TASK, "champion", number)
    return project_settings


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "in.tif"
    write_tiff(path, np.round(cells(np.random.default_rng(1), 40)).astype(np.uint8))
    return path


def test_help_is_quick_because_nothing_heavy_is_imported():
    """Importing the command imports no tracker, orchestrator, server, validator or network library."""
    heavy = {"mlflow", "prefect", "bentoml", "great_expectations", "torch", "pandas", "matplotlib"}
    code = f"import sys, flows.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_told_alone(cvdm):
    """On standard output, as installed."""
    from importlib.metadata import version

    assert cvdm("--version") == (0, f"cvdm {version('cvdm-platform')}\n", "")


def test_every_command_of_the_platform_is_there(cvdm):
    """The names are fixed."""
    _, text, _ = cvdm("--help")
    for name in (
        *("ingest", "validate", "data", "retrain", "models", "promote", "rollback"),
        *("export", "serve", "up", "reconstruct", "demo", "doctor", "audit"),
    ):
        assert f"\n  {name} " in text


def test_a_program_reads_one_document_whatever_others_print():
    """With --json, prints of libraries and of child processes go to standard error."""
    code = """
import subprocess, sys
from flows.console import Answer, perform
def chatty():
    print("from a library")
    subprocess.run(["echo", "from a child"])
    return Answer({"a": 1}, "for people")
sys.exit(perform(chatty, "chatty", True, False))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": 1}
    assert "from a library" in done.stderr and "from a child" in done.stderr


def test_a_user_s_mistake_is_one_paragraph(capfd):
    """Expected, actual, remedy; exit code 1; no traceback unless asked for; as JSON too."""

    def fail() -> Answer:
        raise ConfigError("a cat", "a dog", "Get a cat.")

    assert perform(fail, "pet", False, False) == 1
    out, err = capfd.readouterr()
    assert (out, err) == ("", "cvdm pet: Expected a cat; got a dog. Get a cat.\n")
    assert perform(fail, "pet", True, True) == 1
    out, err = capfd.readouterr()
    assert json.loads(out) == {
        "error": "ConfigError",
        "expected": "a cat",
        "actual": "a dog",
        "remedy": "Get a cat.",
    }
    assert "Traceback" in err


def test_a_bug_is_one_paragraph_too(capfd):
    """What nobody foresaw is named, with the way to see more."""

    def fail() -> Answer:
        raise ZeroDivisionError("division by zero")

    assert perform(fail, "divide", True, False) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["error"] == "UnexpectedError"
    assert "ZeroDivisionError" in err and "--traceback" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("choice", "message"), [({"preset": "huge"}, "presets"), ({"init": "somewhere"}, "a start out of auto")]
)
def test_a_wrong_retraining_is_refused_before_anything_is_started(
    project_settings, monkeypatch, choice, message
):
    """A server takes its time, and would answer the same."""
    (project_settings.data_dir / "cells").mkdir(parents=True)
    monkeypatch.setattr("flows.launch.orchestrator", lambda *_: pytest.fail("started"))
    with pytest.raises(ConfigError, match=message):
        launch(project_settings, "cells", **{"preset": "tiny"} | choice)


def test_an_interruption_is_no_crash(capfd):
    """Ctrl-C ends with code 130 and a word."""

    def wait() -> Answer:
        raise KeyboardInterrupt

    assert perform(wait, "retrain", False, False) == 130
    assert "run it again" in capfd.readouterr().err
    assert perform(wait, "retrain", True, False) == 130
    assert json.loads(capfd.readouterr().out)["error"] == "Interrupted"


def test_numbers_that_are_not_finite_are_null_for_programs(capfd):
    """NaN and Infinity are no JSON, and strict readers refuse the whole document."""
    assert (
        perform(lambda: Answer({"a": [float("nan")], "b": (1.5, -float("inf"))}, ""), "x", True, False) == 0
    )
    out, _ = capfd.readouterr()
    assert json.loads(out, parse_constant=pytest.fail) == {"a": [None], "b": [1.5, None]}


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate"],
        ["validate", "--name-pattern", "(?P<field>.+)"],
        ["retrain"],
        ["no-such-command"],
        ["reconstruct", "a.tif", "-o", "b.tif"],
    ],
)
def test_a_wrong_call_ends_with_code_2(cvdm, project_settings, arguments):
    """Usage is shown on standard error."""
    code, out, err = cvdm(*arguments)
    assert code == 2 and out == "" and "Usage" in err


@pytest.mark.parametrize(
    "arguments",
    [["validate"], ["retrain"], ["retrain", "--nonsense"], ["reconstruct", "a.tif", "-o", "b.tif"]],
)
def test_a_wrong_call_is_one_document_for_programs(cvdm, project_settings, arguments):
    """Refused by typer or by the command itself: exit code 2, and the reason as JSON."""
    code, out, err = cvdm(*arguments, "--json")
    assert code == 2 and json.loads(out)["error"] == "UsageError" and "Usage" in err


def test_models_are_listed_for_people_and_programs(cvdm, registered):
    """Version, alias, verdict, test metrics, time, digest, the interval's promise; no other metrics."""
    code, out, _ = cvdm("models", "--task", TASK, "--json")
    (version,) = json.loads(out)["versions"]
    assert code == 0
    assert (version["version"], version["aliases"], version["verdict"]) == (1, ["champion"], "promote")
    assert version["metrics"] == {"psnr_fit": 37.5} and version["dataset_digest"] == "d"
    assert version["created"].endswith("+00:00")
    assert version["interval_guarantee"] == "two fields' worth"
    _, out, _ = cvdm("models")
    assert "champion" in out and "37.5" in out and "interval: two fields' worth" in out


def test_what_a_person_promoted_against_the_gate_is_told(cvdm, registered):
    """The table has the gate's word, and below it who decided otherwise and why."""
    Registry.open(registered).models.set_tags(TASK, 1, {"gate_verdict": "reject"})
    assert cvdm("promote", "--task", TASK, "--version", "1", "--reason", "seen by eye")[0] == 0
    _, out, _ = cvdm("models")
    table, _, below = out.partition("promote by")
    assert "reject" in table and ", against the gate: seen by eye" in below


def test_an_unknown_task_is_told_from_an_empty_one(cvdm, registered):
    """A misspelt task lists those there are."""
    code, out, err = cvdm("models", "--task", "test-cell", "--json")
    assert code == 1 and json.loads(out)["actual"] == "'test-cell'" and TASK in err


def test_export_writes_a_checkpoint_and_never_into_something(cvdm, registered, tmp_path):
    """A new or empty folder gets a directory that loads; a folder with content is refused."""
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "new", tmp_path / "empty"):
        code, out, _ = cvdm("export", "--task", TASK, target, "--json")
        assert code == 0 and json.loads(out)["version"] == 1
        assert load_checkpoint(target).record.task == TASK
    code, _, err = cvdm("export", "--task", TASK, tmp_path / "new")
    assert code == 1 and "empty or new folder" in err


def test_one_image_is_restored_by_version_or_checkpoint(
    cvdm, registered, tiny_checkpoint_dir, image, tmp_path
):
    """Both give the same pixels; the file tells the version; the input is never replaced."""
    by_version, by_checkpoint = tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"
    code, out, _ = cvdm("reconstruct", image, "-o", by_version, "--task", TASK, "--seed", 3, "--json")
    (made,) = json.loads(out)["restored"]
    assert code == 0 and (made["version"], made["output"]) == ("1", str(by_version))
    assert (
        cvdm("reconstruct", image, "-o", by_checkpoint, "--checkpoint", tiny_checkpoint_dir, "--seed", 3)[0]
        == 0
    )
    assert (tifffile.imread(by_version) == tifffile.imread(by_checkpoint)).all()
    assert tifffile.imread(by_version).shape == (4, 40, 40)
    assert read_annotations(by_version)["version"] == "1"
    code, _, err = cvdm("reconstruct", image, "-o", image, "--task", TASK)
    assert code == 1 and "other than the input" in err


def test_the_device_of_the_settings_restores(
    cvdm, registered, tiny_checkpoint_dir, image, tmp_path, monkeypatch
):
    """A GPU that is asked for and not there is not silently replaced, by version or by checkpoint."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CVDM_DEVICE", "cuda")
    for choice in (("--task", TASK), ("--checkpoint", tiny_checkpoint_dir)):
        code, _, err = cvdm("reconstruct", image, "-o", tmp_path / "out.tif", *choice)
        assert code == 1 and "CVDM_DEVICE" in err


def test_no_pixel_size_is_made_up(cvdm, project_settings, tiny_checkpoint_dir, image, tmp_path):
    """An input without one gives a result without one, whatever the model was trained on."""
    assert load_checkpoint(tiny_checkpoint_dir).record.pixel_size_um
    result = tmp_path / "out.ome.tif"
    assert cvdm("reconstruct", image, "-o", result, "--checkpoint", tiny_checkpoint_dir)[0] == 0
    assert read_image(image).pixel_size_um is None
    with tifffile.TiffFile(result) as file:
        assert "PhysicalSize" not in file.ome_metadata


def test_a_folder_is_restored_by_a_checkpoint_and_again_at_no_cost(
    cvdm, project_settings, tiny_checkpoint_dir, tmp_path
):
    """Names and places as in the folder; a bad image is told and ends with 1; what is there is left alone."""
    folder = tmp_path / "in"
    for name in ("a.tif", "b.tif", "day2/a.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_tiff(folder / name, np.round(cells(np.random.default_rng(len(name)), 40)))
    (folder / "broken.tif").write_bytes(b"II*\0broken")
    call = ("reconstruct", folder, "-o", tmp_path / "out", "--checkpoint", tiny_checkpoint_dir, "--json")
    code, out, _ = cvdm(*call)
    answer = json.loads(out)
    assert code == 1 and len(answer["restored"]) == 3 and len(answer["failed"]) == 1
    assert "broken.tif" in answer["failed"][0]["image"]
    assert tifffile.imread(tmp_path / "out" / "day2" / "a.ome.tif").shape == (4, 40, 40)
    kept, changed = tmp_path / "out" / "a.ome.tif", tmp_path / "out" / "b.ome.tif"
    before = kept.read_bytes()
    os.utime(kept, (1, 1))
    changed.write_bytes(b"something else")
    (folder / "broken.tif").unlink()
    assert cvdm(*call)[0] == 0
    assert kept.stat().st_mtime == 1 and kept.read_bytes() == before
    assert tifffile.imread(changed).shape == (4, 40, 40)


def test_keys_are_made_listed_and_revoked(cvdm, project_settings):
    """The key is told once, to people and to programs; a name that is taken is a message."""
    code, out, _ = cvdm("keys", "create", "ann", "--operator", "--images", "5", "--json")
    key = json.loads(out)["key"]
    assert code == 0 and key.startswith("cvdm_")
    code, out, _ = cvdm("keys", "list", "--json")
    (listed,) = json.loads(out)["keys"]
    assert (listed["name"], listed["role"], listed["images"], listed["revoked"]) == (
        "ann",
        "operator",
        5,
        None,
    )
    assert key not in out and (project_settings.mlruns_dir / "keys.db").is_file()
    assert "new name" in cvdm("keys", "create", "ann")[2]
    code, out, _ = cvdm("keys", "revoke", "ann")
    assert code == 0 and str(project_settings.mlruns_dir / "keys.db") in out  # no key is left
    assert "revoked" in cvdm("keys", "list")[1]
    assert cvdm("keys", "calls")[1].strip() == "No call."


def test_without_a_service_the_remedy_is_named(cvdm, project_settings, image, tmp_path, monkeypatch):
    """A closed port is a paragraph, and no file is written; who asks a service needs no checkout."""
    monkeypatch.delenv("CVDM_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    code, _, err = cvdm("reconstruct", image, "-o", tmp_path / "out.tif", "--server", "http://127.0.0.1:9")
    assert code == 1 and "cvdm up" in err and not (tmp_path / "out.tif").exists()


def test_rollback_without_a_previous_version_says_so(cvdm, registered):
    """Nothing to go back to is a message, not a crash."""
    code, _, err = cvdm("rollback", "--task", TASK, "--reason", "looks odd")
    assert code == 1 and "no previous version" in err


def test_the_audit_log_is_listed_and_proved(cvdm, registered, project_settings):
    """Decisions in order; a changed line ends with 1 and is named, for people and programs."""
    assert cvdm("promote", "--task", TASK, "--version", "1", "--reason", "seen by eye")[0] == 0
    code, out, _ = cvdm("audit", "log", "--task", TASK, "--json")
    entry = json.loads(out)["entries"][-1]
    assert code == 0 and (entry["action"], entry["reasons"]) == ("promote", ["seen by eye"])
    code, out, _ = cvdm("audit", "verify", "--json")
    document = json.loads(out)
    assert code == 0 and document["ok"]
    assert cvdm("audit", "verify", "--head", document["head"])[0] == 0
    path = project_settings.audit_file
    path.write_bytes(path.read_bytes().replace(b"seen by eye", b"seen by two"))
    code, out, _ = cvdm("audit", "verify")
    assert code == 1 and "version 1 names: the log was replaced, or its beginning changed" in out


def test_validate_ends_with_1_and_still_reports(cvdm, project_settings, cells_dataset, tmp_path):
    """A failing dataset gives its report and a page, not an error; a missing one is an error."""
    code, out, _ = cvdm("validate", cells_dataset, "--json")
    document = json.loads(out)
    assert code == 0 and document["ok"] and document["accepted"] == document["pairs"] == 12
    page = Path(document["page"])
    assert page.is_file() and (page.parent / "data-docs" / "index.html").is_file()
    assert json.loads(page.with_name("report.json").read_text())["ok"]
    params = project_settings.params_file
    policy = "validation: {snr_gain_db: {warn: 200, refuse: 100}}"
    params.write_text(params.read_text().replace("validation: {}", policy))
    code, out, _ = cvdm("validate", cells_dataset, "--json")
    rejected = json.loads(out)["rejected"]
    assert code == 1 and {one["check"] for one in rejected} == {"snr-gain-db"}
    assert set(rejected[0]) == {"name", "check", "expected", "actual", "remedy"}
    code, out, _ = cvdm("validate", tmp_path / "nowhere", "--json")
    assert code == 1 and json.loads(out)["error"] == "DatasetError"


@pytest.mark.parametrize(
    "odd", sorted((Path(__file__).parents[1] / "data" / "odd").glob("*.*")), ids=lambda p: p.name
)
def test_validate_looks_at_one_image(cvdm, project_settings, odd):
    """Any file: 0 and what it is, or 1 and why not; never a traceback."""
    code, out, err = cvdm("validate", odd, "--json")
    document = json.loads(out)
    assert code == (0 if document["ok"] else 1) and "Traceback" not in err
    assert document["ok"] == (not document["rejected"]) and all(one["remedy"] for one in document["rejected"])


def test_one_image_is_described_in_words(cvdm, project_settings):
    """What it is first, then what is wrong with it."""
    odd = Path(__file__).parents[1] / "data" / "odd" / "ome_ZYX_uint16_with_pixelsize.ome.tif"
    code, text, _ = cvdm("validate", odd)
    assert code == 1 and text.startswith(f"{odd.name}: refused")
    assert "axes: ZYX, 3 x 100 x 64" in text and "pixel size: 0.1 x 0.1 µm" in text and "(plane)" in text


def test_validate_judges_a_batch_beside_the_task(cvdm, project_settings, cells_dataset, tmp_path):
    """As an ingest would, without taking anything in: known, clashing and new pairs are told apart."""
    home = project_settings.dataset_dir(TASK)
    shutil.copytree(cells_dataset, home)
    batch = tmp_path / "batch"
    for side in ("low", "high"):
        (batch / side).mkdir(parents=True)
        shutil.copy(home / side / "f00_c0.tif", batch / side / "f00_c0.tif")  # known
        shutil.copy(home / side / "f02_c0.tif", batch / side / "f01_c0.tif")  # a name that is taken
        shutil.copy(home / side / "f03_c0.tif", batch / side / "f90_c0.tif")  # a copy
    write_tiff(batch / "low" / "f91_c0.tif", np.zeros((96, 96), np.uint8))
    code, out, _ = cvdm("validate", batch, "--task", TASK, "--json")
    document = json.loads(out)
    assert code == 1 and (document["pairs"], document["known"], document["accepted"]) == (4, 1, 1)
    assert {(one["name"], one["check"]) for one in document["rejected"]} == {
        ("f01_c0", "name-taken"),
        ("f90_c0", "copy"),
        ("f91_c0", "complete"),
    }
    assert len(list((home / "low").iterdir())) == 12


def test_a_task_s_own_folder_is_no_batch(cvdm, project_settings, cells_dataset):
    """Named with its task it is judged as a dataset: a pair that was damaged there is not `known`."""
    home = project_settings.dataset_dir(TASK)
    shutil.copytree(cells_dataset, home)
    (home / "low" / "f03_c0.tif").write_bytes(b"")
    code, out, _ = cvdm("validate", home, "--task", TASK, "--json")
    assert code == 1 and json.loads(out)["rejected"][0]["name"] == "f03_c0"


def test_validate_judges_a_first_batch_of_a_new_task(cvdm, project_settings, cells_dataset, tmp_path):
    """With no more than a pattern, as its ingest would; nothing is taken in."""
    batch = Path(shutil.copytree(cells_dataset, tmp_path / "batch"))
    (batch / "card.yaml").unlink()
    (batch / "low" / "f03_c0.tif").write_bytes(b"")
    pattern = r"(?P<field>f\d+)_c\d+"
    code, out, _ = cvdm("validate", batch, "--task", "new-cells", "--name-pattern", pattern, "--json")
    document = json.loads(out)
    assert code == 1 and (document["pairs"], document["accepted"]) == (12, 11)
    assert [(one["name"], one["check"]) for one in document["rejected"]] == [("f03_c0", "readable")]
    assert "f03_c0" in Path(document["page"]).read_text()
    card = Path(shutil.copy(cells_dataset / "card.yaml", tmp_path / "our.yaml"))
    card.write_text(card.read_text().replace("task: test-cells", "task: new-cells"))
    code, out, _ = cvdm("validate", batch, "--task", "new-cells", "--card", card, "--json")
    assert code == 1 and json.loads(out)["accepted"] == 11
    assert not project_settings.dataset_dir("new-cells").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nothing at nowhere"),
        (["--task", "no-such-task"], "the tasks are: test-cells"),
        (["empty"], "Name the task with --task (test-cells, or the name of a new one)"),
        (["data/test-cells", "--task", "other"], "a dataset of test-cells"),
        (["empty", "--task", "new-cells"], "a folder empty/high; got none"),
        (["batch", "--task", "new-cells"], "For 'f00_c0', --name-pattern '(?P<field>f\\d+)_c\\d+'"),
        (["batch", "--task", "new-cells"], "it fits 12 of 12 names"),
    ],
)
def test_validate_says_what_it_cannot_find(
    cvdm, project_settings, cells_dataset, monkeypatch, arguments, told
):
    """A typo of a path, an unknown task and a folder that is no dataset, with what is known."""
    shutil.copytree(cells_dataset, project_settings.dataset_dir(TASK))
    (project_settings.home / "empty" / "low").mkdir(parents=True)
    shutil.copytree(
        cells_dataset, project_settings.home / "batch", ignore=shutil.ignore_patterns("card.yaml")
    )
    monkeypatch.chdir(project_settings.home)
    code, _, err = cvdm("validate", *arguments)
    assert code == 1 and told in err


@pytest.mark.parametrize("arguments", [("promote", "--version", "1"), ("rollback",)])
def test_a_person_must_say_why(cvdm, registered, arguments):
    """A blank reason is refused before anything moves or is entered."""
    code, _, err = cvdm(*arguments, "--task", TASK, "--reason", "  ")
    assert code == 2 and "'--reason': it is empty" in err
    assert Registry.open(registered).audit.entries() == ()


def test_a_retraining_of_an_unknown_task_says_which_are_known(cvdm, project_settings, cells_dataset):
    """At once: nothing is started, nothing is made."""
    shutil.copytree(cells_dataset, project_settings.dataset_dir(TASK))
    code, _, err = cvdm("retrain", "--task", "test-cels")
    assert code == 1 and f"a task with data: {TASK}; got 'test-cels'" in err
    assert not (project_settings.mlruns_dir / "prefect").exists()


def test_drift_is_told_against_the_champion_s_data(cvdm, registered, cells_dataset):
    """Without a table of its data there is nothing to compare; with one, new fields are compared."""
    home = registered.dataset_dir(TASK)
    shutil.copytree(cells_dataset, home)
    code, out, _ = cvdm("validate", "--task", TASK, "--drift", "--json")
    report = json.loads(out)
    assert code == 0 and report["drift"] is None
    registry = Registry.open(registered)
    run_id = registry.models.version(TASK, "champion").run_id
    old = [row for row in report["table"] if row["field"] < "f06"]
    registry.artifacts.log_json(run_id, {"table": old}, "validation/report.json")
    code, out, _ = cvdm("validate", "--task", TASK, "--drift", "--json")
    drift = json.loads(out)["drift"]
    assert (drift["reference_fields"], drift["new_fields"], drift["shifted"]) == (6, 6, [])
    code, _, _ = cvdm("validate", home, "--drift")
    assert code == 2


def test_ctrl_c_while_workers_start_leaves_no_stacks(tmp_path):
    """The terminal interrupts every process at once: workers are silent, the command says it in a line."""
    data = Path(__file__).parents[2] / "data" / "fmd-confocal-nuclei"
    command = [sys.executable, "-m", "flows.cli", "validate", str(data)]
    environment = {**os.environ, "CVDM_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    (tmp_path / "params.yaml").write_text("presets: {}\ngate: {}\nvalidation: {}\n")
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    own = psutil.Process(process.pid)
    deadline = time.monotonic() + 120
    while not [child for child in own.children() if "spawn_main" in " ".join(child.cmdline())]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130
    assert "interrupted; run it again" in told and "Traceback" not in told


def test_train_is_the_command_of_the_science(tmp_path):
    """Options are passed on as they are, its help and exit codes too."""
    command = [sys.executable, "-m", "flows.cli", "train"]
    told = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "--resume" in told.stdout
    options = ["--data", str(tmp_path), "--preset", "none", "-o", str(tmp_path / "model"), "--resume"]
    refused = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 1 and "params.yaml" in refused.stderr and "Traceback" not in refused.stderr
