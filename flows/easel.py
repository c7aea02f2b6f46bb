"""Pictures are drawn in a process of their own, `python -m flows.easel ORDERS DRAWN`, while work goes on.

    ORDERS/PATH.npz   what is to be drawn: the name of a drawing, its arguments in JSON, and their arrays
    DRAWN/PATH        the picture; its order is removed after it

An order is on disk before anything is drawn, so a kill at any point loses no picture: whoever goes on with
the folder draws what is left. The process ends when nothing is left or its parent has gone. Whoever trains
carries no drawing library, and whoever draws no network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np

from cvdm.errors import CvdmError
from cvdm.storage import replacing, storage_error

Drawing = Literal[
    "calibration",
    "image_panel",
    "kinds_of_pixels",
    "per_field",
    "ring_correlations",
    "schedule_curves",
    "schedule_drift",
    "schedule_maps",
    "sparsification",
    "versions_panel",
]
"""Functions of flows/pictures.py, schedule_pictures.py and strata_picture.py; each returns a PNG."""
CODE = Path(__file__).resolve().parent.parent
ORDER, LOG = ".npz", "drawing.log"
WORDS = "arguments"
"""The entry of an order that holds its JSON."""


class DrawingError(CvdmError):
    """A picture cannot be drawn."""


@dataclass(frozen=True)
class Order:
    """One picture that is wanted."""

    path: str
    """Of the picture, among the artifacts."""
    drawing: Drawing
    arguments: Mapping[str, Any]
    """By name: numbers, texts, arrays, dataclasses of these, and lists and dicts of all."""


class Easel:
    """Orders of one folder and the process that draws them into another."""

    def __init__(self, folder: Path) -> None:
        self.drawn = folder / "files"
        self._orders, self._log = folder / "undrawn", folder / LOG
        self._process: subprocess.Popen[bytes] | None = None

    def put(self, order: Order) -> None:
        """Keep an order. Raises StorageError."""
        arrays: list[np.ndarray] = []
        words = json.dumps({"drawing": order.drawing, WORDS: _packed(order.arguments, arrays)})
        entries: dict[str, Any] = {WORDS: np.array(words)}
        entries |= {f"array_{number}": array for number, array in enumerate(arrays)}
        with replacing(self._orders / (order.path + ORDER)) as temporary, temporary.open("wb") as file:
            np.savez(file, **entries)

    def work(self) -> None:
        """See to it that somebody draws what is left; returns at once. Raises StorageError."""
        if (self._process is not None and self._process.poll() is None) or not undrawn(self._orders):
            return
        command = [sys.executable, "-P", "-m", "flows.easel", str(self._orders), str(self.drawn)]
        path = os.pathsep.join(filter(None, (str(CODE), os.environ.get("PYTHONPATH"))))
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is its parent's to handle
                )
        except OSError as error:
            raise storage_error(error, self._log) from error

    def finish(self) -> None:
        """Wait until nothing is left. Raises DrawingError; the orders stay then."""
        while True:
            self.work()
            code = 0 if self._process is None else self._process.wait()
            if not (left := undrawn(self._orders)):
                return
            if code != 0:
                last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise DrawingError(
                    f"to draw {left[0].stem}",
                    "".join(last) or f"the process that draws ended with code {code}",
                    f"See {self._log}; run the command again: it goes on from here.",
                )

    def leave(self) -> None:
        """End the process; what is left stays for the next one."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def undrawn(orders: Path) -> list[Path]:
    """The orders that are left, in the order of their names."""
    return sorted(path for path in orders.rglob(f"*{ORDER}") if path.is_file())


def draw(order: Path) -> bytes:
    """The picture of an order."""
    with np.load(order, allow_pickle=False) as held:
        words = json.loads(str(held[WORDS]))
        return drawings()[words["drawing"]](**_unpacked(words[WORDS], held))


def drawings() -> dict[str, Callable[..., bytes]]:
    """Every drawing by its name."""
    from flows import pictures, schedule_pictures, strata_picture

    modules = (pictures, schedule_pictures, strata_picture)
    return {name: next(getattr(m, name) for m in modules if hasattr(m, name)) for name in get_args(Drawing)}


def _packed(value: Any, arrays: list[np.ndarray]) -> Any:
    """A value as JSON has it; arrays are set aside, and dataclasses become their fields."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if is_dataclass(value):
        return {"fields": {one.name: _packed(getattr(value, one.name), arrays) for one in fields(value)}}
    if isinstance(value, Mapping):
        return {"mapping": {key: _packed(one, arrays) for key, one in value.items()}}
    if isinstance(value, list | tuple):
        return [_packed(one, arrays) for one in value]
    return value


def _unpacked(value: Any, held: Mapping[str, np.ndarray]) -> Any:
    """What was packed; a dataclass comes back as a plain namespace, for its module may import networks."""
    if isinstance(value, list):
        return [_unpacked(one, held) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return held[f"array_{content}"]
    named = {key: _unpacked(one, held) for key, one in content.items()}
    return SimpleNamespace(**named) if kind == "fields" else named


def main() -> None:
    """Draw until nothing is left."""
    orders, drawn = (Path(argument) for argument in sys.argv[1:3])
    parent = os.getppid()
    while left := undrawn(orders):
        for order in left:
            _carry_out(order, drawn / order.relative_to(orders).with_suffix(""))
            if os.getppid() != parent:
                return


def _carry_out(order: Path, target: Path) -> None:
    """Draw an order, unless the process of a parent that was killed has just done so."""
    try:
        picture = draw(order)
    except FileNotFoundError:
        if order.exists():  # it is something else that is missing
            raise
        return
    half = order.with_suffix(f".{os.getpid()}.half")  # among the drawn there are whole pictures only
    half.write_bytes(picture)
    target.parent.mkdir(parents=True, exist_ok=True)
    half.replace(target)
    order.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
