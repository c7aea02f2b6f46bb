"""Great Expectations' Data Docs of one validation: every rule with its result, as a folder of web pages.

The pages load their style sheets, icons and scripts from public servers. Without network they are plain but
complete, apart from their index, which is empty then; so the page of the results is the one to link. The
report of flows/validation/page needs none of this.
"""

from __future__ import annotations

import shutil
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.checkpoint import UpdateDataDocsAction

from cvdm.storage import storage_error
from flows.validation.checks import checks
from flows.validation.expectations import SUITE, expectations, frame, table_definition
from flows.validation.report import ValidationReport
from flows.validation.rules import Check

SITE = "report"
UNUSED = ("static/images/*.gif", "static/images/iterative-dev-loop.png")
"""Pictures of an introduction to Great Expectations that is switched off: nine tenths of a site."""


def write_data_docs(report: ValidationReport, folder: Path) -> Path:
    """Write the site of one report into `folder`, in place of an older one; returns the page of its results.

    The same table and rules are evaluated as for the report. Raises StorageError.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            site = Path(temporary) / "site"
            _build(report, site)
            for pattern in UNUSED:
                for picture in site.glob(pattern):
                    picture.unlink()
            if folder.exists():
                shutil.rmtree(folder)
            site.rename(folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    (page,) = (folder / "validations").rglob("*.html")
    return page


def _build(report: ValidationReport, site: Path) -> None:
    context, definition = table_definition()
    context.add_data_docs_site(SITE, _site(site))
    checked = checks(report.table, report.card, report.policy, established=report.established)
    rules = [one for check in checked for one in _in_words(check)]
    suite = context.suites.add(gx.ExpectationSuite(name=SUITE, expectations=rules))
    validation = gx.ValidationDefinition(name=SUITE, data=definition, suite=suite)
    checkpoint = gx.Checkpoint(
        name=SUITE,
        validation_definitions=[context.validation_definitions.add(validation)],
        actions=[UpdateDataDocsAction(name="site", site_names=[SITE])],
        result_format={"result_format": "SUMMARY"},
    )
    table = _harmless(frame(report.table, report.card))
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table})
    (result,) = outcome.run_results.values()
    if not rules or len(result.results) != len(rules):
        raise RuntimeError(f"{len(result.results)} results for {len(rules)} expectations")


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def _in_words(check: Check) -> tuple[Any, ...]:
    """The expectations of a check, described as in the report."""
    rules = expectations(check)
    consequence = "else refused" if check.severity == "error" else "else a warning"
    for position, rule in enumerate(rules):
        words = check.expected if position == 0 else f"{check.expected} (a value in every row)"
        rule.description = escape(f"{words}; {consequence}").replace(
            "$", "$$"
        )  # "$" starts a name in its templates
    return rules


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    """The table with text that no browser takes for markup: Great Expectations escapes nothing."""
    return table.map(lambda value: escape(value) if isinstance(value, str) else value)
