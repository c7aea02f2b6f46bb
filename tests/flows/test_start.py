"""Where weights start: the rule and each request, on a real store; never where a held-out field was seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from specimens import TINY_RECIPE, cells, make_checkpoint, make_dataset

from cvdm.checkpoint import WEIGHTS, file_digest, save_checkpoint
from cvdm.config import ModelConfig, NetworkConfig
from cvdm.dataset import load_dataset
from cvdm.errors import ConfigError
from cvdm.inspection.shift import FeatureShift
from cvdm.manifest import write_manifest
from flows.job import Job, Start
from flows.registry import CHAMPION, Registry
from flows.retrain import retrain
from flows.start import VALIDATION_REPORT, choose_start, learned_fields, unless_shifted
from flows.validation.drift import Drift

TASK = "test-cells"


@pytest.fixture
def registry(project_settings) -> Registry:
    return Registry.open(project_settings)


@pytest.fixture
def job(project_settings, cells_dataset) -> Job:
    shutil.copytree(cells_dataset, project_settings.dataset_dir(TASK))
    return Job.plan(TASK, "tiny", seed=None, settings=project_settings)


def ship_base(job: Job, *, seed: int = 0) -> Path:
    """models/TASK with its manifest, as `dvc pull` brings them."""
    directory = job.settings.home / "models" / TASK
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(exist_ok=True)
    save_checkpoint(directory, make_checkpoint(seed=seed), cells(np.random.default_rng(7), 32))
    write_manifest(load_dataset(job.dataset.root), directory.with_name(f"{TASK}.manifest.json"))
    return directory


def serve(registry: Registry, job: Job, trained_on, tmp_path: Path, **tags) -> int:
    """A champion whose run holds the table of the fields it was trained on."""
    number = len(registry.models.versions(TASK)) + 1
    directory = tmp_path / f"version-{number}" / "checkpoint"
    directory.parent.mkdir()
    save_checkpoint(directory, make_checkpoint(seed=number), cells(np.random.default_rng(7), 32))
    run = registry.runs.start(TASK, "a run", params={}, tags={})
    table = [{"field": field, "split": "train"} for field in trained_on]
    registry.artifacts.log_json(run.run_id, {"table": table}, VALIDATION_REPORT)
    version = registry.models.register(TASK, run, directory, tags)
    registry.models.set_alias(TASK, CHAMPION, version)
    return version


def test_without_champion_and_base_it_is_scratch(registry, job):
    """And says what is missing; asking for either is an error with a remedy."""
    start = choose_start("auto", registry, job)
    assert (start.kind, start.base) == ("scratch", None) and "neither champion nor base" in start.reason
    for asked, told in (("base", "no models/test-cells"), ("champion", "no champion")):
        with pytest.raises(ConfigError, match=told):
            choose_start(asked, registry, job)
    with pytest.raises(ConfigError, match="auto, scratch, base, champion"):
        choose_start("nonsense", registry, job)


def test_a_base_serves_where_there_is_no_champion(registry, job):
    """By rule and when asked for; fewer steps, other evidence, and tags that tell."""
    directory = ship_base(job)
    for asked in ("auto", "base"):
        start = choose_start(asked, registry, job)
        assert start.kind == "base" and start.base.digest == file_digest(directory / WEIGHTS)
    tuned = job.starting_from(start)
    assert tuned.recipe == job.recipe.for_fine_tuning() and tuned.evidence != job.evidence
    assert tuned.tags()["init"] == "base" and tuned.tags()["init_digest"] == start.base.digest
    assert choose_start("scratch", registry, job).base is None
    assert tuned.starting_from(choose_start("scratch", registry, job)).evidence == job.evidence


def test_the_champion_is_the_start_while_most_fields_are_known(registry, job, tmp_path):
    """Up to half of the training fields may be new; beyond, scratch, with the numbers."""
    training = job.dataset.fields("train")
    assert len(training) >= 4
    known = training[: -(len(training) // 2)]
    version = serve(registry, job, known, tmp_path)
    start = choose_start("auto", registry, job)
    assert (start.kind, start.version, start.by_rule) == ("champion", version, True)
    assert f"{len(training) - len(known)} of {len(training)} training fields are new" in start.reason
    serve(registry, job, training[:1], tmp_path)
    assert choose_start("auto", registry, job).kind == "scratch"
    assert choose_start("champion", registry, job).version == version + 1


@pytest.mark.parametrize("split", ["validation", "calibration", "test"])
def test_nothing_starts_where_a_held_out_field_was_learned(registry, job, tmp_path, split):
    """Champion and base; what an earlier version learned counts for those that were fine-tuned from it."""
    training, held_out = job.dataset.fields("train"), job.dataset.fields(split)[0]
    manifest = ship_base(job).with_name(f"{TASK}.manifest.json")
    content = json.loads(manifest.read_text())
    content["fields"]["train"].append(held_out)
    manifest.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"held out now: {held_out}"):
        choose_start("base", registry, job)
    first = serve(registry, job, [*training, held_out], tmp_path)
    second = serve(registry, job, training, tmp_path, init="champion", init_version=str(first))
    assert learned_fields(registry, TASK, second) == {*training, held_out}
    start = choose_start("auto", registry, job)
    assert start.kind == "scratch" and held_out in start.reason
    with pytest.raises(ConfigError, match=held_out):
        choose_start("champion", registry, job)


def test_on_the_champion_s_own_data_a_candidate_starts_as_it_did(registry, job, tmp_path):
    """From scratch, base or an earlier version, by the same weights; so a repetition is known as one."""
    training, own = job.dataset.fields("train"), {"dataset_digest": job.dataset_digest}
    first = serve(registry, job, training, tmp_path, init="scratch", **own)
    assert choose_start("auto", registry, job).kind == "scratch"
    digest = choose_start("champion", registry, job).base.digest
    came = {"init": "champion", "init_version": str(first), "init_digest": digest}
    serve(registry, job, training, tmp_path, **came, **own)
    start = choose_start("auto", registry, job)
    assert (start.kind, start.version, start.base.digest) == ("champion", first, digest)
    base = file_digest(ship_base(job) / WEIGHTS)
    serve(registry, job, training, tmp_path, init="base", init_digest=base, **own)
    assert choose_start("auto", registry, job).base.digest == base
    ship_base(job, seed=5)
    start = choose_start("auto", registry, job)
    assert start.kind == "scratch" and "another one by now" in start.reason


def test_a_version_that_was_removed_is_no_start(registry, job, tmp_path):
    """Neither as a start nor as the record of what a later one has learned."""
    training, own = job.dataset.fields("train"), {"dataset_digest": job.dataset_digest}
    gone = {"init": "champion", "init_version": "77", "init_digest": "a" * 64}
    version = serve(registry, job, training, tmp_path, **gone, **own)
    assert "version 77 is not in the registry" in choose_start("auto", registry, job).reason
    assert learned_fields(registry, TASK, version) is None
    with pytest.raises(ConfigError, match="not on record"):
        choose_start("champion", registry, job)


def test_a_model_of_another_size_is_no_start(registry, job, tmp_path):
    """By rule scratch, and why; when asked for, an error."""
    serve(registry, job, job.dataset.fields("train"), tmp_path)
    small = NetworkConfig(width=8, levels=2)
    recipe = replace(TINY_RECIPE, model=ModelConfig(mean=small, denoiser=small))
    other = replace(job, preset_recipe=recipe)
    assert "version 1 is of another size or kind than" in choose_start("auto", registry, other).reason
    with pytest.raises(ConfigError, match="another size"):
        choose_start("champion", registry, other)


def test_shifted_fields_overrule_the_rule_but_no_person():
    """Scratch with the features' names; unchanged for a request, for a base and where nothing shifted."""
    shift = FeatureShift("low_noise", 8, 8, 1.0, 2.0, 0.001, 0.001, 0.0002, 0.9, None)
    shifted, same = Drift(8, 8, (shift,)), Drift(8, 8, ())
    assert shifted.shifted
    start = Start("champion", "why", None, 3, by_rule=True)
    changed = unless_shifted(start, shifted)
    assert changed.kind == "scratch" and "version 3 knows in low_noise" in changed.reason
    for kept in (replace(start, by_rule=False), Start("base", "why", by_rule=True)):
        assert unless_shifted(kept, shifted) is kept
    assert unless_shifted(start, same) is start and unless_shifted(start, None) is start


def test_a_retraining_on_more_data_starts_at_the_champion(module_settings, prefect_server, tmp_path):
    """The whole flow: scratch, then the champion with fewer steps; asked for again, nothing is trained."""
    root = module_settings.dataset_dir(TASK)
    make_dataset(root, fields=12, size=64)
    later = load_dataset(root).fields("train")[-1]
    for side in ("low", "high"):
        (root / side / f"{later}_c0.tif").rename(tmp_path / f"{later}-{side}.tif")
    first = retrain(TASK, "tiny")
    registry = Registry.open(module_settings)
    registry.models.set_alias(TASK, CHAMPION, first.version)
    for side in ("low", "high"):
        shutil.move(tmp_path / f"{later}-{side}.tif", root / side / f"{later}_c0.tif")
    second, again = retrain(TASK, "tiny"), retrain(TASK, "tiny")
    assert (first.init, second.init) == ("scratch", "champion") and "1 of" in second.init_reason
    assert again.repeated and again.version == second.version
    tags = registry.models.version(TASK, second.version).tags
    assert (tags["init"], tags["init_version"]) == ("champion", str(first.version))
    assert registry.runs.last_step(registry.runs.reopen(second.run_id), "loss/total") == 1
