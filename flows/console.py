"""How the command talks: answers on standard output, everything else on standard error.

A command is a function that returns an Answer. With `--json` standard output is exactly one JSON document,
whatever a library or a child process prints: file descriptor 1 points to standard error meanwhile. A user's
mistake is one paragraph and exit code 1, with `--json` a JSON document as well; a traceback only on request.
A wrong call has exit code 2 and Ctrl-C 130, with `--json` each with a document, too.

Not covered: SIGTERM, and a command that does not exist; both leave standard output empty.
"""

from __future__ import annotations

import inspect
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
from typer.core import TyperCommand

from cvdm.errors import CvdmError
from flows.plain_json import plain_json

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143
TRACEBACK = "CVDM_TRACEBACK"
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for any wrong call; it exports this one of its kinds only."""

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


class Command(TyperCommand):
    """A command whose call, when typer refuses it, is answered for programs as well."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Parse the arguments. Raises typer's UsageError."""
        as_json = "--json" in args  # parsing takes them out
        try:
            return super().make_context(info_name, args, *more, **extra)
        except USAGE_ERROR as error:
            if as_json:
                typer.echo(plain_json(_misuse(str(info_name), error)))
            raise


def say(text: str) -> None:
    """Tell a person something that is not the answer."""
    typer.echo(text, err=True)


def command(
    app: typer.Typer, group: str = ""
) -> Callable[[Callable[..., Answer | None]], Callable[..., None]]:
    """Register a function as a command with --traceback, and --json when it returns an Answer.

    group: the name under which the commands of `app` stand, if it is not the whole command.
    """

    def register(function: Callable[..., Answer | None]) -> Callable[..., None]:
        # commands of a group are named after it, too: "data log"
        name = " ".join(filter(None, (group, function.__name__.replace("_", "-"))))
        hints = get_type_hints(function, include_extras=True)
        answers = hints.pop("return") is Answer
        own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
        added = [("as_json", AsJson)] if answers else []
        added.append(("traceback", WithTraceback))
        flag = inspect.Parameter.KEYWORD_ONLY
        own += [inspect.Parameter(name, flag, default=False, annotation=kind) for name, kind in added]

        @wraps(function)
        def run(*, as_json: bool = False, traceback: bool = False, **choices: Any) -> None:
            code = perform(lambda: function(**choices), name, as_json, traceback)
            if code:
                raise typer.Exit(code)

        ordered = sorted(own, key=lambda p: (p.kind, p.default is not inspect.Parameter.empty))
        run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]  # read by typer
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
        app.command(cls=Command)(run)
        return run

    return register


def perform(function: Callable[[], Answer | None], name: str, as_json: bool, traceback: bool) -> int:
    """Run a command and show its answer or its failure; returns the exit code."""
    with reserved_output(as_json) as output:
        try:
            answer = function()
        except typer.BadParameter as error:  # typer words it and exits with code 2
            if as_json:
                typer.echo(plain_json(_misuse(name, error)), file=output)
            raise
        except CvdmError as error:
            document: dict[str, Any] = error.as_dict()
            return _failed(name, str(error), document, output, as_json, traceback)
        except KeyboardInterrupt:
            say(f"cvdm {name}: interrupted; run it again to go on.")
            if as_json:
                stopped = _document("Interrupted", "to run to the end", "an interruption", "Run it again.")
                typer.echo(plain_json(stopped), file=output)
            return INTERRUPTED
        except Exception as error:  # any: a bug is one sentence too, unless somebody wants to see it
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            remedy = "Run it again with --traceback and report what it shows."
            document = _document("UnexpectedError", "no failure inside the platform", reason, remedy)
            text = f"Unexpected failure: {reason}. {remedy}"
            return _failed(name, text, document, output, as_json, traceback)
        if answer is None:
            return 0
        typer.echo(plain_json(answer.document) if as_json else answer.text, file=output)
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


def stated(text: str) -> str:
    """An option that must not be blank, as a callback of it."""
    if not text.strip():
        raise typer.BadParameter("it is empty. Say it in a few words, for those who read it later.")
    return text.strip()


def stop_on_sigterm() -> None:
    """Let SIGTERM unwind like any exception, so that what was started is stopped."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)


def _document(error: str, expected: str, actual: str, remedy: str) -> dict[str, Any]:
    return {"error": error, "expected": expected, "actual": actual, "remedy": remedy}


def _misuse(name: str, error: Exception) -> dict[str, Any]:
    words = getattr(error, "format_message", error.__str__)()
    return _document("UsageError", f"a valid call of cvdm {name}", words, f"See `cvdm {name} --help`.")


def _failed(
    name: str, text: str, document: dict[str, Any], output: TextIO, as_json: bool, traceback: bool
) -> int:
    if traceback:
        tracebacks.print_exc(file=sys.stderr)
    say(f"cvdm {name}: {text}")
    if as_json:
        typer.echo(plain_json(document), file=output)
    return FAILED
