"""Versions of the data: the good pairs of a batch come in together, the bad ones go to quarantine.

`ingest` builds the future dataset beside the present one (existing files are linked, new ones copied), judges
it, takes out what is refused, and swaps the two folders in one step; then `dvc add` records the content,
`dvc push` shares it, and git keeps the record: a commit of data.dvc and a tag. Refused pairs are moved to
quarantine last. A rerun after an interruption completes what is missing; the same batch twice changes
nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from cvdm.card import CARD_NAME, load_card
from cvdm.dataset import load_dataset, split_of
from cvdm.errors import ConfigError, DatasetError
from cvdm.ledger import LEDGER_NAME, Ledger, joined, load_ledger, write_ledger
from flows.ingest_note import announce
from flows.ingest_result import IngestOptions, IngestResult
from flows.new_card import card_for, write_card
from flows.progress import progress_bar
from flows.quarantine import Quarantined, quarantine
from flows.settings import Settings
from flows.staging import Batch, clear, staged, swap
from flows.validation import Finding, load_validation_policy
from flows.validation.batch import BatchReport, judge_batch
from flows.validation.features import SIDES
from flows.validation.measuring import PairFiles, files_of, measure
from flows.version import (
    Remote,
    VersionError,
    add_to_dvc,
    data_version,
    find_remote,
    ingest_note,
    one_ingest_at_a_time,
    push_data,
    record_file,
    require_held,
    require_in_project,
)
from flows.version_control import commit_record, is_checkout, require_clean_index

INCOMING = ".incoming"
"""Where the future dataset is built, on the same file system as the present one."""
SESSION_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def ingest(source: Path, task: str, settings: Settings, options: IngestOptions | None = None) -> IngestResult:
    """Add the good pairs of a folder (low/ and high/) to a task, version the result, set the others aside.

    Raises ConfigError, DatasetError, StorageError, VersionError, GitError; data stay as they were.
    """
    home, options = settings.dataset_dir(task), options or IngestOptions()
    if options.session is not None and not re.fullmatch(SESSION_NAME, options.session):
        raise ConfigError(
            "a session name of letters, digits, '.', '_' and '-'", f"'{options.session}'", "Use its date."
        )
    require_in_project(settings)
    # what is refused is moved away: neither the batch nor a folder that it links may be data
    places = {place.resolve() for place in (source, *(source / side for side in SIDES))}
    if any(place.is_relative_to(settings.data_dir.resolve()) for place in places):
        raise ConfigError(
            "a batch outside of the data folder",
            f"{source}, which is or links a part of it",
            "Copy what is to be ingested elsewhere: what is refused is moved away from a batch.",
        )
    commits = options.commit and is_checkout(settings.home)
    if commits:
        require_clean_index(settings.home)
    with one_ingest_at_a_time(settings):
        clear(settings.data_dir / INCOMING)  # `dvc add` would record it
        require_held(settings)
        scratch = settings.mlruns_dir / "new-card" / f"{task}-ingest"
        with (
            card_for(source, home, scratch, options.card, options.name_pattern) as card,
            staged(source, home, settings.data_dir / INCOMING / task, card.file) as batch,
        ):
            _check_task(batch.folder, task)
            verdict = _judged(batch, settings, options.session, choose_seed=card.made)
            if verdict.accepted:
                if card.made:
                    chosen = replace(load_card(batch.folder), split=verdict.split)
                    write_card(batch.folder / CARD_NAME, chosen)
                _take_in(batch, verdict, home, options.session, settings)
        # the block is left first: what lies beside the dataset would be recorded with it
        version = add_to_dvc(settings) if home.is_dir() else None
        ingest_note(settings).unlink(missing_ok=True)
        remote = find_remote(settings) if version and options.push else None
        pushed, problem = _pushed(settings, remote) if version and options.push else (False, None)
        sha, tag = None, None
        if version and commits:
            embedded = remote.folder if remote else None
            sha, tag = commit_record(settings.home, record_file(settings), task, version, also=embedded)
        rejected = (*batch.arrivals.clashes(), *verdict.rejected)
        moved = _set_aside(batch, rejected, source, settings, task, options.session)
    return IngestResult(
        task=task,
        session=options.session,
        added=verdict.accepted,
        known=len(batch.arrivals.known),
        splits=_splits_of_new(verdict),
        scenes=verdict.scenes,
        rejected=rejected,
        warnings=verdict.warnings,
        quarantined=moved,
        everything=verdict.everything,
        files=_places(home, moved),
        dataset_digest=load_dataset(home).digest if home.is_dir() else None,
        data_version=version,
        commit=sha,
        tag=tag,
        pushed=pushed,
        push_problem=problem,
    )


def _judged(batch: Batch, settings: Settings, session: str | None, *, choose_seed: bool) -> BatchReport:
    """Measure the future dataset and judge what is new in it."""
    card = load_card(batch.folder)
    sessions = dict.fromkeys(batch.added, session) if session is not None else {}
    with progress_bar("validate", "pair") as progress:
        files = files_of(batch.folder, card, {**load_ledger(batch.folder).sessions, **sessions})
        measured = measure(files, card, progress)
    policy = load_validation_policy(settings.params_file)
    return judge_batch(batch.folder, card, measured, batch.added, policy, choose_seed=choose_seed)


def _splits_of_new(verdict: BatchReport) -> dict[str, str]:
    """By new field, its split."""
    rows = verdict.report.table if verdict.report else ()
    return {row.field: row.split for row in rows if row.name in verdict.accepted and row.field and row.split}


def _take_in(batch: Batch, verdict: BatchReport, home: Path, session: str | None, settings: Settings) -> None:
    """Put the future dataset, without what was refused, into the place of the present one."""
    batch.remove(set(batch.added) - set(verdict.accepted))
    ledger = load_ledger(batch.folder)
    sessions = dict.fromkeys(verdict.accepted, session) if session is not None else {}
    # new scenes first: they are led as the groups are that they touch
    scenes = joined((*verdict.scenes, *ledger.scenes))
    write_ledger(batch.folder, Ledger({**ledger.sessions, **sessions}, scenes))
    _require_as_judged(batch.folder, verdict)
    new = batch.folder / LEDGER_NAME
    if new.is_file():
        name = (home / LEDGER_NAME).relative_to(settings.home).as_posix()
        announce(ingest_note(settings), data_version(settings), {name: new})
    swap(batch.folder, home)


def _require_as_judged(folder: Path, verdict: BatchReport) -> None:
    """Raise before anything is taken in unless each field will be in the split that it was judged in."""
    card = load_card(folder)
    moved = {
        row.field: (row.split, split_of(row.field, card))
        for row in (verdict.report.table if verdict.report else ())
        if row.field and row.split != split_of(row.field, card)
    }
    if moved:
        raise AssertionError(f"fields in other splits than they were judged in: {moved}")


def _set_aside(
    batch: Batch,
    rejected: tuple[Finding, ...],
    source: Path,
    settings: Settings,
    task: str,
    session: str | None,
) -> Quarantined | None:
    names = {finding.name for finding in rejected}
    if not names:
        return None
    pairs = [pair for pair in (*batch.arrivals.new, *batch.arrivals.clashing) if pair.name in names]
    place = settings.home / "quarantine" / task
    moved = quarantine(place, session or source.resolve().name, pairs, rejected)
    return replace(moved, left=(*moved.left, *(pair.name for pair, _ in batch.arrivals.closed)))


def _places(home: Path, moved: Quarantined | None) -> dict[str, PairFiles]:
    """Where pairs are now: in the dataset, or in quarantine."""
    present = files_of(home, load_card(home)) if home.is_dir() else ()
    return {pair.name: pair for pair in (*present, *(moved.pairs if moved else ()))}


def _pushed(settings: Settings, remote: Remote | None) -> tuple[bool, str | None]:
    """Whether the remote has this version, with the reason where it has not."""
    if remote is None:
        return False, "no DVC remote is set; `dvc remote add --default NAME URL` sets one"
    try:
        push_data(settings)
    except VersionError as error:
        return False, f"{error.actual} Ingest the batch again, or run `dvc push`."
    return True, None


def _check_task(staging: Path, task: str) -> None:
    found = load_card(staging).task
    if found != task:
        raise DatasetError(f"a card of task {task}", f"'{found}'", "Correct the card, or name that task.")
