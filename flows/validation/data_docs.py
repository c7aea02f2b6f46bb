"""Great Expectations' own pages for one validation: every expectation, and what was observed instead.

The same suite on the same table as the verdict (expectations.py), as a static site without a server. Its
pages take their styles and scripts from public servers, so without a network they are plain, but complete;
the report's own page (page/) needs nothing.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import great_expectations as gx
from great_expectations.checkpoint import UpdateDataDocsAction

from cvdm.storage import storage_error
from flows.validation.checks import checks
from flows.validation.expectations import expectations, frame, quiet_context, whole_table
from flows.validation.report import ValidationReport

SITE, SUITE = "pairs", "image pairs"
TUTORIAL = ("glossary_scroller.gif", "validation_failed_unexpected_values.gif", "iterative-dev-loop.png")
"""Pictures of a walk-through that the site brings along: nine tenths of its size."""


def write_data_docs(report: ValidationReport, folder: Path) -> Path:
    """Build the site in `folder`, over an earlier one; returns its first page. Raises StorageError."""
    # the action mentions each page that it writes
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _build(report, folder)
        for name in TUTORIAL:
            (folder / "static" / "images" / name).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder / "index.html"


def _build(report: ValidationReport, folder: Path) -> None:
    context = quiet_context()
    context.add_data_docs_site(SITE, _site(folder))
    rules = checks(report.table, report.card, report.policy)
    suite = gx.ExpectationSuite(
        name=SUITE, expectations=[one for check in rules for one in expectations(check)]
    )
    definition = gx.ValidationDefinition(
        name=SUITE, data=whole_table(context), suite=context.suites.add(suite)
    )
    checkpoint = gx.Checkpoint(
        name=SUITE,
        validation_definitions=[context.validation_definitions.add(definition)],
        actions=[UpdateDataDocsAction(name="write", site_names=[SITE])],
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": 10},
    )
    context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame(report.table, report.card)})


def _site(folder: Path) -> dict[str, object]:
    return {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
