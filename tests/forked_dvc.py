"""DVC's own command line, each command in a process of its own that need not import DVC first.

A server imports it and forks for every command; the fork has the folder, the environment and the streams that
the command would have had. Commands of programs that tests start are not affected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Run = Callable[[Sequence[str], Path, Mapping[str, str]], "subprocess.CompletedProcess[str]"]


@contextmanager
def forked_dvc() -> Iterator[Run]:
    """Lend what does as `flows.version.dvc_process`."""
    command, lock = [sys.executable, __file__], threading.Lock()
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):

        def run(
            arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
        ) -> subprocess.CompletedProcess[str]:
            out, err = (Path(scratch) / name for name in ("stdout", "stderr"))
            asked = {
                "arguments": [str(one) for one in arguments],
                "folder": str(folder),
                "environment": dict(environment),
                "streams": [os.devnull, str(out), str(err)],
            }
            with lock:
                assert server.stdin is not None and server.stdout is not None
                print(json.dumps(asked), file=server.stdin, flush=True)
                code = int(server.stdout.readline())
                return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

        try:
            yield run
        finally:
            assert server.stdin is not None
            server.stdin.close()


def serve() -> None:
    """Fork for every line of standard input; answer with the exit code of its command."""
    import dvc.cli
    import dvc.cli.parser

    dvc.cli.parser.get_main_parser()  # imports every command
    assert threading.active_count() == 1, "a fork takes no threads along"
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            obey(**asked)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def obey(
    arguments: Sequence[str], folder: str, environment: Mapping[str, str], streams: Sequence[str]
) -> None:
    """Be the process of one command."""
    for number, path in enumerate(streams):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    import dvc.cli

    code = 1
    try:
        code = dvc.cli.main(list(arguments))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
