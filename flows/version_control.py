"""Git, as far as a data version needs it: one commit of one file, and a tag."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cvdm.errors import CvdmError

SHORT = 8
"""Characters of a data version in a tag's name."""


class GitError(CvdmError):
    """Git refuses, or is not in a state to commit."""


def is_checkout(home: Path) -> bool:
    """Whether a folder is the top of a git checkout."""
    return (home / ".git").exists() and _succeeds(home, "rev-parse", "--git-dir")


def require_clean_index(home: Path) -> None:
    """Raise GitError unless a commit can be made that holds the data's record and nothing else."""
    if not _succeeds(home, "diff", "--cached", "--quiet"):
        raise GitError(
            "nothing staged in git, because an ingest commits data.dvc on its own",
            "staged changes",
            "Commit or unstage them (`git restore --staged .`), or ingest with --no-commit.",
        )
    if not _succeeds(home, "var", "GIT_COMMITTER_IDENT"):
        raise GitError(
            "git to know who commits",
            "no user.name and user.email",
            "Set them with `git config user.name` and `git config user.email`, or ingest with --no-commit.",
        )


def commit_record(
    home: Path, record: Path, task: str, version: str, *, also: Path | None = None, tagged: bool = True
) -> tuple[str | None, str | None]:
    """Commit the record of a data version and tag it; (None, None) when git knows both already.

    also:   a folder whose new files belong to the same commit.
    tagged: whether the commit gets a tag, as the first one of a version does.
    A commit whose tag is missing, because an ingest was killed in between, is tagged now.
    """
    path, message, tag = str(record), f"Data of {task}: {version}", f"data/{task}/{version[:SHORT]}"
    paths = [path] if also is None or not also.exists() else [path, str(also)]
    git(home, "add", "--", *paths)
    if not _succeeds(home, "diff", "--cached", "--quiet", "--", *paths):
        git(home, "commit", "--quiet", "--message", message, "--", *paths)
    elif not tagged or git(home, "log", "-1", "--format=%s", "--", path) != message:
        return None, None  # another task's ingest made this version
    elif _succeeds(home, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}"):
        return None, None
    commit = git(home, "log", "-1", "--format=%H", "--", path)
    if not tagged:
        return commit, None
    if not _succeeds(home, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}"):
        git(home, "tag", "--annotate", "--message", message, tag, commit)
    # a version that came back has its tag on the commit that first recorded it
    return commit, tag if tag in git(home, "tag", "--points-at", commit).split() else None


def git(home: Path, *arguments: str) -> str:
    """What a git command prints. Raises GitError."""
    done = _run(home, *arguments)
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())[:300]
        raise GitError(f"`git {arguments[0]}` to succeed", reason, "Mend this, then run the command again.")
    return done.stdout.strip()


def _succeeds(home: Path, *arguments: str) -> bool:
    return _run(home, *arguments).returncode == 0


def _run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True)
    except OSError as error:
        raise GitError(
            "git to be installed", str(error), "Install it, or ingest with --no-commit."
        ) from error
