"""Pictures are drawn beside the training, each once, whatever happens to either process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from specimens import cells

from cvdm.schedule import ScheduleCurves
from cvdm.schedule_drift import SeenSchedule
from cvdm.validation import Panel
from flows import pictures
from flows.easel import LOG, Drawing, DrawingError, Easel, Order, _carry_out, drawings, undrawn
from flows.evaluate import drawing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    high = cells(np.random.default_rng(0), 64)
    return {"low": high + 9, "mean": high + 1, "high": high, "std": np.full_like(high, 4.0)}


def panel_order(images: dict[str, np.ndarray], path: str = "panels/one.png") -> Order:
    return Order(path, "image_panel", {**images, "title": "a field"})


def drawn(easel: Easel) -> dict[str, bytes]:
    files = [one for one in easel.drawn.rglob("*") if one.is_file()]
    return {one.relative_to(easel.drawn).as_posix(): one.read_bytes() for one in files}


def test_a_picture_from_another_process_is_the_same_picture(images, tmp_path):
    """Arrays, titles and windows arrive as they were: byte for byte what this process would draw."""
    easel = Easel(tmp_path)
    easel.put(panel_order(images))
    easel.finish()
    assert drawn(easel) == {"panels/one.png": pictures.image_panel(**images, title="a field")}
    assert undrawn(tmp_path / "undrawn") == []


def test_dataclasses_and_mappings_arrive_with_what_drawings_read_of_them(images, tmp_path):
    """A schedule's drift and two versions by name, whose own modules would import a network."""
    curves = ScheduleCurves([0.0, 1.0], (0.05, 0.5, 0.95), *([[0.9, 0.1]] * 3 for _ in range(3)))
    seen = SeenSchedule("f0", curves, np.full((64, 64), 0.5), np.ones((2, 64, 64)))
    panel = Panel("f0", *images.values(), np.full((64, 64), 0.5))
    low, high = images["low"], images["high"]
    drift = {"value": 0.01, "ours": seen, "theirs": seen, "low": low, "names": ("version 2", "version 1")}
    versions = {"low": low, "high": high, "means": {"version 1": low, "version 2": high}, "title": "both"}
    easel = Easel(tmp_path)
    easel.put(Order("drift.png", "schedule_drift", drift))
    easel.put(Order("maps.png", "schedule_maps", {"panels": (panel,), "title": "maps"}))
    easel.put(Order("versions.png", "versions_panel", versions))
    easel.finish()
    assert drawn(easel)["versions.png"] == pictures.versions_panel(**versions)
    assert sorted(drawn(easel)) == ["drift.png", "maps.png", "versions.png"]


def test_every_drawing_has_its_name():
    """What an order may ask for is there."""
    assert {name: one.__name__ for name, one in drawings().items()} == {n: n for n in get_args(Drawing)}


def test_whoever_orders_needs_no_drawing_library_and_whoever_draws_no_network():
    """Seen in processes of their own: each keeps the memory of the other's libraries."""
    code = "import sys, {0}; print(sorted({{'torch', 'matplotlib', 'pandas', 'mlflow'}} & set(sys.modules)))"
    for modules, carried in (
        ("flows.easel, flows.snapshot, flows.exhibits", "['torch']"),
        ("flows.easel; flows.easel.drawings()", "['matplotlib']"),
    ):
        command = [sys.executable, "-c", code.format(modules)]
        found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert found.stdout.strip() == carried


def test_a_kill_loses_no_picture(images, tmp_path):
    """The process that draws is killed at once: its orders are there, and the next easel draws them."""
    first = Easel(tmp_path)
    for number in range(3):
        first.put(panel_order(images, f"{number}.png"))
    first.work()
    first._process.kill()
    first._process.wait()
    assert len(drawn(first)) + len(undrawn(tmp_path / "undrawn")) >= 3
    again = Easel(tmp_path)
    again.finish()
    assert sorted(drawn(again)) == ["0.png", "1.png", "2.png"] and not undrawn(tmp_path / "undrawn")


def test_among_the_drawn_there_are_whole_pictures_only(images, tmp_path):
    """Whoever sends them while others are drawn finds no half of one, and nothing that is not his."""
    easel = Easel(tmp_path)
    for number in range(12):
        easel.put(panel_order(images, f"{number:02}.png"))
    easel.work()
    while easel._process.poll() is None:
        for path, content in drawn(easel).items():
            assert path.endswith(".png") and content.rstrip().endswith(b"IEND\xaeB`\x82")
    assert len(drawn(easel)) == 12 and not list(tmp_path.rglob("*.half"))


def test_nobody_draws_for_a_parent_that_has_gone(images, tmp_path):
    """Orders without end, from a process that is killed: the one that draws ends after its picture."""
    easel = Easel(tmp_path)
    for number in range(200):
        easel.put(panel_order(images, f"{number:03}.png"))
    code = (
        "import sys, time; from pathlib import Path; from flows.easel import Easel;"
        "easel = Easel(Path(sys.argv[1])); easel.work(); print(easel._process.pid, flush=True);"
        "time.sleep(99)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = Path("/proc") / parent.stdout.readline().strip()
    until(lambda: drawn(easel))
    parent.kill()
    parent.wait()
    until(lambda: not child.exists())
    assert undrawn(tmp_path / "undrawn")


def test_what_cannot_be_drawn_is_said_and_kept(images, tmp_path):
    """Planted: an order without its images. The message names the picture; the good one is there."""
    easel = Easel(tmp_path)
    easel.put(panel_order(images, "a.png"))
    easel.put(Order("b.png", "image_panel", {"title": "nothing"}))
    with pytest.raises(DrawingError, match=r"b\.png") as raised:
        easel.finish()
    assert "missing" in raised.value.actual
    assert set(drawn(easel)) == {"a.png"} and len(undrawn(tmp_path / "undrawn")) == 1


def test_a_file_that_is_missing_for_a_drawing_is_said_not_waited_for(images, tmp_path, monkeypatch):
    """Planted: a library without its font. An order that somebody else has carried out is passed over."""

    def without_its_font(order):
        raise FileNotFoundError("font.ttf")

    monkeypatch.setattr("flows.easel.draw", without_its_font)
    Easel(tmp_path).put(panel_order(images))
    (order,) = undrawn(tmp_path / "undrawn")
    with pytest.raises(FileNotFoundError, match="font"):
        _carry_out(order, tmp_path / "one.png")
    order.unlink()
    _carry_out(order, tmp_path / "one.png")
    assert not (tmp_path / "one.png").exists()


def test_whoever_draws_may_fall_over_after_the_last_picture(images, tmp_path):
    """Nothing is left, so nothing is wrong."""
    easel = Easel(tmp_path)
    easel.put(panel_order(images))
    easel.finish()
    easel._process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    easel.finish()
    assert set(drawn(easel)) == {"panels/one.png"}


def test_the_log_that_an_error_names_is_there(tmp_path):
    """Of a judgement whose picture cannot be drawn; what a judgement has drawn well is cleared away."""
    job = SimpleNamespace(folder=tmp_path)
    with pytest.raises(DrawingError) as raised, drawing(job) as easel:
        easel.put(Order("b.png", "image_panel", {"title": "nothing"}))
        easel.finish()
    log = tmp_path / "drawing" / LOG
    assert str(log) in raised.value.remedy and "missing" in log.read_text(encoding="utf-8")
    with drawing(job) as easel:
        assert not log.exists() and undrawn(tmp_path / "drawing" / "undrawn") == []
    assert not log.parent.exists()


def until(holds, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
