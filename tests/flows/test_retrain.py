"""The flow on a small real dataset, with a real Prefect server and a real SQLite MLflow store."""

from __future__ import annotations

import html
import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from specimens import cells, make_checkpoint, make_dataset

from cvdm.checkpoint import save_checkpoint
from cvdm.errors import ConfigError
from cvdm.images import read_image
from cvdm.training import train as training_steps
from cvdm.training_state import read_state
from flows import job as jobs
from flows.catalogue import catalogue
from flows.device_lock import BusyError, device_lock
from flows.earlier import RetrainResult, finished, take_up
from flows.evaluate import DRIFT_METRIC, PER_FIELD
from flows.flow_artifacts import GATE_PAGE
from flows.job import Job, chosen_device
from flows.model_card import FILE
from flows.promote import promote
from flows.registry import RESULT, AwayError, Registry, model_name
from flows.registry.artifacts import Artifacts
from flows.registry.tracking import Runs
from flows.retrain import EVENTS, retrain
from flows.settings import Settings
from flows.train import ENVIRONMENT, RUN_NOTE, StepLog, closing, open_run, start_over
from flows.usage import KWH
from flows.validation import ValidationError

TASK = "test-cells"


def give_data(settings: Settings, dataset: Path) -> Path:
    root = settings.dataset_dir(TASK)
    shutil.copytree(dataset, root)
    return root


@pytest.fixture(scope="module")
def six_fields(tmp_path_factory) -> Path:
    """A dataset of six fields, two of them for testing; read only."""
    return make_dataset(tmp_path_factory.mktemp("data") / TASK, fields=6)


@dataclass(frozen=True)
class Story:
    """A retraining that is interrupted, continued, asked for again and forced; made once for this module."""

    settings: Settings
    registry: Registry
    interrupted: str
    """Run of the interrupted attempt."""
    status: str
    """What that run was closed as."""
    first: RetrainResult
    again: RetrainResult
    second: RetrainResult
    """Forced, with the first one as champion."""
    repeated: tuple[RetrainResult, ...]
    """Asked for again with the champion that the second was judged against, then with the second serving."""
    judged_again: RetrainResult
    """Asked for again with another champion than either: none."""
    decision: dict[str, Any]
    """The gate's, on the second against the first."""
    stricter: RetrainResult
    """Asked for again with a gate that demands more fields."""
    stricter_again: RetrainResult


@pytest.fixture(scope="module")
def story(module_settings, six_fields, prefect_server) -> Story:
    give_data(module_settings, six_fields)
    registry = Registry.open(module_settings)
    interrupted = interrupt(module_settings, registry)
    status = registry.runs._client.get_run(interrupted).info.status
    first = retrain(TASK, "tiny")
    again = retrain(TASK, "tiny")
    promote(registry, TASK, first.version, reasons=["somebody wants it"], by="Ada")
    second = retrain(TASK, "tiny", force=True)
    since = retrain(TASK, "tiny")
    promote(registry, TASK, second.version, reasons=["somebody wants it"], by="Ada")
    own = retrain(TASK, "tiny")
    decision = registry.artifacts.read_json(second.run_id, "gate/decision.json")
    registry.models.set_alias(TASK, "champion", None)
    judged_again = retrain(TASK, "tiny")
    registry.models.set_alias(TASK, "champion", first.version)
    params = module_settings.params_file
    params.write_text(params.read_text().replace("min_fields: 2", "min_fields: 3"))
    stricter, stricter_again = retrain(TASK, "tiny"), retrain(TASK, "tiny")
    return Story(
        module_settings,
        registry,
        interrupted,
        status,
        first,
        again,
        second,
        (since, own),
        judged_again,
        decision,
        stricter,
        stricter_again,
    )


def interrupt(settings: Settings, registry: Registry) -> str:
    """Train two of four steps as the flow does, then press Ctrl-C; returns the run."""
    job = Job.plan(TASK, "tiny", seed=None, settings=settings)
    run = open_run(job, registry)
    log = StepLog(registry, run, job.state_path)
    with pytest.raises(KeyboardInterrupt), closing(registry, run):
        for step in islice(training_steps(job.dataset, job.recipe, state_path=job.state_path), 2):
            log.add(step)
        log.deliver()
        raise KeyboardInterrupt
    return run.run_id


def test_a_retraining_ends_with_a_judged_version(story):
    """A model of four steps is worse than a blur: registered, rejected, with reasons and numbers."""
    assert (story.first.version, story.first.verdict) == (1, "reject")
    assert "against best-blur" in story.first.reasons[0]
    assert set(story.first.baselines) == {"input", "best-blur", "regression-mean", "constant-interval"}
    assert 0 <= story.first.metrics["coverage"] <= 1
    tags = story.registry.models.version(TASK, 2).tags
    told = (tags["verdict"], tags["decided_by"], tags["gate_verdict"])
    assert told == ("promote", "Ada", story.second.verdict)
    assert tags["dataset_digest"] == story.registry.runs.tags(story.second.run_id)["dataset_digest"]
    assert tags["init"] == "scratch"
    assert tags["interval_guarantee"].startswith("Aims at 90%")
    json.dumps(story.first.as_json(), allow_nan=False)


def test_the_same_again_finishes_at_once(story):
    """Equal data, parameters and code give the earlier result, and no second version."""
    assert story.again.repeated
    assert story.again.run_id == story.first.run_id
    assert story.again.reasons == story.first.reasons
    assert [v.number for v in story.registry.models.versions(TASK)] == [2, 1]


def test_the_champion_is_measured_beside_the_candidate(story):
    """The second candidate is compared with version 1 on the same fields and draws; the champion stays."""
    ours, theirs = (
        story.registry.artifacts.read_json(story.second.run_id, f"evaluation/{name}.json")
        for name in ("candidate", "champion")
    )
    assert theirs["version"] == 1
    assert ours["metrics"]["crps"]["per_field"].keys() == theirs["metrics"]["crps"]["per_field"].keys()
    assert (ours["samples"], ours["steps"], ours["seed"]) == (
        theirs["samples"],
        theirs["steps"],
        theirs["seed"],
    )
    named = {test["name"]: test for test in story.decision["tests"]}
    assert "crps vs champion" in named
    assert named["unseen"]["passed"] is True
    assert story.registry.models.champion(TASK) == 1


def test_a_candidate_is_probed_with_planted_and_erased_structures(story):
    """Two test fields, four probes each, as data and as metrics that versions are compared by."""
    told = story.registry.artifacts.read_json(story.second.run_id, "evaluation/probes.json")
    assert len(told) == 2 and all(len(answers) == 4 for answers in told.values())
    shown = story.registry.runs.metrics(story.second.run_id)["probe/spots_of_30_followed"]
    assert shown == pytest.approx(sum(one["spots of 30%"]["followed"] for one in told.values()) / 2)


def test_looks_at_the_same_test_fields_are_counted(story):
    """The first candidate is look 1, the second 2; judging the second again is no other candidate."""
    looks = [look_of(story, run_id) for run_id in (story.first.run_id, story.second.run_id)]
    assert looks == [1, 2]


def look_of(story: Story, run_id: str) -> float:
    tests = story.registry.artifacts.read_json(run_id, "gate/decision.json")["tests"]
    return next(test["value"] for test in tests if test["name"] == "looks")


def test_the_decision_is_a_page_among_the_artifacts(story):
    """Verdict and reasons of the gate, for people."""
    (page,) = (story.settings.mlruns_dir / "artifacts").rglob(
        f"{story.first.run_id}/artifacts/gate/report.html"
    )
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "<strong>Reject</strong>" in text and story.first.reasons[0] in text


def test_mlflow_shows_losses_scores_pictures_and_data(story):
    """A person sees how the run went without reading code."""
    runs, run_id = story.registry.runs, story.first.run_id
    metrics = runs.metrics(run_id)
    expected = {"loss/total", "loss/denoising", "loss/smoothness", "learning_rate", "gradient_norm"}
    expected |= {"validation/crps", "test/psnr_fit", "test/coverage", "versus/best-blur/ssim_fit"}
    assert expected <= metrics.keys()
    files = {path.name for path in (story.settings.mlruns_dir / "artifacts").rglob("*.png")}
    assert {"curves-0000004.png", "map-0000004.png"} <= files
    (field,) = {name.split("-")[1] for name in files if name.startswith("validation-")}
    assert f"validation-{field}-0000004.png" in files
    (time_map,) = (story.settings.mlruns_dir / "artifacts").rglob(f"{run_id}/**/{field}-0000004.ome.tif")
    assert 0 <= read_image(time_map).pixels.min() < read_image(time_map).pixels.max() <= 1
    assert {"per-field.png", "calibration.png", "sparsification.png", "frc.png", "strata.png"} <= files
    (state,) = (story.settings.mlruns_dir / "artifacts").rglob(f"{run_id}/artifacts/checkpoints/state.pt")
    assert read_state(state)["step"] == 4
    assert story.registry.artifacts.read_json(run_id, "validation/report.json")["ok"]
    run = runs._client.get_run(run_id)
    assert run.data.params["model.schedule.width"] == "4"
    assert run.info.status == "FINISHED"
    assert [used.dataset.name for used in run.inputs.dataset_inputs] == [TASK]


def test_two_versions_compare_by_name_by_field_and_by_picture(story):
    """Charts name version and verdict, MLflow finds a table of scores per field, a panel shows both."""
    runs, artifacts = story.registry.runs, story.registry.artifacts
    for result in (story.first, story.second):
        run = runs._client.get_run(result.run_id)
        assert run.info.run_name == f"v{result.version} {run.data.tags['verdict']} tiny"
        logged = json.loads(run.data.tags["mlflow.loggedArtifacts"])
        assert logged == [{"path": PER_FIELD, "type": "table"}]
        table = artifacts.read_json(result.run_id, PER_FIELD)
        scores = artifacts.read_json(result.run_id, "evaluation/candidate.json")
        fields = scores["metrics"]["crps"]["per_field"]
        column = table["columns"].index("crps")
        assert {row[0]: row[column] for row in table["data"]} == fields
    (field, *_) = sorted(fields)
    assert artifacts.holds(story.second.run_id, f"panels/versions-{field}.png")
    assert not artifacts.holds(story.first.run_id, f"panels/versions-{field}.png")


def test_the_run_tells_what_was_installed(story):
    """One line for each package, in order, as pip would install it again."""
    (file,) = (story.settings.mlruns_dir / "artifacts").rglob(f"{story.first.run_id}/artifacts/{ENVIRONMENT}")
    lines = file.read_text().splitlines()
    assert f"torch=={version('torch')}" in lines
    assert lines == sorted(lines) and all(line.count("==") == 1 for line in lines)


def test_the_drift_of_the_schedule_is_measured_from_the_champion(story):
    """The same training again: no drift, and a picture of both. The first model has nothing to drift from."""
    runs = story.registry.runs
    assert runs.metrics(story.second.run_id)[DRIFT_METRIC] == pytest.approx(0, abs=1e-6)
    assert story.registry.artifacts.holds(story.second.run_id, "schedule/drift-from-champion.png")
    assert DRIFT_METRIC not in runs.metrics(story.first.run_id)


def test_energy_is_on_the_run_and_a_second_judgement_adds_to_it(story):
    """Every look at a version costs: training and its judgement, then each judgement without training."""
    history = story.registry.runs._client.get_metric_history(story.second.run_id, KWH)
    values = [entry.value for entry in sorted(history, key=lambda entry: entry.timestamp)]
    assert len(values) >= 3
    assert values == sorted(values) and values[0] > 0
    entries = catalogue(story.registry, (TASK,), story.settings)
    assert entries[0]["kwh"] == values[-1]


def test_run_and_version_carry_their_model_card(story):
    """The file holds every field and test of the gate; the description says the verdict and the scores."""
    runs, number = story.registry.runs, story.second.version
    (file,) = (story.settings.mlruns_dir / "artifacts").rglob(f"{story.second.run_id}/artifacts/{FILE}")
    card = file.read_text()
    description = story.registry.models._client.get_model_version(model_name(TASK), str(number)).description
    for text in (card, description):
        assert f"# {TASK} version {number}" in text
        assert f"**Gate: {story.stricter.verdict}**" in text  # the latest judgement
        assert "best-blur" in text and "MIT" in text and "kWh" in text
    scores = story.registry.artifacts.read_json(story.second.run_id, "evaluation/candidate.json")["metrics"]
    for field in scores["crps"]["per_field"]:
        assert f"| {field} |" in card
    for test in story.registry.artifacts.read_json(story.second.run_id, "gate/decision.json")["tests"]:
        assert f"| {test['name']} |" in card
    assert runs.tags(story.second.run_id)["mlflow.note.content"] == description


def artifact(key: str) -> dict[str, Any]:
    """The latest artifact of the orchestrator under a key."""
    wanted = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    reply = get_client(sync_client=True).request("POST", "/artifacts/filter", json=wanted)
    return reply.json()[0]


def test_the_orchestrator_shows_progress_and_links(story):
    """Steps with bars end at 100 %, and the links of the flow lead to its run and to the gate's report."""
    for name in ("validate", "train", "evaluate"):
        shown = artifact(f"{TASK}-{name}")
        assert (shown["type"], shown["data"]) == ("progress", 100.0), name
        assert shown["task_run_id"]
    linked = [artifact(f"{TASK}-{name}") for name in ("run", "validation", "gate")]
    assert all(story.second.run_id in link["data"] and link["flow_run_id"] for link in linked)
    assert GATE_PAGE in linked[2]["data"]


def test_nothing_is_left_beside_the_registry(story):
    """A finished retraining keeps no training state of its own."""
    assert list((story.settings.mlruns_dir / "training").iterdir()) == []


def test_an_interrupted_retraining_continues_its_own_run(story):
    """Training and run go on where they stopped, and no step is written twice."""
    assert story.status == "KILLED"
    assert story.first.run_id == story.interrupted
    history = story.registry.runs._client.get_metric_history(story.interrupted, "loss/total")
    assert Counter(entry.step for entry in history) == {1: 1, 2: 1, 4: 1}


def test_a_verdict_holds_only_for_the_champion_it_was_made_against(story):
    """The same, or the version itself: repeated. Another: the same version is judged again, not trained."""
    assert [result.repeated for result in story.repeated] == [True, True]
    assert story.second.champion_version == 1
    assert not story.judged_again.repeated
    assert story.judged_again.champion_version is None
    assert (story.judged_again.version, story.judged_again.run_id) == (2, story.second.run_id)


def test_another_gate_judges_again_what_was_trained(story):
    """A change of policy costs an evaluation, not a training, and its verdict is kept as any other."""
    assert (story.stricter.repeated, story.stricter.run_id) == (False, story.second.run_id)
    assert story.stricter_again.repeated
    assert story.stricter_again.reasons == story.stricter.reasons


def test_the_version_of_the_data_is_a_tag(project_settings, six_fields):
    """What DVC calls the data is searched by; without DVC it says so."""
    give_data(project_settings, six_fields)
    assert plan(project_settings).tags()["data_version"] == "none"
    record = project_settings.data_dir.with_name("data.dvc")
    record.write_text("outs:\n- md5: 0123abcd.dir\n  path: data\n", encoding="utf-8")
    assert plan(project_settings).tags()["data_version"] == "0123abcd.dir"


def test_an_outage_while_a_run_is_opened_leaves_one_run(project_settings, six_fields, monkeypatch):
    """Planted: the server is away when the data are noted; the step is tried again, as the flow does."""
    give_data(project_settings, six_fields)
    registry = Registry.open(project_settings)
    job = Job.plan(TASK, "tiny", seed=None, settings=project_settings)
    with monkeypatch.context() as patch:
        patch.setattr(registry.runs._client, "log_inputs", away)
        with pytest.raises(AwayError):
            open_run(job, registry)
    run = open_run(job, registry)
    assert open_run(job, registry) == run
    (facts,) = registry.cleaning.runs()
    assert (facts.run_id, facts.machine) == (run.run_id, project_settings.machine)


def away(*_arguments: object, **_options: object) -> None:
    raise AwayError("the server to answer", "nothing", "Wait.")


def test_what_is_dropped_to_train_anew_is_closed(project_settings, six_fields):
    """With --force after an interruption: else its run would be RUNNING for ever."""
    give_data(project_settings, six_fields)
    registry = Registry.open(project_settings)
    job = Job.plan(TASK, "tiny", seed=None, settings=project_settings)
    start_over(registry, job)  # nothing was begun
    run = open_run(job, registry)
    start_over(registry, job)
    assert not job.folder.exists() and open_run(job, registry) != run
    told = registry.runs.tags(run.run_id)["reaped"]
    closed = next(one for one in registry.cleaning.runs() if one.run_id == run.run_id)
    assert closed.status == "KILLED" and "anew" in told


def test_what_housekeeping_has_removed_is_trained_anew(project_settings, six_fields):
    """A finished run without its version answers nothing and is not taken up; one with it does and is."""
    give_data(project_settings, six_fields)
    registry = Registry.open(project_settings)
    job = Job.plan(TASK, "tiny", seed=None, settings=project_settings)
    run = open_run(job, registry)
    result = RetrainResult(TASK, run.run_id, 1, "reject", ("worse",), {}, {}, 1.0)
    registry.artifacts.log_json(run.run_id, result.as_json(), RESULT)
    registry.runs.set_tags(run.run_id, {"judgement": job.judgement})
    registry.runs.finish(run.run_id)
    note = job.folder / RUN_NOTE
    note.unlink()
    assert finished(registry, job) is None
    take_up(registry, job)
    assert not note.exists()
    save_checkpoint(job.folder / "made", make_checkpoint(), cells(np.random.default_rng(7), 32))
    registry.models.register(TASK, run, job.folder / "made", {})
    assert finished(registry, job) == replace(result, repeated=True)
    take_up(registry, job)
    assert json.loads(note.read_text()) == {"run_id": run.run_id}


def test_force_trains_anew(story):
    """With force, equal evidence gives another version of another run, and the same scores."""
    assert (story.second.version, story.second.repeated) == (2, False)
    assert story.second.run_id != story.first.run_id
    assert story.second.metrics == pytest.approx(story.first.metrics, rel=1e-6)


def test_a_tracking_server_that_is_away_when_all_is_decided_costs_nothing(
    project_settings, six_fields, prefect_server, monkeypatch, tmp_path
):
    """Planted: two requests of the last step fail once; tried again, it tells and writes nothing twice."""
    give_data(project_settings, six_fields)
    alerts = tmp_path / "alerts.jsonl"
    monkeypatch.setenv("CVDM_ALERTS", f"file://{alerts}")
    monkeypatch.setattr("flows.retrain.RETRY_SECONDS", (0, 0))
    failed = []

    def fails_once(method, last):
        def wrapped(self, *arguments):
            if arguments[-1] == last and last not in failed:
                failed.append(last)
                raise AwayError("the tracking store to answer", "nothing", "Wait.")
            return method(self, *arguments)

        return wrapped

    monkeypatch.setattr(Artifacts, "log_json", fails_once(Artifacts.log_json, RESULT))
    monkeypatch.setattr(Runs, "set_tags", fails_once(Runs.set_tags, {"judgement": ANY}))
    result = retrain(TASK, "tiny")
    assert failed == [RESULT, {"judgement": ANY}]
    registry = Registry.open(project_settings)
    assert [json.loads(line)["event"] for line in alerts.read_text().splitlines()] == [EVENTS[result.verdict]]
    history = registry.runs._client.get_metric_history(result.run_id, KWH)
    assert [entry.step for entry in history] == [1]
    assert registry.runs._client.get_run(result.run_id).info.status == "FINISHED"
    assert retrain(TASK, "tiny").repeated


def test_bad_data_are_refused_before_anything_is_trained(project_settings, six_fields, prefect_server):
    """The failure lists what is wrong; no run and no version is left behind."""
    root = give_data(project_settings, six_fields)
    (root / "high" / "f00_c0.tif").unlink()
    with pytest.raises(ValidationError, match="f00_c0"):
        retrain(TASK, "tiny")
    registry = Registry.open(project_settings)
    assert registry.models.versions(TASK) == ()
    assert registry.runs.find(TASK, {}) is None


def test_one_retraining_at_a_time_per_device(project_settings, prefect_server):
    """A second one is refused at once and says who is at work; the lock goes with its holder."""
    locks = project_settings.mlruns_dir / "locks"
    with (
        device_lock(locks, "cpu", "retrain other"),
        pytest.raises(BusyError, match="'retrain other' in process"),
    ):
        retrain(TASK, "tiny")
    with device_lock(locks, "cpu", "retrain this"):
        pass


def test_two_names_of_one_gpu_are_one_lock(tmp_path):
    """`cuda` is the first GPU, which is also `cuda:0`; the second is another one."""
    with device_lock(tmp_path, "cuda", "retrain other"):
        with pytest.raises(BusyError), device_lock(tmp_path, "cuda:0", "retrain this"):
            pass
        with device_lock(tmp_path, "cuda:1", "retrain this"):
            pass


def test_unknown_presets_and_devices_are_refused(project_settings, six_fields):
    """The message lists the presets there are; a GPU that is not there is not silently replaced."""
    give_data(project_settings, six_fields)
    with pytest.raises(ConfigError, match="tiny"):
        Job.plan(TASK, "huge", seed=None, settings=project_settings)
    if chosen_device("auto") == "cpu":
        with pytest.raises(ConfigError, match="CUDA"):
            chosen_device("cuda")


def plan(settings: Settings, **options) -> Job:
    return Job.plan(TASK, "tiny", **{"seed": None, "settings": settings, **options})


def test_evidence_changes_with_seed_recipe_and_data_only(project_settings, six_fields):
    """What could change the weights changes the identity of a training, and nothing else does."""
    root, params = give_data(project_settings, six_fields), project_settings.params_file
    first = plan(project_settings).evidence
    assert plan(project_settings, seed=5).evidence != first
    text = params.read_text()
    params.write_text(text.replace("min_fields: 2", "min_fields: 3"))
    assert plan(project_settings).evidence == first
    params.write_text(text.replace("width: 4", "width: 5", 1))
    assert plan(project_settings).evidence != first
    params.write_text(text)
    assert plan(project_settings).evidence == first
    (root / "low" / "f00_c0.tif").write_bytes((root / "low" / "f01_c0.tif").read_bytes())
    assert plan(project_settings).evidence != first


def test_judgement_changes_with_gate_validation_and_their_code(project_settings, six_fields, monkeypatch):
    """Another threshold or another line in the gate asks for another look at what was trained."""
    give_data(project_settings, six_fields)
    params = project_settings.params_file

    def judgement() -> str:
        return plan(project_settings).judgement

    first = judgement()
    assert {"one_pair.py", "checks.py", "comparing.py", "inspection"} <= {path.name for path in jobs.JUDGES}
    copies = [project_settings.home / path.relative_to(jobs.FLOWS.parent) for path in jobs.JUDGES]
    for source, copy in zip(jobs.JUDGES, copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    monkeypatch.setattr(jobs, "JUDGES", tuple(copies))
    assert judgement() == first
    for copy in (copy / "noise.py" if copy.is_dir() else copy for copy in copies):
        seen = judgement()
        copy.write_text(copy.read_text() + "\n")
        assert judgement() != seen
    for before, after in (("validation: {}", "validation: {black: {warn: 0.1}}"), ("fields: 2", "fields: 3")):
        seen = judgement()
        params.write_text(params.read_text().replace(before, after))
        assert judgement() != seen
