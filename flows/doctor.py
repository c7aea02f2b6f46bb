"""`cvdm doctor`: is everything here that the platform needs, and what to do where it is not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml
from packaging.requirements import Requirement

from cvdm.addresses import shown_uri
from cvdm.dataset import load_dataset
from cvdm.errors import CvdmError
from cvdm.params import load_recipe, load_section
from flows.processes import SERVICE_LIVES, orchestrates_locally, tracks_locally
from flows.servers import answers, port_is_free, reachable
from flows.settings import PROJECT, Settings
from flows.version import ingest_note, record_file
from flows.version_control import is_checkout

Status = Literal["ok", "warning", "broken"]

EXTRAS = ("platform", "service")
LEAST_PYTHON = (3, 11)
GIB = 2**30
LEAST_DISK, GOOD_DISK = 1 * GIB, 5 * GIB
"""Free space for one retraining, and for working without thinking of it."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    remedy: str = ""
    """What to do; empty where all is well."""


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Look at everything; a look that fails is a finding too."""
    settings.prepare_environment()
    looks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        python,
        packages,
        device,
        disk,
        folders,
        git,
        parameters,
        schedule,
        alerts,
        data,
        tracking,
        ports,
    )
    findings: list[Finding] = []
    for look in looks:
        try:
            findings += look(settings)
        except CvdmError as error:
            findings.append(Finding(look.__name__, "broken", f"{error.actual}", error.remedy))
    return tuple(findings)


def is_healthy(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing is broken; warnings are allowed."""
    return all(finding.status != "broken" for finding in findings)


def as_document(findings: tuple[Finding, ...]) -> dict[str, Any]:
    """Plain values."""
    return {"ok": is_healthy(findings), "findings": [asdict(finding) for finding in findings]}


def as_table(findings: tuple[Finding, ...]) -> str:
    """One line for each finding, its remedy below where there is one."""
    signs = {"ok": "ok     ", "warning": "warning", "broken": "BROKEN "}
    lines = []
    for finding in findings:
        lines.append(f"{signs[finding.status]}  {finding.name:16} {finding.found}")
        if finding.remedy:
            lines.append(f"{'':26} -> {finding.remedy}")
    broken = sum(finding.status == "broken" for finding in findings)
    warned = any(finding.status == "warning" for finding in findings)
    well = "Nothing is broken; the arrows say what to look at." if warned else "All is well."
    lines.append(f"{broken} broken; mend what the arrows say." if broken else well)
    return "\n".join(lines)


def python(settings: Settings) -> Iterator[Finding]:
    """The interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < LEAST_PYTHON:
        yield Finding("python", "broken", found, "Install Python 3.11 or newer and run `make setup` again.")
    else:
        yield Finding("python", "ok", found)


def packages(settings: Settings) -> Iterator[Finding]:
    """What pyproject.toml asks for against what is installed."""
    try:
        wanted = [Requirement(line) for line in metadata.requires(PROJECT) or ()]
    except metadata.PackageNotFoundError:
        yield Finding("packages", "broken", f"{PROJECT} is not installed", "Run `make setup`.")
        return
    wanted = [
        need
        for need in wanted
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in EXTRAS)
    ]
    problems = [problem for need in wanted if (problem := _missing(need))]
    if problems:
        yield Finding("packages", "broken", "; ".join(sorted(set(problems))), "Run `make setup`.")
    else:
        yield Finding("packages", "ok", f"{len({need.name for need in wanted})} needed, all there")


def device(settings: Settings) -> Iterator[Finding]:
    """Where networks would run."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found = f"torch {torch.__version__}; {', '.join(gpus) if gpus else f'no GPU, {os.cpu_count()} CPU cores'}"
    if settings.device.startswith("cuda") and not gpus:
        yield Finding("device", "broken", found, "CVDM_DEVICE asks for a GPU: set it to auto or cpu.")
    else:
        yield Finding("device", "ok", found)


def disk(settings: Settings) -> Iterator[Finding]:
    """Room for models, data and logs."""
    free = shutil.disk_usage(_existing(settings.mlruns_dir)).free
    found = f"{free / GIB:.1f} GiB free for {settings.mlruns_dir}"
    if free < LEAST_DISK:
        remedy = (
            "Free some space; or stop everything, move CVDM_MLRUNS_DIR to another disk, and run "
            "`cvdm housekeeping readdress OLD_FOLDER/artifacts`."
        )
        yield Finding("disk", "broken", found, remedy)
    elif free < GOOD_DISK:
        yield Finding("disk", "warning", found, "Free some space before long trainings.")
    else:
        yield Finding("disk", "ok", found)


def folders(settings: Settings) -> Iterator[Finding]:
    """May we write where we write?"""
    for name, folder in (("mlruns", settings.mlruns_dir), ("data folder", settings.data_dir)):
        place = _existing(folder)
        try:
            with tempfile.TemporaryFile(dir=place):
                yield Finding(name, "ok", f"{folder} can be written")
        except OSError as error:
            remedy = f"Give your user the right to write to {place}."
            yield Finding(name, "broken", f"{folder}: {error.strerror}", remedy)


def git(settings: Settings) -> Iterator[Finding]:
    """History of code and data."""
    if shutil.which("git") is None:
        yield Finding("git", "warning", "not installed", "Install git: without it models carry no commit.")
    elif not is_checkout(settings.home):
        yield Finding(
            "git", "warning", f"{settings.home} is no checkout", "Clone it: data versions are commits."
        )
    else:
        yield Finding("git", "ok", f"{settings.home} is a checkout")


def parameters(settings: Settings) -> Iterator[Finding]:
    """Is every section of params.yaml as a training, a validation and the gate will read it?"""
    from flows.gate import load_policy
    from flows.validation import load_validation_policy

    presets = sorted(load_section(settings.params_file, "presets"))
    for preset in presets:
        load_recipe(settings.params_file, preset)
    load_policy(settings.params_file)
    load_validation_policy(settings.params_file)
    yield Finding("parameters", "ok", f"presets {', '.join(presets)}")


def schedule(settings: Settings) -> Iterator[Finding]:
    """Can the timetable be read, and what does it say?"""
    from flows.timetable import read_timetable

    entries = read_timetable(settings).values()
    paused = [entry.task for entry in entries if not entry.enabled]
    found = f"{len(entries)} tasks" + (f", paused: {', '.join(paused)}" if paused else "")
    yield Finding("schedule", "ok", found)


def alerts(settings: Settings) -> Iterator[Finding]:
    """Can everybody be told who is to be? Nothing is sent."""
    from flows.alerts import require_valid

    require_valid(settings)
    told = "on" if settings.alerts.get_secret_value() else "off"
    yield Finding("alerts", "ok", told)


def data(settings: Settings) -> Iterator[Finding]:
    """Are the data of every task here, as DVC recorded them?"""
    pull = "Run `.venv/bin/dvc pull`."
    if not settings.known_tasks():
        yield Finding("data", "broken", f"no task in {settings.data_dir}", pull)
    for task in settings.known_tasks():
        try:
            dataset = load_dataset(settings.dataset_dir(task))
            yield Finding("data", "ok", f"{task}: {len(dataset.pairs)} pairs")
        except CvdmError as error:
            yield Finding("data", "broken", f"{task}: {error.actual}", f"{error.remedy} {pull}")
    record = record_file(settings)
    if not record.is_file():
        yield Finding("data version", "warning", f"no {record.name}", "Data get a version by `cvdm ingest`.")
        return
    recorded = yaml.safe_load(record.read_text(encoding="utf-8"))["outs"][0].get("nfiles")
    present = sum(path.is_file() for path in settings.data_dir.rglob("*"))
    if ingest_note(settings).is_file():
        yield Finding(
            "data version", "warning", "an ingest was interrupted", "Run the same `cvdm ingest` again."
        )
        return
    same = recorded in (None, present)
    found = f"{present} files, {record.name} records {recorded}"
    yield Finding("data version", "ok" if same else "warning", found, "" if same else pull)


def tracking(settings: Settings) -> Iterator[Finding]:
    """Does the store of runs and models answer?"""
    uri = settings.tracking_uri
    if uri.startswith("sqlite:") and not Path(uri.removeprefix("sqlite:///")).is_file():
        yield Finding("tracking", "ok", "no runs yet; the first retraining makes the database")
        return
    from flows.registry import Registry

    tasks = Registry.open(settings).models.tasks()
    yield Finding(
        "tracking", "ok", f"{shown_uri(uri)}: models of {', '.join(tasks) if tasks else 'no task yet'}"
    )


def ports(settings: Settings) -> Iterator[Finding]:
    """Can `cvdm up` listen, or does it listen already?"""
    wanted = [("service", settings.service_port, SERVICE_LIVES, "CVDM_SERVICE_PORT")]
    if tracks_locally(settings):
        wanted.append(("mlflow", settings.mlflow_port, "/health", "CVDM_MLFLOW_PORT"))
    if orchestrates_locally(settings):
        wanted.append(("prefect", settings.prefect_port, "/api/health", "CVDM_PREFECT_PORT"))
    for name, port, probe, setting in wanted:
        if port_is_free(settings.host, port):
            yield Finding(f"port {port}", "ok", f"free for {name}")
        elif answers(f"http://{reachable(settings.host)}:{port}{probe}"):
            yield Finding(f"port {port}", "ok", f"{name} runs there")
        else:
            remedy = f"Stop what listens there, or choose another port with {setting}."
            yield Finding(f"port {port}", "broken", f"taken, but not by {name}", remedy)


def _missing(need: Requirement) -> str | None:
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return f"{need.name} is missing"
    suits = need.specifier.contains(version, prereleases=True)
    return None if suits else f"{need.name} {version} is not {need.specifier}"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
