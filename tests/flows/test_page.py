"""The report page: everything that was found stands on it, it needs nothing else, and a browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from specimens import make_dataset

from cvdm.card import load_card
from cvdm.dataset import load_dataset
from cvdm.images import read_image, write_tiff
from flows.validation import ValidationPolicy, validate_dataset
from flows.validation.checks import checks
from flows.validation.data_docs import write_data_docs
from flows.validation.page import write_page
from flows.validation.page.marks import level_of
from flows.validation.page.pairs import MOST_PICTURED
from flows.validation.page.scale import fitting_scale
from flows.validation.page.strips import strips
from flows.validation.page.thumbnails import reduced, thumbnail
from flows.validation.page.words import MEASURES, RULES
from flows.validation.policy import Limits
from flows.validation.quantities import QUANTITIES

WHEN = datetime(2026, 3, 4, 9, 30)
HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A dataset with a lost target, a truncated input, an empty input and a leak."""
    root = make_dataset(tmp_path_factory.mktemp("page") / "broken")
    one, other = load_dataset(root).split("train")[0], load_dataset(root).split("test")[0]
    shutil.copy(one.low, other.low)
    names = [pair.name for pair in load_dataset(root).pairs if pair.name not in (one.name, other.name)]
    (root / "high" / f"{names[0]}.tif").unlink()
    damaged = root / "low" / f"{names[1]}.tif"
    damaged.write_bytes(damaged.read_bytes()[:500])
    write_tiff(root / "low" / f"{names[2]}.tif", np.zeros((96, 96), np.uint8))
    return root


@pytest.fixture(scope="module")
def report(broken):
    return validate_dataset(broken, ValidationPolicy(), workers=1)


@pytest.fixture
def page(tmp_path):
    """Writes the page of a report and returns its text."""

    def write(report, **more):
        path = tmp_path / "page.html"
        write_page(report, path, date=WHEN, **more)
        return path.read_text(encoding="utf-8")

    return write


def words(text):
    """A page as its reader sees it."""
    text = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\u00a0", " "))


def many(report, count, *, sessions=20):
    """The report with its sound pairs repeated; every thirtieth beyond a threshold."""
    rng = np.random.default_rng(0)
    sound = [row for row in report.table if row.usable and row.shift_yx and row.low.snr_db]
    rows = []
    for index in range(count):
        row = sound[index % len(sound)]
        low = replace(
            row.low, saturated=float(rng.exponential(0.0006)), hot_pixels=float(rng.exponential(15))
        )
        shift = tuple(rng.normal(0, 0.4, 2).tolist())
        rows.append(
            replace(
                row,
                name=f"session-{index % sessions:02d}-field-{index:05d}",
                session=f"day-{index % sessions:02d}",
                low=low,
                shift_yx=shift,
                shift_px=float(np.hypot(*shift)),
            )
        )
    kind = next(one for one in report.rejected if one.name)
    refused = tuple(replace(kind, name=row.name) for row in rows[::30])
    return replace(report, table=tuple(rows), rejected=refused, warnings=())


def test_every_refusal_is_on_the_page_with_its_remedy(report, page):
    """Name, what was found and what to do, of each refusal and each warning."""
    seen = words(page(report))
    assert len(report.rejected) >= 5
    for one in (*report.rejected, *report.warnings):
        for text in (one.name or "", one.actual, one.remedy.replace("`", "")):
            assert text in seen, f"{one.check}: {text}"


def test_the_verdict_counts_pairs(report, page):
    """Accepted of all, and the folder's name without the place where it lies."""
    text = page(report)
    accepted = len(report.table) - len(report.rejected_names)
    assert f"{accepted} of {len(report.table)} pairs accepted" in words(text)
    assert "4 March 2026, 09:30" in text
    assert str(report.root.parent) not in text


def test_of_a_batch_the_first_thing_said_is_how_many_are_good(report, page):
    """Pairs that were there before are counted apart."""
    rejected = {finding.name for finding in report.rejected if finding.name}
    good = next(row.name for row in report.table if row.name not in rejected)
    text = page(report, batch=(good, *sorted(rejected)[:2]))
    assert "Of this batch 1 of 3 pairs is good." in text and "With the pairs that were there before" in text
    assert "Of this batch" not in page(report)


def test_a_sound_dataset_is_accepted(cells_dataset, page):
    """No refusal, and every pair with both pictures."""
    report = validate_dataset(cells_dataset, ValidationPolicy(), workers=1)
    text = page(report)
    assert "Accepted" in text and "No pair is refused." in text
    assert text.count("data:image/png") == 2 * len(report.table)


def test_a_refused_dataset_without_refused_pairs_says_so(report, page):
    """A rule about the whole dataset is not hidden behind pairs that are all accepted."""
    whole = replace(report.rejected[0], check="splits", name=None, quantity=None)
    seen = words(page(replace(report, rejected=(whole,))))
    assert "But the dataset as a whole breaks a rule that forbids training" in seen


def test_images_that_cannot_be_shown_have_a_placeholder_with_the_reason(report, page):
    """A missing and a truncated file are told apart; all others have pictures."""
    text = page(report)
    reasons = re.findall(r'class="placeholder".*?>no picture<br>(.*?)</div>', text)
    assert sorted(reason.split(",")[-1].strip()[:9] for reason in reasons) == ["file miss", "truncated"]
    assert text.count("data:image/png") == 2 * len(report.table) - 2


def test_what_a_card_leaves_open_reads_as_such(report, page):
    """A card made from a name pattern states neither structure nor modality."""
    text = page(replace(report, card=replace(report.card, structure=None, modality=None)))
    assert "structure not stated, modality not stated" in text and "None" not in words(text)


def test_a_folder_that_has_gone_still_has_a_page(report, page):
    """Numbers and findings are there, pictures are not."""
    text = page(replace(report, root=Path("/nowhere/at-all")))
    assert text.count("file missing") >= 2 * len(report.table) and "data:image/png" not in text


def test_the_page_needs_nothing_else(report, page):
    """No address of another file or server in a place that a browser would load."""
    text = page(report)
    assert not re.search(r"https?://|@import|url\(|<link(?! rel=\"icon\" href=\"data:,\")", text)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)', text))


def test_links_lead_somewhere(report, page):
    """Each link within the page has its target, and Data Docs are linked from where the page lies."""
    text = page(report)
    targets = re.findall(r'\bid="([^"]+)', text)
    assert len(targets) == len(set(targets))
    assert set(re.findall(r'href="#([^"]+)', text)) <= set(targets)


def test_data_docs_are_linked_relative_to_the_page(report, page, tmp_path):
    """So that page and folder can be moved together."""
    assert 'href="docs/the%20page.html"' in page(report, docs=tmp_path / "docs" / "the page.html")


def test_names_are_text_and_never_markup(report, page):
    """A hostile name, field, session or reason shows as it is written, in text, attributes and drawings."""
    row = next(row for row in report.table if row.usable)
    spoilt = replace(row, name=HOSTILE, field=HOSTILE, session=HOSTILE, shift_px=9.0, shift_yx=(9.0, 0.0))
    spoilt = spoilt.with_side("low", replace(spoilt.low, saturated=0.5, acquired=HOSTILE))
    findings = tuple(replace(one, name=HOSTILE, actual=HOSTILE, remedy=HOSTILE) for one in report.rejected)
    text = page(replace(report, table=(spoilt,), rejected=findings, warnings=()))
    assert "<script>alert" not in text
    assert 'data-text="&lt;script&gt;' in text and text.count("&lt;script&gt;alert(1)") >= 10


def test_a_name_that_is_no_text_is_written(report, page):
    """File names may hold bytes that UTF-8 cannot; they show as a question mark."""
    row = replace(report.table[0], name="caf\udce9")
    assert "caf?" in page(replace(report, table=(row,), rejected=(), warnings=()))


def test_ten_thousand_pairs_give_a_light_page(report, page):
    """Pictures and dots are bounded, and the page says which pairs have pictures; all are listed."""
    crowd = many(report, 10_000)
    text = page(crowd)
    assert len(text.encode()) < 15e6
    assert text.count('<article class="pair ') == MOST_PICTURED
    assert f"Pictures are shown of {MOST_PICTURED} of 10000 pairs" in words(text)
    assert len(re.findall(r"<circle|<path|<rect", text)) < 60_000
    listed = set(re.findall(r"session-\d\d-field-\d{5}", text))
    assert len(listed) == 10_000


def test_every_pair_is_in_a_strip_plot(report):
    """As a dot with its name and value, or counted in a bar of a histogram."""
    anchors = [str(number) for number in range(len(report.table))]
    for strip in (one for one in strips(report.table, anchors, report.policy) if one.svg):
        marks = re.findall(r"<title>.*?: .*?</title>", strip.svg)
        assert f"{len(marks)} pair" in strip.summary, strip.title
    crowd = many(report, 3000, sessions=2)
    anchors = [str(number) for number in range(3000)]
    for strip in (one for one in strips(crowd.table, anchors, crowd.policy) if one.svg):
        bars = sum(int(number) for number in re.findall(r"<title>(\d+) pairs,", strip.svg))
        dots = len(re.findall(r"<title>session-", strip.svg))
        assert bars + dots == int(strip.summary.split()[0]) >= 900, strip.title


def test_sessions_have_rows_of_their_own(report):
    """Each session is a labelled row of a strip plot; a dataset without sessions has a single one."""
    anchors = [str(number) for number in range(60)]
    strip = strips(many(report, 60, sessions=3).table, anchors, report.policy)[0]
    assert re.findall(r'class="session"[^>]*>([^<]+)', strip.svg) == ["day-00", "day-01", "day-02"]
    assert 'class="session"' not in strips(report.table, anchors[: len(report.table)], report.policy)[0].svg


def test_levels_are_those_of_the_checks():
    """A value at its threshold passes; beyond, it is marked as the checks judge it."""
    limits = Limits(warn=1.0, refuse=2.0)
    assert [level_of(value, limits, "above") for value in (1.0, 1.1, 2.1)] == [
        "accepted",
        "warned",
        "refused",
    ]
    assert level_of(0.9, Limits(warn=1.0), "below") == "warned"
    assert level_of(None, limits, "above") == "accepted"


def test_an_outlier_does_not_squeeze_the_others():
    """It stands at the edge, and the others spread over the axis."""
    scale = fitting_scale([1, 2, 3, 4, 5] * 8 + [29.0], [6.0], left=0, right=100, may_log=True)
    assert scale.beyond(29.0) == 1 and scale.position(29.0) == 100
    assert scale.position(5) - scale.position(1) > 20


def test_zeros_have_a_place_on_a_logarithmic_axis():
    """Values over decades are told apart, zeros included, and a threshold lies between them."""
    scale = fitting_scale([0.0, 0.1, 50.0], [0.2, 2.0], left=0, right=100, may_log=True)
    places = [scale.position(value) for value in (0.0, 0.1, 0.2, 2.0, 50.0)]
    assert scale.log and places == sorted(places) and len(set(places)) == 5
    assert all(0 <= place <= 100 for place in places)


@pytest.mark.parametrize("values", [[0.0], [3.0], [-2.0, -2.0], [1e-12, 1e9]])
def test_any_values_have_an_axis(values):
    """Equal, negative and absurd values alike, with and without thresholds."""
    for thresholds in ([], [0.0], [0.5, 2.0]):
        scale = fitting_scale(values, thresholds, left=0, right=100, may_log=True)
        assert all(0 <= scale.position(value) <= 100 for value in (*values, *thresholds))
        assert len(scale.ticks()) <= 12


@pytest.mark.parametrize("shape", [(400, 300), (96, 96), (1000, 3), (161, 159)])
def test_thumbnails_average(shape):
    """A thumbnail keeps the mean brightness, and its longer side is about the wanted length."""
    pixels = np.random.default_rng(0).uniform(0, 100, shape)
    small = reduced(pixels, 160)
    assert max(small.shape) <= 240 and small.ndim == 2
    assert small.mean() == pytest.approx(pixels.mean(), abs=1.5)


def test_a_thumbnail_shows_the_image(cells_dataset):
    """It decodes to the image's own pattern, and its window is in the file's units."""
    import base64

    import imagecodecs

    path = load_dataset(cells_dataset).pairs[0].high
    shown = thumbnail(path)
    decoded = imagecodecs.png_decode(base64.b64decode(shown.uri.split(",")[1]))
    pixels = read_image(path).pixels
    assert decoded.shape == pixels.shape == (shown.height, shown.width)
    assert np.corrcoef(decoded.ravel(), pixels.ravel())[0, 1] > 0.99
    assert pixels.min() <= shown.window[0] < shown.window[1] <= pixels.max()


def test_every_check_has_words(report):
    """A headline and a reason for each rule, so that no page shows the name of a variable."""
    card = replace(load_card(report.root), channel="DAPI", numerical_aperture=1.4, wavelength_nm=488.0)
    for check in checks(report.table, card, report.policy):
        assert check.quantity or check.name in RULES, check.name
    assert {quantity.name for quantity in QUANTITIES} == set(MEASURES)


def test_data_docs_hold_every_rule_and_lead_to_each_other(report, tmp_path):
    """One site for one validation, whose local links all exist; a second one takes its place."""
    first = write_data_docs(report, tmp_path / "docs")
    second = write_data_docs(report, tmp_path / "docs")
    assert not first.exists() or first == second
    pages = sorted((tmp_path / "docs").rglob("*.html"))
    assert len(pages) == 3 and second in pages
    for page in pages:
        for link in re.findall(r'<a[^>]* href="([^"#?]+)', page.read_text(encoding="utf-8")):
            if "://" not in link and not link.startswith("{"):
                assert (page.parent / html.unescape(link)).exists(), f"{page.name}: {link}"
    text = second.read_text(encoding="utf-8")
    for check in checks(report.table, report.card, report.policy):
        assert html.escape(check.expected) in text, check.name
    assert sum(file.stat().st_size for file in (tmp_path / "docs").rglob("*")) < 2e6


def test_data_docs_hold_no_markup_of_names(report, tmp_path):
    """Great Expectations writes values as they come; ours come escaped."""
    row = report.table[0]
    row = row.with_side("low", replace(row.low, twin_across="<script>alert(1)</script>"))
    page = write_data_docs(replace(report, table=(row, *report.table[1:])), tmp_path / "docs")
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text


def test_a_browser_filters_sorts_and_enlarges(browser, report, tmp_path):
    """No error in its console, no request beyond the file, and the controls do what they say."""
    path = tmp_path / "page.html"
    write_page(report, path, date=WHEN)
    tab = browser.new_page()
    noise, requests = [], []
    tab.on("console", lambda message: noise.append(message.text))
    tab.on("pageerror", lambda error: noise.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    refused = len(report.rejected_names)
    assert tab.locator(".pair:visible").count() == len(report.table)
    tab.check("input[name=verdict][value=refused]")
    assert tab.locator(".pair:visible").count() == refused
    assert tab.inner_text("output") == f"{refused} of {len(report.table)} pairs"
    tab.check("input[name=verdict][value='']")
    tab.fill("input[name=text]", report.table[0].name.upper())
    assert tab.locator(".pair:visible").count() == 1
    tab.fill("input[name=text]", "")
    index = next(n for n, quantity in enumerate(QUANTITIES) if quantity.column == "low_snr_db")
    tab.select_option("select", str(index))
    values = [
        json.loads(text)[index]
        for text in tab.eval_on_selector_all(".pair", "a => a.map(x => x.dataset.values)")
    ]
    measured = [value for value in values if value is not None]
    assert len(measured) > 5 and measured == sorted(measured, reverse=True) == values[: len(measured)]
    tab.locator(".zoomable").first.click()
    assert tab.locator("dialog[open] img").count() >= 1
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not noise and [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    tab.close()


def test_all_is_there_without_scripts(browser, report, tmp_path):
    """The page reads the same where scripts are forbidden, on a narrow screen and in the dark."""
    path = tmp_path / "page.html"
    write_page(report, path, date=WHEN)
    tab = browser.new_context(
        java_script_enabled=False, viewport={"width": 400, "height": 800}, color_scheme="dark"
    ).new_page()
    tab.goto(path.as_uri())
    assert tab.locator(".pair:visible").count() == len(report.table)
    assert tab.locator(".controls:visible").count() == 0
    tab.close()
