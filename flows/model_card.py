"""The model card: what a version is for, what it learned from, how it did, what the gate said, in Markdown.

Written once the gate has decided: `model-card.md` among the run's artifacts, and as the description of run
and registered version, where MLflow shows it. A description holds 5000 characters; what does not fit there
(the scores of each field, the gate's tests) is in the file. It states what was measured, nothing hoped for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvdm.card import SPLITS
from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.probes import mean_answers
from cvdm.sight import Sight
from cvdm.stratified import SCORES
from flows.evaluate import Comparison
from flows.gate import Decision
from flows.job import Job
from flows.registry import LONGEST_VALUE, Registry
from flows.train import Candidate
from flows.usage import Usage

FILE = "model-card.md"
SHOWN = (("psnr_fit", "PSNR (dB)", ".2f"), ("ssim_fit", "SSIM", ".4f"), ("crps", "CRPS", ".5f"))
"""Metrics of the tables: name, title, format."""
Scores = Mapping[str, Mapping[str, float]]
"""By metric, then field."""
REST = f"\n\n*The scores of each field and the gate's tests are in `{FILE}` among the run's artifacts.*\n"


@dataclass(frozen=True)
class Facts:
    """All that a card tells."""

    job: Job
    version: int
    run_id: str
    checkpoint: Checkpoint
    comparison: Comparison
    decision: Decision
    usage: Usage


def describe(
    job: Job,
    registry: Registry,
    candidate: Candidate,
    comparison: Comparison,
    decision: Decision,
    usage: Usage,
) -> None:
    """Write the card of a judged candidate to its run and its version."""
    checkpoint = load_checkpoint(candidate.checkpoint)
    facts = Facts(job, candidate.version, candidate.run.run_id, checkpoint, comparison, decision, usage)
    registry.artifacts.log_bytes(facts.run_id, model_card(facts).encode(), FILE)
    short = description(facts)
    registry.runs.describe(facts.run_id, short)
    registry.models.describe(job.task, facts.version, short)


def model_card(facts: Facts) -> str:
    """The whole card."""
    return (
        "\n\n".join([*_sections(facts), _strata(facts), *_probes(facts), _fields(facts), _tests(facts)])
        + "\n"
    )


def description(facts: Facts) -> str:
    """As much of the card as a description holds, the most important first."""
    text = "\n\n".join(_sections(facts)) + REST
    if len(text) <= LONGEST_VALUE:
        return text
    return text[: LONGEST_VALUE - len(REST)].rpartition("\n")[0] + REST


def _sections(facts: Facts) -> list[str]:
    return [
        _head(facts),
        _intended_use(facts),
        _results(facts),
        _calibration(facts),
        _data(facts),
        _training(facts),
        _limits(facts),
    ]


def _head(facts: Facts) -> str:
    decision = facts.decision
    reasons = "\n".join(f"- {_inline(reason)}" for reason in decision.reasons)
    return f"# {facts.job.task} version {facts.version}\n\n**Gate: {decision.verdict}**\n\n{reasons}"


def _intended_use(facts: Facts) -> str:
    card = facts.job.dataset.card
    modality = f" ({card.modality})" if card.modality else ""
    what = f"images of {card.structure or 'unnamed structures'}{modality}"
    lines = [
        f"Restores {_inline(what)} from quick or gentle acquisitions, with a map of where not to trust it.",
        "Made for images like its training data: same modality, detector and pixel size.",
    ]
    if card.pixel_size_um:
        lines.append(f"Pixels of {card.pixel_size_um:g} µm.")
    if card.inputs == "simulated":
        lines.append("**Its inputs were simulated** from the targets; real acquisitions may differ.")
    return "## Intended use\n\n" + " ".join(lines)


def _results(facts: Facts) -> str:
    ours, theirs = facts.comparison.candidate, facts.comparison.champion
    rows: list[tuple[str, Scores]] = [(f"**version {facts.version}**", ours.metrics)]
    if theirs is not None:
        rows.append((f"champion, version {facts.comparison.champion_version}", theirs.metrics))
    rows += [(name, scores) for name, scores in sorted(ours.baselines.items())]
    table = _table(
        ["mean over test fields", *(title for _, title, _ in SHOWN)],
        [
            [
                name,
                *(format(float(np.mean(list(scores[metric].values()))), form) for metric, _, form in SHOWN),
            ]
            for name, scores in rows
        ],
    )
    return (
        f"## Results\n\n{len(ours.metrics['crps'])} test fields, which neither training nor calibration saw; "
        f"{ours.samples} draws of {ours.steps} steps.\n\n{table}\n\n"
        "PSNR and SSIM after a least-squares intensity fit; CRPS in shares of the target's range, lower is "
        "better, and for a single image without spread its mean absolute error."
    )


def _calibration(facts: Facts) -> str:
    own, scores = facts.checkpoint.calibration, facts.comparison.candidate
    return (
        f"## Uncertainty\n\nThe interval promises {own.level:.0%} and covers {scores.coverage:.1%} of the "
        f"test pixels (fitted on {own.fields} calibration fields; uncalibrated it would cover "
        f"{own.raw_coverage:.1%} there). AUSE {scores.mean('ause'):.3f}: 0 where uncertainty ranks pixels "
        f"as their error does. {own.guarantee()} It holds for this number of draws and steps only. The "
        f"spread of the draws is multiplied by {own.dispersion:.2f}, with which it has the least CRPS on "
        "those fields."
    )


def _data(facts: Facts) -> str:
    job, dataset = facts.job, facts.job.dataset
    card = dataset.card
    splits = ", ".join(
        f"{len({pair.field for pair in dataset.split(name)})} {name} ({len(dataset.split(name))} pairs)"
        for name in SPLITS
    )
    facts_of_data = {
        "fields of view": splits,
        "inputs": card.inputs,
        "digest (SHA-256)": f"`{job.dataset_digest}`",
        "version (DVC)": f"`{job.data_version}`" if job.data_version else "not under DVC",
        "licence": card.licence or "not stated",
        "citation": card.citation or "not stated",
    }
    return "## Data\n\n" + _list(facts_of_data)


def _training(facts: Facts) -> str:
    job, record, usage = facts.job, facts.checkpoint.record, facts.usage
    kwh, co2e = usage.kwh, usage.co2e_kg
    energy = "not measured" if kwh is None else f"{kwh:.3g} kWh and {co2e or 0:.3g} kg CO2e ({usage.grid})"
    found = {
        "weights started from": f"{job.start.kind} ({job.start.reason})",
        "preset": f"{job.preset}, {record.steps_trained} steps, seed {record.seed}",
        "code": f"commit `{record.git_commit or 'unknown'}`",
        "trained": f"{record.created} on {job.device}",
        "energy, an estimate": f"{energy}, by {usage.method}",
        "device time": f"{usage.device_hours:.3g} h",
        "peak memory": _memory(usage),
        "run": f"`{facts.run_id}`",
    }
    return "## Training\n\n" + _list(found)


def _limits(facts: Facts) -> str:
    fields = len(facts.comparison.candidate.metrics["crps"])
    lines = [
        _seen(facts.checkpoint.sight),
        "A diffusion model invents texture below the noise: measure only what the uncertainty supports.",
        "Images far brighter or darker than its training are refused. Of another focus, noise or texture it "
        "warns, and widens their interval as calibration images needed after planted changes; structures "
        "that are new but of the same texture are not noticed.",
        f"Judged on {fields} test fields of one dataset; nothing is known about other instruments.",
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _seen(sight: Sight) -> str:
    """What one restoration takes and gives, in words."""
    what = f"the channels {', '.join(sight.channels)} together" if sight.channels else "one channel"
    around = f", with {sight.context} planes on each side along {sight.context_axis}" if sight.context else ""
    size = "as large" if sight.factor == 1 else f"{sight.factor} times finer"
    return f"Restores a plane of {what}{around}; the result is {size}."


def _strata(facts: Facts) -> str:
    """Where the interval holds: a row for each kind of pixels."""
    rows = [
        [name, *(f"{_mean(scores[column]):.4f}" for column in SCORES)]
        for name, scores in facts.comparison.candidate.strata.items()
    ]
    return (
        "## Uncertainty by kind of pixels\n\nThirds by the brightness of the reconstruction; smooth areas "
        "and edges of the target. Width, mean absolute error and CRPS in shares of the target's range, means "
        "over test fields.\n\n" + _table(["pixels", *SCORES], rows)
    )


def _probes(facts: Facts) -> list[str]:
    """What becomes of planted and erased structures; nothing of models that were not probed."""
    rows = [
        [name, f"{one.followed:.0%}", f"{one.covered:.0%}", f"{one.covered_before:.0%}", f"x {one.told:.2f}"]
        for name, one in mean_answers(facts.comparison.probes).items()
    ]
    if not rows:
        return []
    table = _table(["planted or erased", "shown", "covered", "covered before", "interval"], rows)
    return [
        "## Planted and erased structures\n\nHow much of the change the reconstruction shows (100 % is all "
        "of it), how many of its pixels the interval holds, and how much wider it is there; means over "
        f"{len(facts.comparison.probes)} test fields.\n\n{table}"
    ]


def _fields(facts: Facts) -> str:
    """One table per metric: a row for each test field, a column for each method."""
    ours, theirs = facts.comparison.candidate, facts.comparison.champion
    methods: list[tuple[str, Mapping[str, Mapping[str, float]]]] = [
        (f"version {facts.version}", ours.metrics)
    ]
    if theirs is not None:
        methods.append((f"version {facts.comparison.champion_version}", theirs.metrics))
    methods += sorted(ours.baselines.items())
    parts = ["## Every test field"]
    for metric, title, form in SHOWN:
        rows = [
            [field, *(format(scores[metric][field], form) for _, scores in methods)]
            for field in sorted(ours.metrics[metric])
        ]
        parts.append(_table([title, *(name for name, _ in methods)], rows))
    cover = [[field, f"{value:.3f}"] for field, value in sorted(ours.metrics["coverage"].items())]
    parts.append(_table(["coverage of the interval", f"version {facts.version}"], cover))
    return "\n\n".join(parts)


def _tests(facts: Facts) -> str:
    words = {True: "passed", False: "failed", None: "open"}
    rows = [
        [test.name, words[test.passed] if test.binding else "not binding", test.detail]
        for test in facts.decision.tests
    ]
    return "## The gate's tests\n\n" + _table(["test", "result", "numbers"], rows)


def _list(found: Mapping[str, str]) -> str:
    return "\n".join(f"- **{name}**: {_inline(text)}" for name, text in found.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_inline(cell) for cell in line)} |" for line in lines)


def _inline(text: str) -> str:
    """Text that breaks no table and starts no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _mean(by_field: Mapping[str, float]) -> float:
    return float(np.mean(list(by_field.values())))


def _memory(usage: Usage) -> str:
    device = "" if usage.peak_device_mib is None else f", {usage.peak_device_mib:.0f} MiB on the GPU"
    return f"{usage.peak_rss_mib:.0f} MiB{device}"
