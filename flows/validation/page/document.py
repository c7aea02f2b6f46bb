"""The page as a whole: what a validation found, in the order in which one wants to know it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from cvdm.errors import DatasetError
from cvdm.storage import replacing
from flows.validation.measuring import PairFiles, files_of
from flows.validation.page.findings import expected_of, grouped
from flows.validation.page.marks import LEVELS
from flows.validation.page.pairs import PairEntry, cards, chosen, entries
from flows.validation.page.shifts import shift_plot
from flows.validation.page.strips import strips
from flows.validation.page.words import threshold_title
from flows.validation.quantities import QUANTITIES
from flows.validation.report import ValidationReport

HERE = Path(__file__).parent
SPLIT_WORDS = {
    "train": "the model learns from these",
    "validation": "watched while it learns",
    "calibration": "set the width of its intervals",
    "test": "decide whether it is promoted",
}


@dataclass(frozen=True)
class Threshold:
    """A line of the table of thresholds."""

    title: str
    side: str
    warn: str
    refuse: str
    overridden: bool


@dataclass(frozen=True)
class SplitLine:
    """How many fields and pairs a split holds."""

    name: str
    words: str
    fields: int
    pairs: int


def write_page(
    report: ValidationReport,
    path: Path,
    *,
    date: datetime,
    docs: Path | None = None,
    files: Mapping[str, PairFiles] | None = None,
    batch: Collection[str] = (),
) -> None:
    """Write the report as one HTML file that needs nothing else. Raises StorageError.

    date:  when the dataset was judged.
    docs:  first page of Great Expectations' Data Docs of this validation, linked relative to `path`.
    files: images by name of the pair, where they are not in the report's folder (any more).
    batch: names of the pairs that came now, if others were there before.
    """
    anchors = [f"pair-{number}" for number in range(len(report.table))]
    listed = entries(report, anchors)
    by_name = {row.name: anchor for row, anchor in zip(report.table, anchors, strict=True)}
    pictured = chosen(listed)
    shown = {entry.anchor for entry in pictured}
    whole = [one for one in (*report.rejected, *report.warnings) if one.name is None]
    content = {
        "report": report,
        "card": report.card,
        "folder": report.root.resolve().name,
        "date": date,
        "counts": _counts(listed),
        "batch": _counts([entry for entry in listed if entry.row.name in batch]) if batch else None,
        "splits": _splits(report),
        "refusals": grouped((one for one in report.rejected if one.name), by_name),
        "cautions": grouped((one for one in report.warnings if one.name), by_name),
        "whole": grouped(whole, by_name),
        "whole_refused": any(one.severity == "error" for one in whole),
        "strips": strips(report.table, anchors, report.policy),
        "shifts": Markup(shift_plot(report.table, anchors, report.policy.shift_px)),  # noqa: S704  # escaped there
        "cards": cards(pictured, files or _files(report), report.policy, report.card.sight),
        "pictured": _counts(pictured),
        "others": [entry for entry in listed if entry.anchor not in shown],
        "quantities": QUANTITIES,
        "thresholds": _thresholds(report),
        "overridden": [threshold_title(name) for name in report.overridden],
        "docs": None if docs is None else quote(Path(os.path.relpath(docs, path.parent)).as_posix()),
    }
    text = _template().render(content)
    with replacing(path) as temporary:
        # names of files may hold bytes that are no text
        temporary.write_bytes(text.encode("utf-8", "replace"))


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "tight": _tight, "grey": _grey}
    environment.globals["expected"] = expected_of
    for name in ("page.css", "page.js"):
        environment.globals[name.replace(".", "_")] = Markup((HERE / name).read_text(encoding="utf-8"))  # noqa: S704
    return environment.get_template("page.html")


def _code(text: str) -> Markup:
    """Text in which `names of settings` are set apart."""
    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(parts))


def _tight(text: str) -> str:
    """Text whose numbers stay with their units at the end of a line."""
    return re.sub(r"(?<=\d) (?=%|px|dB|°|µm|nm)", "\u00a0", text)


def _grey(value: float) -> str:
    """A pixel value: whole where it is large."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _files(report: ValidationReport) -> dict[str, PairFiles]:
    """Images by name of their pair; none where the folder has gone since it was judged."""
    try:
        return {pair.name: pair for pair in files_of(report.root, report.card)}
    except DatasetError:
        return {}


def _counts(listed: Sequence[PairEntry]) -> dict[str, int]:
    counts = Counter(entry.verdict for entry in listed)
    return {level: counts[level] for level in reversed(LEVELS)}


def _splits(report: ValidationReport) -> list[SplitLine]:
    pairs = Counter(row.split for row in report.table)
    return [SplitLine(name, SPLIT_WORDS[name], count, pairs[name]) for name, count in report.fields().items()]


def _thresholds(report: ValidationReport) -> list[Threshold]:
    lines: dict[str, Threshold] = {}
    for quantity in QUANTITIES:
        limits = quantity.limits(report.policy)
        warn, refuse = (
            "–" if limit is None else quantity.show(limit) for limit in (limits.warn, limits.refuse)
        )
        worse = "above" if quantity.worse == "above" else "below"
        lines.setdefault(
            quantity.name,
            Threshold(quantity.title, worse, warn, refuse, quantity.name in report.overridden),
        )
    return list(lines.values())
