"""How the command talks: answers on standard output, everything else on standard error.

A command is a function that returns an Answer. With `--json` standard output is exactly one JSON document,
whatever a library or a child process prints: file descriptor 1 points to standard error meanwhile. A user's
mistake is one paragraph and exit code 1, with `--json` a JSON document as well; a traceback only on request.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import traceback as tracebacks
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, TextIO, get_type_hints

import typer

from cvdm.errors import CvdmError

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143
TRACEBACK = "CVDM_TRACEBACK"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
WithTraceback = Annotated[
    bool, typer.Option("--traceback", envvar=TRACEBACK, help="Show where an error was raised.")
]


@dataclass(frozen=True)
class Answer:
    """What a command found."""

    document: Any
    """For programs."""
    text: str
    """For people."""
    code: int = 0
    """Exit code."""


def say(text: str) -> None:
    """Tell a person something that is not the answer."""
    typer.echo(text, err=True)


def command(app: typer.Typer) -> Callable[[Callable[..., Answer | None]], Callable[..., None]]:
    """Register a function as a command with --traceback, and --json when it returns an Answer."""

    def register(function: Callable[..., Answer | None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        answers = hints.pop("return") is Answer
        own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
        added = [("as_json", AsJson)] if answers else []
        added.append(("traceback", WithTraceback))
        flag = inspect.Parameter.KEYWORD_ONLY
        own += [inspect.Parameter(name, flag, default=False, annotation=kind) for name, kind in added]

        @wraps(function)
        def run(*, as_json: bool = False, traceback: bool = False, **choices: Any) -> None:
            code = perform(lambda: function(**choices), function.__name__, as_json, traceback)
            if code:
                raise typer.Exit(code)

        ordered = sorted(own, key=lambda p: (p.kind, p.default is not inspect.Parameter.empty))
        run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]  # read by typer
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
        app.command()(run)
        return run

    return register


def perform(function: Callable[[], Answer | None], name: str, as_json: bool, traceback: bool) -> int:
    """Run a command and show its answer or its failure; returns the exit code."""
    with reserved_output(as_json) as output:
        try:
            answer = function()
        except typer.BadParameter:  # typer words it and exits with code 2
            raise
        except CvdmError as error:
            document: dict[str, Any] = error.as_dict()
            return _failed(name, str(error), document, output, as_json, traceback)
        except KeyboardInterrupt:
            say(f"cvdm {name}: interrupted; run it again to go on.")
            return INTERRUPTED
        except Exception as error:  # any: a bug is one sentence too, unless somebody wants to see it
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            document = {
                "error": "UnexpectedError",
                "expected": "no failure inside the platform",
                "actual": reason,
                "remedy": "Run it again with --traceback and report what it shows.",
            }
            return _failed(
                name,
                f"Unexpected failure: {reason}. {document['remedy']}",
                document,
                output,
                as_json,
                traceback,
            )
        if answer is None:
            return 0
        typer.echo(json.dumps(answer.document, indent=2) if as_json else answer.text, file=output)
        return answer.code


@contextmanager
def reserved_output(reserve: bool) -> Iterator[TextIO]:
    """Standard output for the answer alone; what others print meanwhile goes to standard error."""
    if not reserve:
        yield sys.stdout
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    before, sys.stdout = sys.stdout, sys.stderr
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as output:
            yield output
    finally:
        sys.stdout = before
        os.dup2(kept, 1)
        os.close(kept)


def stop_on_sigterm() -> None:
    """Let SIGTERM unwind like any exception, so that what was started is stopped."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)


def _failed(
    name: str, text: str, document: dict[str, Any], output: TextIO, as_json: bool, traceback: bool
) -> int:
    if traceback:
        tracebacks.print_exc(file=sys.stderr)
    say(f"cvdm {name}: {text}")
    if as_json:
        typer.echo(json.dumps(document, indent=2), file=output)
    return FAILED
