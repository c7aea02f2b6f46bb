"""The model card: complete, plain Markdown that nothing in a dataset card can break, short enough to show."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from specimens import make_checkpoint

from cvdm.dataset import Dataset, load_dataset
from cvdm.evaluation import Evaluation
from cvdm.probing import Answer
from cvdm.schedule import ScheduleExtremes
from flows.evaluate import Comparison
from flows.gate import Background, Decision, GateTest
from flows.job import Start
from flows.model_card import Facts, description, model_card
from flows.registry import LONGEST_VALUE
from flows.usage import Usage


def scores(fields: int, crps: float) -> Evaluation:
    names = [f"field{index:03d}" for index in range(fields)]
    values = {"psnr_fit": 31.25, "ssim_fit": 0.9, "crps": crps, "coverage": 0.875, "ause": 0.25}
    per_field = {metric: dict.fromkeys(names, value) for metric, value in values.items()}
    baselines = dict.fromkeys(("best-blur", "input", "regression-mean"), per_field)
    schedule = ScheduleExtremes(True, True, 7.0, -7.0)
    kinds = dict.fromkeys(("share", "coverage", "width", "mae", "crps", "ause"), dict.fromkeys(names, 0.25))
    strata = {"bright": kinds | {"coverage": dict.fromkeys(names, 0.8125)}, "edges": kinds}
    return Evaluation(
        "test-cells", "test", per_field, baselines, 8, 5, "dpm-solver++", 0, 1.0, schedule, strata
    )


@pytest.fixture
def dataset(cells_dataset) -> Dataset:
    return load_dataset(cells_dataset)


def facts(
    dataset: Dataset, *, fields: int = 3, verdict: str = "undecided", usage: Usage | None = None
) -> Facts:
    test = GateTest("crps vs champion", None, 0.2, 0.1, "CRPS not shown | to be superior", "p")
    shown = GateTest("frc_px vs champion", None, 0.2, 0.1, "one field only", "p", binding=False)
    start = Start("champion", "three of nine fields are new", version=4)
    job = SimpleNamespace(
        task="test-cells",
        dataset=dataset,
        dataset_digest="d" * 64,
        data_version="0123abcd.dir",
        preset="cpu",
        device="cuda",
        start=start,
    )
    spent = usage or Usage(0.5, 0.2, 1.5, 900, 2048, "codecarbon: a counter", "DEU")
    probes = {"field000": {"spots of 10%": Answer(0.25, 0.5, 0.875, 1.5)}}
    comparison = Comparison(scores(fields, 0.01), scores(fields, 0.02), 4, Background(), probes)
    return Facts(
        job, 7, "r" * 32, make_checkpoint(), comparison, Decision(verdict, ("open",), (test, shown)), spent
    )


def test_a_card_tells_everything_that_a_reader_needs(dataset):
    """Use, data, training with its energy, scores against each baseline and the champion, limits, verdict."""
    card = model_card(facts(dataset))
    for expected in (
        "**Gate: undecided**",
        "confocal",
        "licence**: MIT",
        "0123abcd.dir",
        "d" * 64,
        "champion (three of nine fields are new)",
        "0.5 kWh and 0.2 kg CO2e (DEU)",
        "2048 MiB on the GPU",
        "| champion, version 4 | 31.25 | 0.9000 | 0.02000 |",
        "| best-blur |",
        "promises 90% and covers 87.5%",
        "not corrected for the small number of fields",
        "67.5% on average",
        "| bright | 0.2500 | 0.8125 |",
        "| spots of 10% | 25% | 50% | 88% | x 1.50 |",
        "| field002 | 0.01000 | 0.02000 |",
        "## Limits",
        "| crps vs champion | open |",
        "| frc_px vs champion | not binding |",
    ):
        assert expected in card


def test_every_row_of_a_table_has_as_many_cells_as_its_head(dataset):
    """A vertical bar in a reason, and whatever else a person writes, stays inside its cell."""
    tables = [block for block in model_card(facts(dataset)).split("\n\n") if block.startswith("|")]
    assert len(tables) == 8
    for table in tables:
        cells = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(cells) == 1, table


def test_what_a_person_wrote_cannot_break_the_page(dataset):
    """Lines, tags and bars of a citation become plain text of one line."""
    wild = replace(dataset, card=replace(dataset.card, citation="A <script>\n\n# B | C"))
    assert "citation**: A &lt;script> # B \\| C" in model_card(facts(wild))


def test_a_description_fits_whatever_the_number_of_fields(dataset):
    """Two hundred fields make a long file; the description holds verdict and scores, and names the file."""
    many = facts(dataset, fields=200)
    assert len(model_card(many)) > LONGEST_VALUE
    short = description(many)
    assert len(short) <= LONGEST_VALUE
    assert "**Gate: undecided**" in short and "| best-blur |" in short and "model-card.md" in short
    talkative = replace(many, decision=Decision("reject", tuple(f"reason {i} " * 20 for i in range(90)), ()))
    assert len(description(talkative)) <= LONGEST_VALUE
    assert description(talkative).endswith("among the run's artifacts.*\n")


def test_energy_that_was_not_measured_is_not_zero(dataset):
    """Without a measurement the card says so."""
    assert "energy, an estimate**: not measured" in model_card(facts(dataset, usage=Usage()))
