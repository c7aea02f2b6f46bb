"""From the registry to a checkpoint on disk."""

from __future__ import annotations

import shutil
import traceback

import pytest
from service_world import TASK

from cvdm.errors import CheckpointError
from service.errors import DownloadError, RegistryError
from service.loading import Registry, Version, load


@pytest.fixture(scope="module")
def filled(tmp_path_factory, checkpoints):
    """A registry with two versions of one task, one of another, and a model of somebody else."""
    from service_world import Store

    store = Store(tmp_path_factory.mktemp("filled"))
    store.register(checkpoints(seed=0), champion=True)
    store.register(checkpoints(seed=1))
    store.register(checkpoints(seed=0, task="other"), task="other")
    store.client.create_registered_model("somebody-elses")
    return store


def test_the_catalogue_lists_versions_with_aliases_and_tags(filled, tmp_path):
    """Every cvdm-* model is listed, newest version first, with what the registry knows of it."""
    catalogue = Registry(filled.uri, (), tmp_path).catalogue()
    assert set(catalogue) == {TASK, "other"}
    newest, oldest = catalogue[TASK]
    assert (newest.number, newest.aliases) == (2, ())
    assert (oldest.number, oldest.aliases) == (1, ("champion",))
    assert oldest.dataset_digest == "d" * 64 and oldest.verdict == "promote" and len(oldest.run_id) == 32


def test_only_the_tasks_that_are_set_are_listed(filled, tmp_path):
    """CVDM_TASKS narrows what is served."""
    assert set(Registry(filled.uri, ("other",), tmp_path).catalogue()) == {"other"}


def test_a_version_is_downloaded_once(filled, tmp_path):
    """The second load reads the cache, even when the artifact store is gone; forgetting drops it."""
    registry = Registry(filled.uri, (), tmp_path / "cache")
    version = registry.catalogue()[TASK][1]
    directory, checkpoint = load(registry, version, "cpu")
    assert checkpoint.record.task == TASK
    assert directory.is_relative_to(tmp_path / "cache")
    assert [p.name for p in directory.parents[1].iterdir()] == [directory.parent.name]
    away = shutil.move(filled.root / "artifacts", tmp_path / "away")
    try:
        assert load(registry, version, "cpu")[0] == directory
    finally:
        shutil.move(away, filled.root / "artifacts")
    registry.forget(version)
    assert not directory.exists()


def test_a_damaged_copy_in_the_cache_is_downloaded_again(filled, tmp_path):
    """What is wrong with the cache is not held against the version."""
    registry = Registry(filled.uri, (), tmp_path)
    version = registry.catalogue()[TASK][1]
    directory, _ = load(registry, version, "cpu")
    (directory / "weights.pt").write_bytes(b"damaged")
    again, checkpoint = load(registry, version, "cpu")
    assert again == directory and checkpoint.record.task == TASK
    assert (directory / "weights.pt").stat().st_size > 7


def test_a_model_without_a_checkpoint_is_refused(filled, tmp_path, checkpoints):
    """Files that cannot be fetched are told as such: not a silent registry, and not a wrong checkpoint."""
    misnamed = checkpoints(seed=3)
    misnamed = misnamed.rename(misnamed.with_name("another-name"))
    number = filled.register(misnamed, task="broken")
    registry = Registry(filled.uri, ("broken",), tmp_path)
    version = registry.catalogue()["broken"][0]
    assert version.number == number
    with pytest.raises(DownloadError, match="artifacts/checkpoint"):
        load(registry, version, "cpu")
    assert list((tmp_path / "cvdm-broken").iterdir()) == []


def test_a_model_of_another_task_is_refused(filled, tmp_path, checkpoints):
    """A checkpoint registered under a wrong name does not answer for that task."""
    filled.register(checkpoints(seed=4), task="mixed-up")
    registry = Registry(filled.uri, ("mixed-up",), tmp_path)
    with pytest.raises(CheckpointError, match=TASK):
        load(registry, registry.catalogue()["mixed-up"][0], "cpu")


def test_a_missing_database_is_reported_and_not_created(tmp_path):
    """A wrong path stays empty, and the message names it."""
    with pytest.raises(RegistryError, match=r"nowhere\.db"):
        Registry(f"sqlite:///{tmp_path}/nowhere.db", (), tmp_path).catalogue()
    assert list(tmp_path.iterdir()) == []


def test_no_password_is_told_of_a_registry_that_does_not_answer(tmp_path, monkeypatch):
    """`GET /models` shows the reason to everybody who asks, and the log its traceback."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry("http://ada:sec%40ret@127.0.0.1:9", (), tmp_path)
    with pytest.raises(RegistryError, match="API request to http://127") as at_a_look:
        registry.catalogue()
    with pytest.raises(RegistryError) as at_a_download:
        registry.fetch(Version("cells", 1, "ab"))
    for failure in (at_a_look, at_a_download):
        told = "".join(traceback.format_exception(failure.value))
        assert not any(secret in told for secret in ("sec%40ret", "sec@ret", "ada"))


def test_a_database_that_goes_away_and_comes_back(filled, tmp_path):
    """The registry object survives an outage."""
    registry = Registry(filled.uri, (), tmp_path)
    registry.catalogue()
    away = shutil.move(filled.database, tmp_path / "away.db")
    try:
        with pytest.raises(RegistryError):
            registry.catalogue()
    finally:
        shutil.move(away, filled.database)
    assert registry.catalogue()
