"""The page at /ui in a real browser, before a real service."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile
from matplotlib import colormaps
from playwright import sync_api
from specimens import cells, noisy

SECONDS = 60_000
"""For what the service has to work on, in milliseconds."""
SHAPE = (2, 3, 60, 80)
viridis = colormaps["viridis"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Two channels of three z-planes with a pixel size."""
    rng = np.random.default_rng(5)
    clean = cells(rng, 80)[:60]
    planes = np.round([[noisy(clean, rng) for _ in range(3)] for _ in range(2)]).astype(np.uint16)
    path = tmp_path_factory.mktemp("page") / "embryo <b>.ome.tif"
    facts = {"axes": "CZYX", "Channel": {"Name": ["nuclei", "actin"]}} | {
        f"PhysicalSize{axis}": 0.25 for axis in "XYZ"
    }
    tifffile.imwrite(path, planes, ome=True, metadata=facts)
    return path


@pytest.fixture
def tab(browser, service):
    """The page, on the screen of a laptop; no error in its console, nothing fetched elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    tab = context.new_page()
    tab.noise, tab.requests = [], []
    tab.on("dialog", lambda question: question.accept())
    tab.on("pageerror", lambda error: tab.noise.append(str(error)))
    tab.on("request", lambda request: tab.requests.append(request.url))
    with tab.expect_response(f"{service.url}/jobs") as listed:
        tab.goto(f"{service.url}/ui")
    tab.wait_for_selector("#task option", state="attached")
    # else a test would count the jobs of others before they are shown
    jobs = listed.value.json()["jobs"]
    sync_api.expect(tab.locator(".job")).to_have_count(len(jobs), timeout=SECONDS)
    yield tab
    assert tab.noise == []
    assert all(url.startswith((service.url, "blob:", "data:")) for url in tab.requests)
    context.close()


def slide(tab, id, value):
    tab.evaluate(
        "([id, value]) => { const e = document.getElementById(id); e.value = value;"
        " e.dispatchEvent(new Event('input')); }",
        [id, value],
    )


def restored(tab, path, **choices):
    """Send a file and wait for the end of its job; returns the job's card."""
    if choices:
        tab.evaluate("document.querySelector('#order-form details').open = true")
    for name, value in choices.items():
        tab.fill(f"#{name}", str(value))
    before = tab.locator(".job").count()
    tab.set_input_files("#files", path)
    sync_api.expect(tab.locator(".job")).to_have_count(before + 1, timeout=SECONDS)
    card = tab.locator(".job").first
    card.locator(".state.done").wait_for(timeout=SECONDS)
    return card


def readout(tab, x, y):
    """The five numbers that the page tells of a pixel."""
    told = f"Column {x}, row {y}"
    sync_api.expect(tab.locator("#readout")).to_contain_text(told)
    text = tab.inner_text("#readout")
    found = re.search(
        r"input (\S+), reconstruction (\S+), interval (\S+) to (\S+), standard deviation (\S+)", text
    )
    return text, [float(number) for number in found.groups()]


def test_upload_look_and_download(tab, service, stack, tmp_path):
    """A stack is sent, seen plane by plane with the file's own values, and saved as the service made it."""
    card = restored(tab, stack, samples=2, steps=2, seed=7)
    assert "2 draws of 2 steps, seed 7" in card.inner_text() and "czyx 2 × 3 × 60 × 80" in card.inner_text()
    card.locator("img").wait_for()
    card.get_by_role("button", name="Look").click()
    painted(tab)
    with tab.expect_download() as download:
        tab.click("#download")
    saved = tmp_path / "saved.ome.tif"
    download.value.save_as(saved)
    assert download.value.suggested_filename == "embryo <b>.ome.tif".replace("<", "_").replace(">", "_")
    result, given = tifffile.imread(saved), tifffile.imread(stack)
    slide(tab, "axis-z", 2)
    slide(tab, "axis-c", 1)
    tab.focus("#canvas")
    tab.keyboard.press("ArrowRight")  # from the middle
    text, numbers = readout(tab, 41, 30)
    std, lower, upper = (result[2, 4 + at, 30, 41] for at in (1, 2, 3))
    expected = [given[1, 2, 30, 41], result[2, 4, 30, 41], lower, upper, std]
    np.testing.assert_allclose(numbers, expected, rtol=1e-3)
    assert "10.25 and 7.5 µm" in text
    tab.keyboard.press("Shift+ArrowUp")
    assert readout(tab, 41, 20)[1][0] == given[1, 2, 20, 41]
    assert tab.get_attribute("#canvas", "data-ruler").endswith("µm")
    assert "actin" in tab.inner_text("#axes") and "z 3 of 3" in tab.inner_text("#axes")
    tab.click("#facts summary")
    facts = tab.inner_text("#facts")
    assert "do not count or measure" in facts and re.search(r"seed\s+7", facts)


def pixel(tab, x, y):
    """What is on the canvas in the middle of a pixel of the image, at the scale of the whole image."""
    return tab.evaluate(
        """([x, y]) => {
          const canvas = document.getElementById("canvas");
          const scale = Math.min(32, canvas.clientWidth / 80, canvas.clientHeight / 60);
          const left = (canvas.clientWidth - 80 * scale) / 2, top = (canvas.clientHeight - 60 * scale) / 2;
          const at = [left + (x + 0.5) * scale, top + (y + 0.5) * scale].map(Math.round);
          return [...canvas.getContext("2d").getImageData(...at, 1, 1).data.slice(0, 3)];
        }""",
        [x, y],
    )


def painted(tab):
    """Wait until what was asked for last is on the canvas."""
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    tab.wait_for_selector("#canvas[data-painted][aria-busy=false]")


def test_what_is_seen_is_the_image_in_its_window(tab, stack):
    """The input left of the line, the result right of it, and over that the uncertainty in its colours."""
    card = restored(tab, stack, samples=2, steps=2)
    card.get_by_role("button", name="Look").click()
    painted(tab)
    tab.fill("#low", "20")
    tab.fill("#high", "220")
    tab.keyboard.press("Tab")
    slide(tab, "split", 100)
    painted(tab)
    given = tifffile.imread(stack)[0, 0]
    for x, y in ((10, 12), (40, 30), (70, 50)):
        grey = np.clip((float(given[y, x]) - 20) / 200, 0, 1) * 255
        assert pixel(tab, x, y) == pytest.approx([grey] * 3, abs=1)
    slide(tab, "split", 0)
    painted(tab)
    result = pixel(tab, 40, 30)
    assert result[0] == result[1] == result[2]
    slide(tab, "opacity", 100)
    tab.select_option("#map", "inferno")
    tab.fill("#top", "1e9")
    tab.keyboard.press("Tab")
    painted(tab)
    assert pixel(tab, 40, 30) == [0, 0, 4]  # the darkest of inferno


def test_maps_that_were_asked_for_can_be_laid_over(tab, tmp_path):
    """The schedule map from 0 to 1 in its colours, and its value under the cursor."""
    path = tmp_path / "plane.tif"
    tifffile.imwrite(path, np.round(cells(np.random.default_rng(2), 80)[:60]).astype(np.uint8))
    tab.evaluate("document.querySelector('#order-form details').open = true")
    tab.check("#map-schedule_map")
    card = restored(tab, path, samples=2, steps=2)
    with tab.expect_download() as download:
        card.get_by_role("button", name="Look").click()
        painted(tab)
        tab.click("#download")
    result = tifffile.imread(download.value.path())
    assert result.shape == (5, 60, 80)
    assert tab.locator("#over option").all_inner_texts() == ["Standard deviation", "Schedule map"]
    tab.select_option("#over", "schedule_map")
    slide(tab, "split", 0)
    slide(tab, "opacity", 100)
    tab.select_option("#map", "viridis")
    painted(tab)
    assert (tab.inner_text("#scale-low"), tab.inner_text("#scale-high")) == ("0", "1")
    time = float(result[4, 30, 40])
    assert pixel(tab, 40, 30) == pytest.approx([int(255 * part) for part in viridis(time)[:3]], abs=3)
    tab.focus("#canvas")
    tab.keyboard.press("ArrowRight")
    sync_api.expect(tab.locator("#readout")).to_contain_text("schedule map")
    shown = re.search(r"schedule map (\S+)", tab.inner_text("#readout"))
    assert float(shown.group(1)) == pytest.approx(result[4, 30, 41], rel=1e-3)


def test_of_a_large_job_the_first_images_are_listed(tab, tmp_path):
    """The rest comes for who asks; each image once, in their order."""
    image = np.round(cells(np.random.default_rng(3), 32)).astype(np.uint8)
    paths = [tmp_path / f"field-{number:02}.tif" for number in range(22)]
    for path in paths:
        tifffile.imwrite(path, image)
    card = restored(tab, paths, samples=2, steps=2)
    assert card.locator(".images li").count() == 20
    card.get_by_role("button", name="Show 2 more").click()
    sync_api.expect(card.locator(".images li")).to_have_count(22)
    names = card.locator(".images .name").all_inner_texts()
    assert [name.split()[0] for name in names] == [path.name for path in paths]
    card.get_by_role("button", name="Remove").click()


def long_job(tab, stack):
    """The card of a new job that runs and will not be done soon."""
    before = tab.locator(".job").count()
    tab.evaluate("document.querySelector('#order-form details').open = true")
    tab.fill("#samples", "64")
    tab.fill("#steps", "200")
    tab.set_input_files("#files", stack)
    sync_api.expect(tab.locator(".job")).to_have_count(before + 1)
    card = tab.locator(".job").first
    card.locator(".state.running").wait_for(timeout=SECONDS)
    return card


def test_a_job_can_be_cancelled_and_removed(tab, stack):
    """Progress and what it takes are told meanwhile; a cancelled job goes when it is removed."""
    before, card = tab.locator(".job").count(), long_job(tab, stack)
    assert "MiB of disk" in card.inner_text()
    card.get_by_role("button", name="Cancel").click()
    card.locator(".state.cancelled").wait_for(timeout=SECONDS)
    assert tab.inner_text("#ended") == f"Cancelled: {stack.name}."
    card.get_by_role("button", name=f"Remove {stack.name}").click()
    sync_api.expect(tab.locator(".job")).to_have_count(before)


def test_a_double_click_that_cancels_does_not_remove(tab, stack):
    """Where Cancel was is Remove a moment later, which takes no click for a second."""
    before, card = tab.locator(".job").count(), long_job(tab, stack)
    box = card.get_by_role("button", name="Cancel").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.click(*middle)
    card.locator(".state.cancelled").wait_for(timeout=SECONDS)
    tab.mouse.click(*middle)
    tab.wait_for_timeout(1500)
    assert tab.locator(".job").count() == before + 1
    card.get_by_role("button", name="Remove").click()
    sync_api.expect(tab.locator(".job")).to_have_count(before)


def test_results_are_removed_after_a_question_only(browser, service, stack):
    """Whoever says no keeps them; the end of the job was told to whoever does not look."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    tab, asked, answer = context.new_page(), [], ["dismiss", "accept"]

    def decide(question):
        asked.append(question.message)
        getattr(question, answer[len(asked) - 1])()

    tab.on("dialog", decide)
    with tab.expect_response(f"{service.url}/jobs") as listed:
        tab.goto(f"{service.url}/ui")
    sync_api.expect(tab.locator(".job")).to_have_count(len(listed.value.json()["jobs"]), timeout=SECONDS)
    card = restored(tab, stack, samples=2, steps=2)
    count = tab.locator(".job").count()
    assert tab.locator("#ended[role=status]").inner_text() == f"Done: {stack.name}."
    for left in (count, count - 1):
        card.get_by_role("button", name=f"Remove {stack.name}").click()
        sync_api.expect(tab.locator(".job")).to_have_count(left)
    assert asked == [f"Remove {stack.name} with its results? They are deleted on the service."] * 2
    context.close()


def test_a_refusal_is_said_in_the_services_words(tab, tmp_path):
    """What was expected, what came, what to do; the next upload is as if nothing had been."""
    bad = tmp_path / "notes <i>.tif"
    bad.write_text("no image")
    tab.set_input_files("#files", bad)
    tab.wait_for_selector("#problem:visible")
    text = tab.inner_text("#problem")
    assert "notes <i>.tif, which is in another format" in text and "Export it as TIFF" in text
    tab.locator("#problem button").click()
    assert not tab.is_visible("#problem") and not tab.is_visible("#upload")


def test_what_made_a_result_is_named_with_its_card(tab, service, stack, tmp_path):
    """Task and version beside the image, and the card of that version; channels that were chosen alone."""
    service.crown(1)
    card = restored(tab, stack, samples=3, steps=2, channels="actin")
    assert "channels actin" in card.inner_text() and "zyx 3 × 60 × 80" in card.inner_text()
    card.get_by_role("button", name="Look").click()
    painted(tab)
    assert tab.inner_text("#maker") == "test-cells, version 1"
    tab.click("#maker-card")
    sync_api.expect(tab.locator("#card pre")).to_contain_text("Version 1 of test-cells has no model card.")
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#card")
    tab.click("#facts summary")
    facts = tab.inner_text("#facts")
    assert "are not calibrated for these draws and steps" in facts and "calibration" in facts


def test_all_can_be_reached_by_keyboard(tab, stack):
    """Every control of the desk and the viewer has the focus once while Tab goes through the page."""
    restored(tab, stack, samples=2, steps=2).get_by_role("button", name="Look").click()
    painted(tab)
    tab.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(120):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"task", "version", "show-card", "files", "canvas", "split", "axis-z", "axis-c"} <= reached
    assert {
        "low",
        "high",
        "auto",
        "opacity",
        "map",
        "top",
        "download",
        "zoom-in",
        "Look",
        "Remove",
    } <= reached


def test_nothing_is_cut_off_on_a_narrow_or_dark_screen(browser, service):
    """No sideways scrolling at the width of a telephone."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    tab = context.new_page()
    tab.goto(f"{service.url}/ui")
    tab.wait_for_selector("#task option", state="attached")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 25, 29)"
    context.close()
