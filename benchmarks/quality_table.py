"""The README's table of quality, from the scores of the shipped base models.

    python benchmarks/quality_table.py [--check]

Writes the table anew from models/*.evaluation.json, which `dvc repro` makes and `dvc pull` fetches. With
--check nothing is written, and the exit code is 1 when the README says something else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[1]
README = HOME / "README.md"
BEGIN, END = "<!-- written by benchmarks/quality_table.py -->\n", "<!-- to here -->\n"
TITLES = {
    "input": "input as it is",
    "best-blur": "best Gaussian blur",
    "richardson-lucy": "Richardson-Lucy",
    "regression-mean": "regression mean alone",
    "constant-interval": "regression mean, one spread for all pixels",
}
HEAD = (
    "| | PSNR (dB) | SSIM | CRPS | coverage of the 90 % interval | worst field |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = with_table(before, quality_table())
    if not options.check:
        README.write_text(after, encoding="utf-8")
    same = before == after
    print(
        "the README's table is up to date"
        if same or not options.check
        else "the README's table is out of date"
    )
    return int(options.check and not same)


def with_table(text: str, table: str) -> str:
    """The text with another table between the marks."""
    head, _, rest = text.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise SystemExit(f"Expected the lines {BEGIN!r} and {END!r} in {README}; got a README without.")
    return head + BEGIN + table + END + tail


def quality_table() -> str:
    """All base models, each beside its baselines: means over test fields, then field by field."""
    files = sorted((HOME / "models").glob("*.evaluation.json"))
    if not files:
        raise SystemExit(f"Expected scores in {HOME / 'models'}; got none. Run `dvc pull` or `dvc repro`.")
    models = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    means = HEAD + "".join(map(mean_rows, models))
    return means + "".join(f"\n{field_rows(model)}" for model in models)


def mean_rows(scores: dict[str, Any]) -> str:
    """One model."""
    per_field = scores["metrics"]["psnr"]["per_field"]
    lines = [f"| **`{scores['task']}`**, {len(per_field)} test fields | | | | | |"]
    for name, values in scores["baselines"].items():
        lines.append(f"| {TITLES[name]} | {cells(values)} | | |")
    worst = min(scores["metrics"]["coverage"]["per_field"].values())
    title = f"**CVDM**, {scores['samples']} draws of {scores['steps']} steps"
    lines.append(f"| {title} | {cells(scores['metrics'])} | {scores['coverage']:.3f} | {worst:.3f} |")
    return "".join(f"{line}\n" for line in lines)


def cells(values: dict[str, dict[str, float]]) -> str:
    """PSNR, SSIM and CRPS."""
    psnr, ssim, crps = (values[name]["mean"] for name in ("psnr_fit", "ssim_fit", "crps"))
    return f"{psnr:.2f} | {ssim:.3f} | {crps:.4f}"


def field_rows(scores: dict[str, Any]) -> str:
    """PSNR and CRPS of one model and its baselines, a line a field."""
    columns = {TITLES[name]: values for name, values in scores["baselines"].items()}
    columns["**CVDM**"] = scores["metrics"]
    head = f"| `{scores['task']}`, PSNR (dB) / CRPS | {' | '.join(columns)} |\n"
    lines = [head, "| --- " * (len(columns) + 1) + "|\n"]
    for field in scores["metrics"]["psnr_fit"]["per_field"]:
        found = (
            f"{values['psnr_fit']['per_field'][field]:.2f} / {values['crps']['per_field'][field]:.4f}"
            for values in columns.values()
        )
        lines.append(f"| {field} | {' | '.join(found)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
