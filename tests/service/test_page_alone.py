"""The page in a real browser before planted answers: what no small image and no quick service would show."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright import sync_api

from service.page import STATIC

SITE = "http://cvdm.example"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
SIDE = 512
COARSE = 8
"""Values along a planted tile's side, for speed; it is stretched."""
TILE = struct.pack("<f", 7.0) * COARSE**2


def job(id, *, state="done", owner="root"):
    """As GET /jobs tells of one with one image."""
    image = {"number": 0, "name": f"{id}.tif", "axes": "YX", "shape": [9, 9], "warnings": [], "state": state}
    image |= {"percent": 100, "error": None}
    asked = {"task": "cells", "version": 1, "samples": 2, "steps": 2, "seed": 0, "channels": []}
    left = {"images_ahead": 0, "seconds_left": None, "image_count": 1, "images": [image], "waits_for": None}
    cost = {"estimate": {"seconds": None, "disk_mib": 1, "memory_mib": 1}, "percent": 50}
    return {"id": id, "state": state, "owner": owner, "created": "2026-11-01T00:00:00Z"} | asked | left | cost


class Answers:
    """Path -> JSON, or (status, JSON); tiles are all alike, but for paths that are not there."""

    def __init__(self):
        self.said = {
            "/session": {"name": "root", "role": "operator", "open": False},
            "/models": {"models": [{"task": "cells", "version": 1, "serving": True, "reason": None}]},
            "/jobs": {"jobs": []},
        }
        self.asked = Counter()
        self.values = {}  # layer -> values of its tiles, where they are others
        self.gone = None  # "refused" or "silent" while the service is; its files are there
        self.held = []  # what a silent service has not answered

    @property
    def tiles(self):
        """How many tiles were asked for."""
        return sum(count for path, count in self.asked.items() if "/tile?" in path)

    def __call__(self, route):
        url = urlsplit(route.request.url)
        self.asked[url.path + (f"?{url.query}" if url.query else "")] += 1
        file = STATIC / (url.path.removeprefix("/ui/") or "index.html")
        if url.path.startswith("/ui/") and file.is_file():
            route.fulfill(body=file.read_bytes(), content_type=KINDS[file.suffix])
        elif self.gone == "refused":
            route.abort("connectionrefused")
        elif self.gone == "silent":
            self.held.append(route)
        elif url.path in self.said:
            said = self.said[url.path]
            status, body = said if isinstance(said, tuple) else (200, said)
            route.fulfill(status=status, body=json.dumps(body), content_type="application/json")
        elif url.path.endswith("/tile") and "/jobs/there/" in url.path:
            sizes = {"x-cvdm-width": str(COARSE), "x-cvdm-height": str(COARSE)}
            body = self.values.get(parse_qs(url.query)["layer"][0], TILE)
            route.fulfill(body=body, headers=sizes, content_type="application/octet-stream")
        else:
            refusal = {"expected": "a job of yours", "actual": "none", "remedy": "Look at GET /jobs."}
            route.fulfill(status=404, body=json.dumps(refusal), content_type="application/json")


@pytest.fixture
def answers():
    return Answers()


@pytest.fixture
def tab(browser, answers):
    """The page on a large screen of high resolution."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080}, device_scale_factor=2)
    context.route("**/*", answers)
    tab = context.new_page()
    noise = []
    tab.on("pageerror", lambda error: noise.append(str(error)))
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#task option", state="attached")
    yield tab
    assert noise == []
    context.close()


def viewable(answers, id, size):
    """A square image of a job can be looked at."""
    layers = ["input", "reconstruction", "uncertainty_std", "lower", "upper"]
    levels = max(1, (size // SIDE).bit_length())
    answers.said[f"/jobs/{id}/images/0/view"] = {
        "name": id, "t": 1, "z": 1, "channels": [""], "pixel_size_um": None, "layers": layers,
        "width": size, "height": size, "tile": SIDE, "levels": levels,
    }  # fmt: skip
    answers.said[f"/provenance/{id}"] = {"images": []}


def show(tab, answers, id, size):
    """A square image in the viewer, from the list."""
    viewable(answers, id, size)
    answers.said["/jobs"] = {"jobs": [job(id)]}
    tab.get_by_role("button", name="Look at").click(timeout=10_000)
    tab.wait_for_selector("#stage:visible")


def listed(tab, answers, *jobs):
    """The page on the screen of a laptop, with these jobs in its list."""
    tab.set_viewport_size({"width": 1280, "height": 720})
    answers.said["/jobs"] = {"jobs": list(jobs)}
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_selector(f".job[data-id={jobs[-1]['id']}]:last-child")


def again(tab):
    """The page looks at the jobs now."""
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def removable(tab, answers, *ids):
    """These jobs, without results, in the list; the service removes them when it is asked to."""

    def remove(route):
        id = urlsplit(route.request.url).path.rpartition("/")[2]
        answers.said["/jobs"] = {"jobs": [one for one in answers.said["/jobs"]["jobs"] if one["id"] != id]}
        route.fulfill(status=204)

    tab.route("**/jobs/*", remove)
    listed(tab, answers, *(job(id, state="cancelled") for id in ids))


def focused(tab):
    """What has the focus: its name for screen readers, else its id."""
    return tab.evaluate("() => document.activeElement.ariaLabel || document.activeElement.id")


def quiet(tab, answers, milliseconds):
    """How many tiles are asked for in a while."""
    before = answers.tiles
    tab.wait_for_timeout(milliseconds)
    return answers.tiles - before


def test_a_large_screen_comes_to_rest(tab, answers):
    """A painting that needs more tiles than are kept ends, and asks for no column beyond its side's line."""
    show(tab, answers, "there", 16384)
    tab.evaluate("""() => {
      document.getElementById("opacity").value = 60;
      Object.assign(document.getElementById("frame").style, {
        position: "fixed", inset: "0", width: "1900px", height: "1080px", zIndex: 9,
      });
    }""")
    tab.focus("#canvas")
    tab.keyboard.press("0")
    tab.mouse.move(700, 500)
    tab.mouse.wheel(0, -300 * math.log2(0.26 * 16384 / 1080))  # to a scale of 0.26
    while quiet(tab, answers, 1000) > 0 and answers.tiles < 2000:
        pass
    fetched = Counter({path: count for path, count in answers.asked.items() if "/tile?" in path})
    assert fetched.most_common(1)[0][1] <= 2  # one that a wheel step passed by may be asked for again
    assert len(fetched) > 160
    columns = {
        layer: {path.rpartition("=")[2] for path in fetched if f"={layer}&" in path and "level=0&" in path}
        for layer in ("input", "reconstruction")
    }
    assert len(columns["input"] & columns["reconstruction"]) <= 1


def test_what_does_not_come_is_asked_for_once(tab, answers):
    """Values that are refused are said so, and asked for again by a click alone."""
    show(tab, answers, "refused", 300)
    tab.hover("#canvas")
    tab.wait_for_selector("text=its values did not come")
    assert quiet(tab, answers, 1000) == 0
    assert all(count == 1 for path, count in answers.asked.items() if "/tile?" in path)
    assert "a job of yours" in tab.inner_text("#problem")
    tab.click("#canvas")
    tab.wait_for_timeout(500)
    assert max(count for path, count in answers.asked.items() if "/tile?" in path) == 2


def test_the_viewer_is_emptied_when_its_job_is_gone(tab, answers):
    """Not when a job is only too old for the list."""
    show(tab, answers, "there", 300)
    answers.said["/jobs"], answers.said["/jobs/there"] = {"jobs": []}, job("there")
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_selector(".job", state="detached")
    assert tab.is_visible("#stage")
    del answers.said["/jobs/there"]
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_selector("#nothing:visible")
    assert not tab.is_visible("#stage")


def test_a_swap_is_seen_and_what_was_chosen_stays(tab, answers):
    """The champion that is named, its card and the versions follow the service; after an error at once."""
    version = {"task": "cells", "version": 1, "serving": True, "reason": None}
    answers.said["/models"] = {"models": [version | {"serving": False}, version | {"version": 2}]}
    answers.said["/jobs"] = 503, {"expected": "jobs", "actual": "none", "remedy": "Wait."}
    tab.wait_for_selector("#version option:has-text('champion (2)')", state="attached", timeout=15_000)
    tab.select_option("#version", "1")
    answers.said["/models"]["models"].append(version | {"version": 3, "serving": False})
    tab.wait_for_selector("#version option[value='3']", state="attached", timeout=15_000)
    assert tab.input_value("#version") == "1"


def test_a_service_without_a_champion_is_no_error(tab, answers):
    """Versions that could serve are offered by number with a hint; without any, the reason is the hint."""
    version = {"task": "cells", "version": 1, "serving": False, "reason": None}
    reason = {"expected": "a golden replay", "actual": "a difference", "remedy": "Retrain."}
    named = version | {"aliases": ["champion"]}
    for models, options, hint in (
        ([version | {"version": 2}, version], ["", "2", "1"], "choose one by its number"),
        (
            [version | {"reason": reason}],
            [""],
            "cannot serve: expected a golden replay; got a difference. Retrain.",
        ),
        ([named], ["", "1"], "Version 1, the champion, is being loaded."),
        ([], [""], "No model serves yet."),
    ):
        answers.said["/models"] = {"models": models}
        tab.goto(f"{SITE}/ui/")
        tab.wait_for_selector(f"#no-champion:has-text('{hint}')")
        found = tab.eval_on_selector_all("#version option", "options => options.map((one) => one.value)")
        assert found == options
        assert not tab.is_visible("#problem")


def test_nobody_gets_a_version_that_he_did_not_choose(tab, answers):
    """Without a champion nothing is sent; when one takes over, it is what is offered."""
    version = {"task": "cells", "version": 1, "serving": False, "reason": None}
    answers.said["/models"] = {"models": [version | {"version": 2}, version]}
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#no-champion:has-text('choose one')")
    tab.set_input_files("#files", {"name": "a.tif", "mimeType": "image/tiff", "buffer": b"II"})
    tab.wait_for_selector("#problem:has-text('a version to restore with')")
    gone = {"task": "cells", "version": 1, "serving": True, "reason": {"expected": "files", "actual": "none"}}
    answers.said["/models"] = {"models": [version | {"version": 2}, gone]}
    answers.said["/jobs"] = 503, {"expected": "jobs", "actual": "none", "remedy": "Wait."}  # looks again soon
    tab.wait_for_selector("#version option:has-text('champion (1)')", state="attached", timeout=15_000)
    assert tab.input_value("#version") == "" and tab.inner_text("#no-champion") == ""


def test_a_job_whose_version_cannot_be_had_says_why_it_waits(tab, answers):
    """Nothing moves meanwhile, and whoever looks would not know what to do."""
    why = {"expected": "a registry that answers", "actual": "no answer", "remedy": "Start the registry."}
    answers.said["/jobs"] = {"jobs": [job("one", state="queued") | {"waits_for": why}]}
    tab.wait_for_selector(".job", timeout=10_000)
    text = "It waits: expected a registry that answers; got no answer. Start the registry."
    assert text in tab.inner_text(".job")
    answers.said["/jobs"] = {"jobs": [job("one", state="queued")]}
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_selector(".job:not(:has-text('It waits'))")


def test_a_page_that_is_opened_before_its_service_comes_alive(browser, answers):
    """It says that nobody answers, and enters by itself when somebody does."""
    context = browser.new_context()
    context.route("**/*", answers)
    session = answers.said["/session"]
    answers.said["/session"] = 503, {"expected": "a service", "actual": "none yet", "remedy": "Wait."}
    tab = context.new_page()
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#problem:visible")
    assert not tab.is_visible("#no-jobs")
    answers.said["/session"] = session
    tab.wait_for_selector("#task option", state="attached", timeout=15_000)
    tab.wait_for_selector("#problem", state="hidden")
    context.close()


def test_older_jobs_are_a_click_away(tab, answers):
    """Fifty are listed; the others come for who asks, and stay when the list is asked for again."""
    answers.said["/jobs"] = {"jobs": [job(f"job{n}") for n in range(50)]}
    tab.wait_for_selector("#older:visible", timeout=10_000)
    tab.route("**/jobs?before=job49", lambda route: route.fulfill(json={"jobs": [job("old")]}))
    tab.click("#older")
    for _ in range(2):
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        tab.wait_for_selector(".job[data-id=old]")
    assert tab.locator(".job").count() == 51
    assert not tab.is_visible("#older")


def test_an_operator_sees_whose_jobs_are_listed(tab, answers):
    """The owner is named where it is somebody else; each button names its job."""
    answers.said["/jobs"] = {"jobs": [job("one", owner="ann"), job("two", state="running")]}
    tab.wait_for_selector(".job >> nth=1", timeout=10_000)
    assert tab.inner_text(".job >> nth=0").count("Of ann: cells, version 1") == 1
    assert "Of " not in tab.inner_text(".job >> nth=1")
    for name in ("Remove one.tif", "Cancel two.tif"):
        assert tab.get_by_role("button", name=name).count() == 1


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_that_the_service_is_gone_is_said_calmly(tab, answers, how):
    """A line that comes and goes by itself; no error, and nothing moves."""
    listed(tab, answers, job("one", state="running"))
    before = tab.locator(".job").bounding_box()
    answers.gone = how
    said = "The service does not answer; trying again."
    tab.wait_for_selector(f"#away[role=status]:has-text('{said}')", timeout=8000)
    assert not tab.is_visible("#problem")
    assert tab.locator(".job").bounding_box() == before
    answers.gone = None
    for route in answers.held:
        answers(route)
    tab.wait_for_selector("#away:empty", state="attached", timeout=8000)
    assert not tab.is_visible("#problem")


def test_an_answer_that_breaks_off_is_a_service_that_is_gone(tab, answers):
    """A service that ends while it answers is no error of the page."""
    tab.route("**/jobs", lambda route: route.fulfill(body='{"jobs": [', content_type="application/json"))
    tab.wait_for_selector("#away:not(:empty)", timeout=8000)
    assert not tab.is_visible("#problem")


def test_looking_moves_nothing_under_the_pointer(tab, answers):
    """Without need the page does not scroll; when it has to, no job takes a click for a moment."""
    others = [job(f"job{n}") for n in range(20)]
    viewable(answers, "there", 300)
    listed(tab, answers, job("there"), *others)
    button = tab.get_by_role("button", name="Look at there.tif")
    before = button.bounding_box()
    button.click()
    tab.wait_for_selector("#facts p", state="attached")
    assert button.bounding_box() == before
    assert focused(tab) == "Look at there.tif"  # in the image the mouse would draw the cursor of the keyboard
    listed(tab, answers, *others, job("there"))
    remove = tab.get_by_role("button", name="Remove job3.tif")
    sync_api.expect(remove).to_have_css("pointer-events", "auto")
    button.click()
    sync_api.expect(remove).to_have_css("pointer-events", "none")
    sync_api.expect(tab.locator("#canvas")).to_be_in_viewport(ratio=0.9)
    sync_api.expect(remove).to_have_css("pointer-events", "auto")


def test_whoever_looks_by_keyboard_goes_on_in_the_image(tab, answers):
    """The focus goes to the image, in which the arrow keys move the cursor."""
    viewable(answers, "there", 300)
    listed(tab, answers, job("there"))
    tab.get_by_role("button", name="Look at").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#canvas:focus")
    tab.keyboard.press("ArrowRight")
    tab.wait_for_selector("#readout:has-text('Column 151, row 150')")
    assert tab.evaluate("scrollY") == 0


def test_the_focus_stays_in_the_list_when_a_job_is_removed(tab, answers):
    """It goes to the next job, to the last one, at last to the list; a key held down removes one job only."""
    removable(tab, answers, "one", "two", "three")
    tab.get_by_role("button", name="Remove two.tif").focus()
    for _ in range(3):
        tab.keyboard.down("Enter")
        tab.wait_for_timeout(600)
    tab.keyboard.up("Enter")
    assert tab.locator(".job").count() == 2 and focused(tab) == "Remove three.tif"
    tab.keyboard.press("Enter")
    tab.wait_for_selector("[data-id=three]", state="detached")
    assert focused(tab) == "Remove one.tif"
    tab.keyboard.press("Enter")  # twice by mistake: too soon
    tab.wait_for_selector("#jobs:not(.resting)")
    assert tab.locator(".job").count() == 1
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#no-jobs:visible")
    assert focused(tab) == "Jobs"


def test_a_double_click_on_remove_removes_one_job(tab, answers):
    """The next job's Remove comes under the pointer, and takes no click for a moment."""
    removable(tab, answers, "one", "two")
    box = tab.get_by_role("button", name="Remove one.tif").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.click(*middle)
    tab.wait_for_selector("[data-id=one]", state="detached")
    tab.mouse.click(*middle)
    tab.wait_for_timeout(500)
    assert tab.locator(".job").count() == 1


def test_a_wrong_key_is_said_beside_its_field(tab, answers):
    """The field has the focus until a key is accepted, and the files have it then; no list is empty."""
    session = answers.said["/session"]
    answers.said["/session"] = 401, {"expected": "a key", "actual": "none", "remedy": "Ask for one."}
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#key:focus")
    assert not tab.is_visible("#no-jobs")
    for wrong in ("wrong", "“wrong”"):  # the second one would be no header
        tab.fill("#key", wrong)
        with tab.expect_request("**/session"):
            tab.click("#key-form button")
        tab.wait_for_selector("#key-problem[role=alert]:has-text('That key is unknown.')")
        assert focused(tab) == "key"
        assert not tab.is_visible("#problem") and not tab.is_visible("#no-jobs")
    below = tab.locator("#key-problem").bounding_box()["y"] - tab.locator("#key").bounding_box()["y"]
    assert 0 < below < 60
    answers.said["/session"] = session
    tab.keyboard.type("right")
    assert tab.input_value("#key") == "right"  # in the place of the wrong one
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#files:focus")
    tab.wait_for_selector("#no-jobs:visible")
    answers.said["/jobs"] = 401, {}
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_selector("#key:focus")
    assert tab.inner_text("#key-problem") == "" and not tab.is_visible("#no-jobs")


def test_a_version_that_the_gate_rejected_is_marked(tab, answers):
    """By the gate's own word where there is one: a person may have decided otherwise since."""
    version = {"task": "cells", "version": 1, "serving": False, "reason": None, "verdict": "undecided"}
    answers.said["/models"] = {
        "models": [
            version | {"version": 5, "serving": True, "verdict": "promote", "gate_verdict": "reject"},
            version | {"version": 4, "verdict": "reject", "gate_verdict": None},
            version | {"version": 3, "verdict": "reject"},
            version | {"version": 2, "verdict": "reject", "gate_verdict": "promote"},
            version,
        ]
    }
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#version option[value='1']", state="attached")
    assert tab.locator("#version option").all_inner_texts() == [
        "champion (5, rejected by the gate)",
        "4, rejected by the gate",
        "3, rejected by the gate",
        "2",
        "1",
    ]


def test_an_image_without_a_preview_is_no_black_square(tab, answers):
    """Its place is outlined and nothing more, while its job is at work and when that was cancelled."""
    jobs = [job("one", state="running"), job("two", state="cancelled")]
    listed(tab, answers, *jobs)
    look = "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).borderStyle]"
    for place in tab.locator(".images .empty").all():
        assert place.bounding_box()["width"] == 44
        assert place.evaluate(look) == ["rgba(0, 0, 0, 0)", "dashed"]
    assert tab.locator(".images .empty").count() == len(jobs)


def test_a_window_without_a_range_is_all_dark(tab, answers):
    """An image that is the same everywhere does not make black and white of its reconstruction's noise."""
    around = struct.pack("<f", 6.0) * (COARSE**2 // 2) + struct.pack("<f", 8.0) * (COARSE**2 // 2)
    answers.values["reconstruction"] = around
    show(tab, answers, "there", 300)
    tab.wait_for_selector("#canvas[data-painted][aria-busy=false]")
    assert (tab.input_value("#low"), tab.input_value("#high")) == ("7", "7")
    shades = tab.evaluate("""() => {
      const canvas = document.getElementById("canvas");
      const at = [0.25, 0.75].map((y) => [canvas.width * 0.55, canvas.height * y].map(Math.round));
      return at.map(([x, y]) => [...canvas.getContext("2d").getImageData(x, y, 1, 1).data]);
    }""")
    assert shades == [[0, 0, 0, 255]] * 2


def test_a_refusal_of_the_service_itself_is_said_in_its_words(tab, answers):
    """A 503 with a request id is no proxy's: what to do is said calmly, until it answers."""
    refusal = {"expected": "a folder of jobs", "actual": "a file", "remedy": "Move the file away."}
    answers.said["/jobs"] = 503, refusal | {"error": "JobsError", "request_id": "6c1f"}
    said = "Expected a folder of jobs; got a file. Move the file away."
    for _ in range(2):
        again(tab)
        tab.wait_for_selector(f"#away:text-is('{said}')")
    assert not tab.is_visible("#problem")
    answers.said["/jobs"] = 503, refusal
    again(tab)
    tab.wait_for_selector("#away:has-text('does not answer')")
    answers.said["/jobs"] = {"jobs": []}
    again(tab)
    tab.wait_for_selector("#away:empty", state="attached")
    assert not tab.is_visible("#problem")


def test_a_service_that_has_just_started_is_looking_at_its_models(tab, answers):
    """It does not tell that there are none before it has looked, and the page asks again soon."""
    served = answers.said["/models"]
    answers.said["/models"] = {"models": [], "registry": {"checked": None, "error": None}}
    tab.goto(f"{SITE}/ui/")
    said = "The service has just started; it is looking at its models."
    tab.wait_for_selector(f"#no-champion:text-is('{said}')")
    answers.said["/models"] = served
    tab.wait_for_selector("#version option:has-text('champion (1)')", state="attached", timeout=15_000)


def test_a_look_that_hangs_says_nothing_after_a_later_one(tab, answers):
    """Neither that the service is gone nor which jobs there were."""
    listed(tab, answers, job("one"))
    answers.gone = "silent"
    again(tab)
    while not answers.held:
        tab.wait_for_timeout(50)
    answers.gone = None
    answers.said["/jobs"] = {"jobs": []}
    again(tab)
    tab.wait_for_selector("[data-id=one]", state="detached")
    tab.wait_for_timeout(5500)
    assert tab.inner_text("#away") == ""
    for route in answers.held:
        route.fulfill(json={"jobs": [job("one")]})
    tab.wait_for_timeout(300)
    assert tab.locator(".job").count() == 0


def test_a_job_that_falls_off_the_end_lets_no_button_rest(tab, answers):
    """Nothing moved, so that nobody presses another button than he meant."""
    listed(tab, answers, job("one"), job("two"))
    answers.said["/jobs"] = {"jobs": [job("one")]}
    again(tab)
    tab.wait_for_selector("[data-id=two]", state="detached")
    assert tab.locator("#jobs.resting").count() == 0


def test_a_job_that_arrives_lets_buttons_rest_but_not_for_long(tab, answers):
    """Every card moves down; in a batch with two arrivals a second buttons can be pressed all the same."""
    jobs = [job("one", state="running"), job("two", state="running")]
    listed(tab, answers, *jobs)
    tab.hover("[data-id=one]")
    resting = []
    for number in range(14):
        jobs.insert(0, job(f"new{number}", state="queued"))
        answers.said["/jobs"] = {"jobs": list(jobs)}
        before = tab.locator("[data-id=one]").bounding_box()
        again(tab)
        tab.wait_for_timeout(500)
        resting.append(tab.locator("#jobs.resting").count() == 1)
        assert resting[-1] or tab.locator("[data-id=one]").bounding_box() == before
    assert resting[0] and sum(resting) < len(resting) / 2
    tab.wait_for_selector("[data-id=new13]", timeout=8000)
    assert tab.eval_on_selector_all(".job", "cards => cards.map((card) => card.dataset.id)") == [
        one["id"] for one in jobs
    ]


def test_ones_own_job_is_shown_at_once(tab, answers):
    """It is not held back after another arrival: who saw nothing would send it again."""
    listed(tab, answers, job("one", state="running"))
    for id in ("two", "own"):
        answers.said["/jobs"]["jobs"].insert(0, job(id, state="queued"))
        again(tab)
        tab.wait_for_timeout(300)
    assert tab.locator("[data-id=two]").count() == 1 and tab.locator("[data-id=own]").count() == 0
    tab.set_input_files("#files", {"name": "own.tif", "mimeType": "image/tiff", "buffer": b"II"})
    tab.wait_for_selector("[data-id=own]", timeout=1500)


def test_a_page_that_is_opened_on_a_silent_service_says_so(tab, answers):
    """As soon as in the list, and until it answers."""
    answers.gone = "silent"
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#away:has-text('does not answer')", timeout=8000)
    answers.gone = None
    for route in answers.held:
        answers(route)
    tab.wait_for_selector("#away:empty", state="attached")
    tab.wait_for_selector("#no-jobs:visible")


def test_many_answers_that_take_long_are_no_silence(tab, answers):
    """Over a slow link each answer comes in time, and all of them together do not."""
    # After an error the models are asked for as well.
    answers.said["/jobs"] = 500, {"expected": "jobs", "actual": "none", "remedy": "Wait."}
    again(tab)
    tab.wait_for_selector("#problem:visible")
    tab.evaluate("""() => {
      window.told = [];
      const line = document.getElementById("away");
      new MutationObserver(() => told.push(line.textContent)).observe(line, { childList: true });
    }""")
    answers.said["/jobs"] = {"jobs": [job("one")]}
    answers.gone = "silent"
    again(tab)
    for _ in range(2):
        tab.wait_for_timeout(3000)
        answers.gone, (route,) = None, answers.held
        answers.held = []
        answers(route)
        answers.gone = "silent"  # for what is asked next
    tab.wait_for_selector("[data-id=one]")
    assert tab.evaluate("told") == []


def test_who_cancels_on_a_silent_service_is_told(tab, answers):
    """After a while, which is short here: what is asked to do waits for no longer than a look."""
    listed(tab, answers, job("one", state="running"))
    tab.evaluate("""() => {
      const real = AbortSignal.timeout.bind(AbortSignal);
      AbortSignal.timeout = () => real(300);
    }""")
    answers.gone = "silent"
    tab.get_by_role("button", name="Cancel one.tif").click()
    tab.wait_for_selector("#problem:has-text('an answer of the service')", timeout=5000)


def test_a_key_is_asked_for_after_a_silence(tab, answers):
    """A page that is opened before its service shows the form when the service comes and wants a key."""
    answers.gone = "refused"
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#problem:visible")
    assert "trying again" in tab.inner_text("#away")
    answers.said["/session"] = 401, {"expected": "a key", "actual": "none", "remedy": "Ask for one."}
    answers.gone = None
    tab.wait_for_selector("#key:focus", timeout=8000)
    assert not tab.is_visible("#problem") and tab.inner_text("#away") == ""


def test_a_view_takes_no_focus_from_who_has_moved_on(tab, answers):
    """Whoever looks by keyboard and goes elsewhere before the image is there stays elsewhere."""
    viewable(answers, "there", 300)
    listed(tab, answers, job("there"))
    answers.gone = "silent"
    tab.get_by_role("button", name="Look at").focus()
    tab.keyboard.press("Enter")
    tab.focus("#task")
    while not any("/view" in route.request.url for route in answers.held):
        tab.wait_for_timeout(50)
    answers.gone = None
    for route in answers.held:
        answers(route)
    tab.wait_for_selector("#facts p", state="attached")
    assert focused(tab) == "task"


def test_a_key_takes_no_focus_from_who_has_moved_on(tab, answers):
    """The form is there before its jobs: whoever fills it in meanwhile is not sent to the files."""
    session = answers.said["/session"]
    answers.said["/session"] = 401, {"expected": "a key", "actual": "none", "remedy": "Ask for one."}
    tab.goto(f"{SITE}/ui/")
    tab.wait_for_selector("#key:focus")
    answers.said["/session"] = session
    held = []
    tab.route("**/jobs", lambda route: held.append(route))
    tab.keyboard.type("right")
    tab.keyboard.press("Enter")
    while not held:
        tab.wait_for_timeout(50)
    tab.focus("#task")
    for route in held:
        route.fulfill(json={"jobs": []})
    tab.wait_for_selector("#no-jobs:visible")
    tab.wait_for_timeout(200)
    assert focused(tab) == "task"
