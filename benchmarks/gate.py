"""How often the gate promotes by chance, and how often it sees a better model: simulated from real fields.

    python benchmarks/gate.py [--models models/fmd-confocal-nuclei OTHER ...] [--plot power.png]

Real part: every model is measured on the fields that none of them learned from, one capture of each. Two
models differ from field to field; with a single model, two of its samplings by different seeds do. Simulated
part: test sets of n fields are drawn from these, with the champion's scores, and for the candidate the
champion's plus the difference of that field, centred over fields and with a random sign, so that both are
equally good. A better candidate has errors smaller by a stated share: CRPS, interval width and 1 - SSIM
shrink by it, PSNR gains what follows. Each set is judged by `flows.gate.decide` under the policy of
params.yaml, with two kinds of strata that split its fields in halves.

Prints the share of promotions over number of fields and effect, of an equal model in the first column. Exit
code 1 when an equal model is promoted in more than 5 % (and two standard errors), or when no number of fields
shows an effect of --effect in 80 %. Resolution and residual, which not every task has, are not simulated.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.dataset import Dataset, load_dataset
from cvdm.evaluation import Evaluation
from cvdm.measuring import evaluate
from cvdm.schedule import ScheduleExtremes
from flows.gate import Background, GatePolicy, decide, load_policy

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
HELD_OUT = ("validation", "calibration", "test")
METRICS = ("crps", "psnr_fit", "ssim_fit", "width", "coverage")
RATIOS = ("crps", "width")
"""Metrics whose differences are shares."""
FIELDS = (4, 5, 6, 8, 10, 12, 16, 24)
EFFECTS = (0.0, 0.01, 0.02, 0.05, 0.10)
GOAL_FALSE, GOAL_POWER = 0.05, 0.8
Rates = dict[tuple[int, float], Counter[str]]
"""Verdicts by number of fields and effect."""
SOUND = ScheduleExtremes(finite=True, falling=True, clean=7.0, noise=-7.0)


@dataclass(frozen=True)
class Pool:
    """Champion's scores by metric (F,), and how a rival differs from them, centred; a row is a field."""

    scores: dict[str, np.ndarray]
    regression: dict[str, np.ndarray]
    """Scores of the champion's own regression mean."""
    differences: dict[str, np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/fmd-confocal-nuclei"))
    parser.add_argument("--models", type=Path, nargs="+", default=[Path("models/fmd-confocal-nuclei")])
    parser.add_argument("--seeds", type=int, default=2, help="samplings of a single model")
    parser.add_argument("--sets", type=int, default=400, help="simulated test sets per number and effect")
    parser.add_argument("--effect", type=float, default=0.05, help="that should be seen")
    parser.add_argument("--plot", type=Path, help="picture of the power curve to write (PNG)")
    options = parser.parse_args()
    measured = measure(options.models, load_dataset(options.data), options.seeds)
    pools = [pool_of(*pair) for pair in itertools.permutations(measured, 2)]
    for name in ("crps", "psnr_fit", "ssim_fit", "width"):
        spread = np.mean([pool.differences[name].std() for pool in pools])
        print(f"{name}: spread of field differences {spread:.4g}{' (share)' if name in RATIOS else ''}")
    policy = load_policy(PARAMS)
    effects = sorted({*EFFECTS, options.effect, -options.effect})
    rates = {
        (fields, effect): verdicts(pools, fields, effect, policy, options.sets)
        for fields in tqdm(FIELDS, desc="simulate", unit="number of fields")
        for effect in effects
    }
    show(rates, effects, options.sets)
    if options.plot:
        draw(rates, [effect for effect in effects if effect >= 0], options.plot)
    return judged(rates, options.effect, options.sets)


def measure(models: list[Path], dataset: Dataset, seeds: int) -> list[Evaluation]:
    """Every model on all held-out fields, one capture each; a single model with several sampling seeds."""
    first = {pair.field: pair for pair in reversed(dataset.pairs)}
    dataset = replace(dataset, pairs=tuple(pair for _, pair in sorted(first.items())))
    loaded = [load_checkpoint(path) for path in models]
    numbers = range(seeds) if len(loaded) == 1 else (0,)
    return [held_out_scores(model, dataset, seed) for model in loaded for seed in numbers]


@torch.inference_mode()
def held_out_scores(model: Checkpoint, dataset: Dataset, seed: int) -> Evaluation:
    """One evaluation over all splits that the model did not learn from."""
    sampling = replace(model.recipe.sampling, seed=seed)
    with tqdm(desc=f"seed {seed} of the model of {model.record.created}", total=len(HELD_OUT)) as bar:
        parts = []
        for split in HELD_OUT:
            parts.append(evaluate(model, dataset, split, sampling=sampling, with_baselines=False))
            bar.update()

    def joined(name: str, scores: list[dict[str, dict[str, float]]]) -> dict[str, float]:
        return {field: value for part in scores for field, value in part[name].items()}

    regressions = [part.baselines["regression-mean"] for part in parts]
    return replace(
        parts[-1],
        metrics={name: joined(name, [part.metrics for part in parts]) for name in METRICS},
        baselines={
            "regression-mean": {name: joined(name, regressions) for name in ("crps", "psnr_fit", "ssim_fit")}
        },
    )


def pool_of(champion: Evaluation, rival: Evaluation) -> Pool:
    """Differences of a rival by field, their mean over fields taken off."""
    fields = sorted(champion.metrics["crps"])

    def rows(scores: dict[str, dict[str, float]]) -> dict[str, np.ndarray]:
        return {name: np.array([values[field] for field in fields]) for name, values in scores.items()}

    ours, theirs = rows(rival.metrics), rows(champion.metrics)
    differences = {
        name: np.log(ours[name] / theirs[name]) if name in RATIOS else ours[name] - theirs[name]
        for name in METRICS
    }
    centred = {name: values - values.mean() for name, values in differences.items()}
    return Pool(theirs, rows(champion.baselines["regression-mean"]), centred)


def verdicts(pools: list[Pool], fields: int, effect: float, policy: GatePolicy, sets: int) -> Counter[str]:
    """How often each verdict falls on simulated test sets."""
    rng = np.random.default_rng((fields, round(1000 * (effect + 1))))
    found: Counter[str] = Counter()
    for index in range(sets):
        champion, candidate, background = simulated(pools[index % len(pools)], fields, effect, rng)
        found[decide(candidate, champion, policy, background).verdict] += 1
    return found


def simulated(
    pool: Pool, fields: int, effect: float, rng: np.random.Generator
) -> tuple[Evaluation, Evaluation, Background]:
    """A champion, a candidate whose errors are smaller by `effect`, and two kinds of halves of the fields."""
    rows, signs = rng.integers(len(pool.scores["crps"]), size=fields), rng.choice((-1.0, 1.0), size=fields)
    theirs = {name: values[rows] for name, values in pool.scores.items()}
    moved = {name: signs * values[rows] for name, values in pool.differences.items()}
    ours = {name: theirs[name] * np.exp(moved[name]) * (1 - effect) for name in RATIOS}
    ours["psnr_fit"] = theirs["psnr_fit"] + moved["psnr_fit"] - 20 * math.log10(1 - effect)
    ours["ssim_fit"] = 1 - (1 - theirs["ssim_fit"]) * (1 - effect) + moved["ssim_fit"]
    regression = {name: values[rows] for name, values in pool.regression.items()}
    names = [f"f{index:02d}" for index in range(fields)]
    strata = {kind: _halves(names, kind, rng) for kind in ("structure", "input")}
    champion, candidate = (_evaluation(names, scores, regression) for scores in (theirs, ours))
    return champion, candidate, Background(strata=strata)


def show(rates: Rates, effects: list[float], sets: int) -> None:
    """Promotions over number of fields and effect, and what becomes of a worse model."""
    better = [effect for effect in effects if effect >= 0]
    print(f"share of promotions, {sets} simulated test sets each")
    print(f"{'fields':>8}" + "".join(f"{'equal' if not e else f'{e:.0%} better':>12}" for e in better))
    for fields in FIELDS:
        print(f"{fields:8}" + "".join(f"{rates[fields, e]['promote'] / sets:12.3f}" for e in better))
    for effect in (0.0, *(effect for effect in effects if effect < 0)):
        told = ", ".join(f"{fields}: {rates[fields, effect]['reject'] / sets:.3f}" for fields in FIELDS)
        model = f"a model {-effect:.0%} worse" if effect else "an equal model"
        print(f"share of rejections of {model}, by fields: {told}")


def judged(rates: Rates, effect: float, sets: int) -> int:
    """The last line and the exit code."""
    chance = max(rates[fields, 0.0]["promote"] / sets for fields in FIELDS)
    enough = next((n for n in FIELDS if rates[n, effect]["promote"] / sets >= GOAL_POWER), None)
    allowed = GOAL_FALSE + 2 * math.sqrt(GOAL_FALSE * (1 - GOAL_FALSE) / sets)
    print(
        f"an equal model is promoted in at most {chance:.1%}; a model {effect:.0%} better "
        + (f"in {GOAL_POWER:.0%} from {enough} fields on" if enough else f"too seldom with any of {FIELDS}")
    )
    return int(chance > allowed or enough is None)


def draw(rates: Rates, effects: list[float], path: Path) -> None:
    """Share of promotions over the number of fields, a line per effect."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for effect in effects:
        shares = [rates[n, effect]["promote"] / rates[n, effect].total() for n in FIELDS]
        axes.plot(FIELDS, shares, marker="o", label=f"{effect:.0%} better" if effect else "equal")
    for goal in (GOAL_FALSE, GOAL_POWER):
        axes.axhline(goal, color="0.7", linewidth=0.8, linestyle="--")
    axes.set(xlabel="test fields", ylabel="share promoted", ylim=(-0.02, 1.02), title="Power of the gate")
    axes.set_xticks(FIELDS)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150)


def _evaluation(
    names: list[str], scores: dict[str, np.ndarray], regression: dict[str, np.ndarray]
) -> Evaluation:
    def by_field(rows: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {name: dict(zip(names, map(float, values), strict=True)) for name, values in rows.items()}

    own = by_field(scores | {"coverage": np.full(len(names), 0.9)})
    return Evaluation(
        "simulated", "test", own, {"regression-mean": by_field(regression)}, 8, 5, "-", 0, 1.0, SOUND
    )


def _halves(names: list[str], kind: str, rng: np.random.Generator) -> dict[str, str]:
    order = rng.permutation(len(names))
    return {names[index]: f"{kind} {'one' if place % 2 else 'two'}" for place, index in enumerate(order)}


if __name__ == "__main__":
    sys.exit(main())
