// The page: who asks, which model, what is sent, and what became of it.

import { Refusal, answered, ask, send } from "./api.js";
import { JobList, endOf, make, unfinished } from "./jobs.js";
import { Viewer } from "./viewer.js";

const BUSY = 700; // milliseconds between two looks at jobs while one is at work
const IDLE = 4000;
const PATIENCE = 5000; // milliseconds without an answer until that is said
const LISTED = 50; // jobs that the service tells at once
const MODELS = 30000; // between two looks at models
const GONE = new Set([0, 502, 503, 504]); // the status while the service is gone, as proxies tell it too
const SILENT = "The service does not answer; trying again.";
const element = (id) => document.getElementById(id);
const viewer = new Viewer(problem);
const list = new JobList(element("jobs"), { look, cancel, remove, all });
let seen = null; // id of the job whose image is in the viewer
const whole = new Set(); // ids of jobs of which every image is shown; the list has the first ones only
let models = [];
let registry = {};
let due = 0; // when the models are asked for next; at once after an error
let waiting = false; // it was said that the service is not there yet
let next = 0;
let turn = 0; // of looking at jobs; one that hangs may end after a later one, and says nothing then
let pages = 1; // of jobs that are shown

/** Say what went wrong, in the service's words. */
function problem(error) {
  if (error instanceof Refusal && error.status === 401) {
    element("key-form").hidden = false;
    element("order-form").hidden = true;
    element("no-jobs").hidden = true;
    element("problem").hidden = true; // what it says is over: the service answers
    element("who").textContent = "This service wants a key.";
    element("key").focus();
    return;
  }
  const box = element("problem");
  const { expected, actual, remedy } = error.body ?? { expected: "no failure", actual: error.message, remedy: "" };
  const close = make("button", { type: "button", className: "quiet", textContent: "Close" });
  close.addEventListener("click", () => { box.hidden = true; });
  box.replaceChildren(
    make("strong", { textContent: "That did not work." }),
    make("p", { textContent: `Expected ${expected}; got ${actual}.` }),
    make("p", { textContent: remedy ?? "" }),
    close,
  );
  box.hidden = false;
}

/** Say why there is nothing to look at for a while; "" when there is. */
function away(text) {
  if (element("away").textContent !== text) element("away").textContent = text; // else it is read out again
}

/** Why there is nothing to look at for a while, "" after any other error. */
function absence({ status, body }) {
  if (!GONE.has(status)) return "";
  // Only the service itself gives ids to requests: a 503 with one is no proxy's, and says what to do.
  const { expected, actual, remedy, request_id: id } = body;
  return status === 503 && id ? `Expected ${expected}; got ${actual}. ${remedy ?? ""}` : SILENT;
}

/** Ask in a turn; say when no answer comes. Each is waited for by itself: many over a slow link take long. */
async function asked(path) {
  const mine = turn;
  let said = false;
  const late = setTimeout(() => {
    said = mine === turn;
    if (said) away(SILENT);
  }, PATIENCE);
  try {
    const answer = await ask(path);
    if (said && mine === turn) away("");
    return answer;
  } finally {
    clearTimeout(late);
  }
}

/** Whether the focus is where it was, or nowhere as that is gone; else the person has moved on. */
const stays = (pressed) => [pressed, document.body].includes(document.activeElement);

/** Try something; a refusal is shown. */
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    problem(error);
    return undefined;
  }
}

async function enter() {
  const caller = await asked("/session");
  element("key-form").hidden = true;
  element("order-form").hidden = false;
  const who = element("who");
  list.caller = caller.name;
  if (caller.open) {
    who.textContent = "Open to this machine only; no keys are set up.";
  } else {
    const leave = make("button", { type: "button", className: "quiet", textContent: "Leave" });
    leave.addEventListener("click", () => attempt(async () => {
      await ask("/session", { method: "DELETE" });
      location.reload();
    }));
    who.replaceChildren(`${caller.name} (${caller.role}) `, leave);
  }
  await choices();
  if (waiting) element("problem").hidden = true;
  waiting = false;
  await refresh();
}

/** Enter, as soon as the service is there; whether it was at once. */
async function begin() {
  const mine = turn;
  try {
    await enter();
    return true;
  } catch (error) {
    const there = error.status > 0 && error.status < 500; // what it wants is said, whatever was said before
    if (there || !waiting) problem(error);
    waiting = !there;
    if (mine === turn) away(absence(error));
    if (!there) setTimeout(begin, IDLE);
    return false;
  }
}

async function choices() {
  const mine = turn;
  const answer = await asked("/models");
  if (mine !== turn) return;
  ({ models, registry } = answer);
  due = performance.now() + (starting() ? IDLE : MODELS);
  const usable = models.filter((model) => model.serving || !model.reason);
  const promoted = usable.filter((model) => model.serving); // first, so that one of them is what is offered
  const tasks = [...new Set([...promoted, ...usable].map((model) => model.task))];
  fill(element("task"), tasks.map((task) => [task, task]));
  versions();
}

/** Whether the service has not looked at its registry yet. */
const starting = () => registry?.checked === null && !registry.error;

/** The options of a list, [value, text] each; what is chosen stays where it can, and an open list where it is. */
function fill(select, options) {
  if (JSON.stringify([...select.options].map(({ value, text }) => [value, text])) === JSON.stringify(options)) return;
  const before = select.value;
  select.replaceChildren(...options.map(([value, textContent]) => make("option", { value, textContent })));
  if (options.some(([value]) => value === before)) select.value = before;
}

function versions() {
  const own = models.filter((model) => model.task === element("task").value);
  const champion = own.find((model) => model.serving);
  const others = own.filter((model) => model !== champion && !model.reason);
  fill(element("version"), [
    // Nobody gets a version that he did not choose.
    ["", champion ? `champion (${judged(champion)})` : "choose one"],
    ...others.map((model) => [String(model.version), judged(model)]),
  ]);
  const hint = champion ? "" : whyNoChampion(own, others);
  if (element("no-champion").textContent !== hint) element("no-champion").textContent = hint;
}

/** A version's number, and that the gate rejected it; a person's verdict may be another one since. */
function judged({ version, verdict, gate_verdict: gate }) {
  return (gate ?? verdict) === "reject" ? `${version}, rejected by the gate` : String(version);
}

/** Why no version answers when none is named; others: the versions of the model that may be chosen. */
function whyNoChampion(own, others) {
  const words = ({ expected, actual, remedy }) => `expected ${expected}; got ${actual}. ${remedy ?? ""}`;
  const named = own.find((model) => model.aliases?.includes("champion"));
  const refused = named?.reason ? named : others.length ? null : models.find((model) => model.reason);
  if (refused) return `Version ${refused.version} of ${refused.task} cannot serve: ${words(refused.reason)}`;
  if (named) return `Version ${named.version}, the champion, is being loaded.`;
  if (others.length) return "No version of this model is champion: choose one by its number, and read its card first.";
  if (registry?.error) return `The registry does not answer: ${words(registry.error)}`;
  if (starting()) return "The service has just started; it is looking at its models.";
  return "No model serves yet. Once one is trained and promoted, this page finds it by itself.";
}

/** The card of the version that is chosen. */
async function showChosenCard() {
  const task = element("task").value;
  const champion = models.find((model) => model.task === task && model.serving);
  const version = element("version").value || champion?.version;
  if (version) await showCard(task, version);
}

async function showCard(task, version) {
  const reply = await answered(`/models/${encodeURIComponent(task)}/${version}/card`);
  element("card").querySelector("pre").textContent = await reply.text();
  element("card").showModal();
}

async function upload(files) {
  if (!files.length) return;
  if (!element("version").value && !models.some((model) => model.task === element("task").value && model.serving)) {
    element("files").value = "";
    throw new Refusal(422, {
      expected: "a version to restore with", actual: "none chosen", remedy: element("no-champion").textContent,
    });
  }
  element("problem").hidden = true;
  const fields = Object.fromEntries(["task", "version", "channels", "samples", "steps", "seed"].map((id) => [id, element(id).value]));
  fields.maps = ["schedule_map", "residual"].filter((map) => element(`map-${map}`).checked).join(",");
  const bar = element("upload-bar");
  bar.value = 0;
  element("upload").hidden = false;
  element("upload-text").textContent = `${files.length} ${files.length === 1 ? "file" : "files"}`;
  const sending = send([...files], fields, (share) => {
    bar.value = share;
    if (share === 1) element("upload-text").textContent = "sent; it is looked at";
  });
  element("upload-stop").onclick = sending.stop;
  try {
    await sending.done;
  } finally {
    element("upload").hidden = true;
    element("files").value = "";
  }
  list.until = 0; // the person waits for his own job
  await refresh();
}

async function refresh() {
  clearTimeout(next);
  const mine = ++turn;
  let wait = IDLE;
  try {
    if (performance.now() >= due) await choices();
    if (mine !== turn) return;
    const { found, more } = await listed();
    const jobs = await Promise.all(found.map((job) => (whole.has(job.id) ? entire(job) : job)));
    if (mine !== turn) return;
    element("older").hidden = !more;
    const ended = list.show(jobs);
    if (ended.length) element("ended").textContent = ended.map(endOf).join(" ");
    element("no-jobs").hidden = jobs.length > 0;
    if (unfinished(jobs)) wait = BUSY;
    await stillThere(jobs);
    if (mine !== turn) return;
    away("");
  } catch (error) {
    if (mine !== turn) return;
    const why = absence(error);
    away(why);
    if (error.status === 401) {
      problem(error);
      return;
    }
    due = 0;
    if (!why) problem(error);
  }
  next = setTimeout(refresh, document.hidden ? IDLE : wait);
}

/** As many pages of jobs as were asked for, the newest first, and whether there are more. */
async function listed() {
  const found = [];
  let more = true; // on the service
  for (let page = 0; page < pages && more; page++) {
    const { jobs } = await asked(page ? `/jobs?before=${found.at(-1).id}` : "/jobs");
    found.push(...jobs);
    more = jobs.length === LISTED;
  }
  return { found, more };
}

/** Empty the viewer when its job is gone, which one that is too old for the list need not be. */
async function stillThere(jobs) {
  const id = seen;
  if (seen === null || jobs.some((job) => job.id === seen)) return;
  try {
    await asked(`/jobs/${id}`);
  } catch (error) {
    if (error.status !== 404) throw error;
    if (seen !== id) return; // another image is looked at meanwhile
    seen = null;
    viewer.clear();
  }
}

async function cancel(id) {
  await attempt(() => ask(`/jobs/${id}/cancel`, { method: "POST" }));
  await refresh();
}

async function remove(id, name, results) {
  if (results && !confirm(`Remove ${name} with its results? They are deleted on the service.`)) return;
  await attempt(() => ask(`/jobs/${id}`, { method: "DELETE" }));
  whole.delete(id);
  await refresh();
}

/** A job of the list with all its images, unless it was removed meanwhile. */
async function entire(job) {
  return asked(`/jobs/${job.id}`).catch(() => job);
}

/** From now on show all images of a job. */
async function all(id) {
  whole.add(id);
  await refresh();
}

/** Show a restored image; whoever asked by keyboard goes on in the viewer. */
async function look(job, image, byKeyboard) {
  const pressed = document.activeElement;
  await attempt(async () => {
    const path = `/jobs/${job.id}/images/${image.number}`;
    const view = await ask(`${path}/view`);
    element("download").href = `${path}/result`;
    element("maker").textContent = `${job.task}, version ${job.version}`;
    element("maker-card").onclick = () => attempt(() => showCard(job.task, job.version));
    viewer.show(path, view);
    seen = job.id;
    list.mark(job.id, image.number);
    reveal();
    if (byKeyboard && stays(pressed)) element("canvas").focus({ preventScroll: true });
    await facts(job, image);
  });
}

/** Scroll to the viewer where most of the image is out of sight: other buttons come under the pointer. */
function reveal() {
  const { top, bottom, height } = element("frame").getBoundingClientRect();
  if (Math.min(bottom, innerHeight) - Math.max(top, 0) > height / 2) return;
  list.rest();
  element("stage").scrollIntoView({ block: "start" });
}

async function facts(job, image) {
  const { images } = await ask(`/provenance/${job.id}`);
  const made = images.find((entry) => entry.number === image.number) ?? {};
  const rows = Object.entries(made).filter(([name]) => name !== "number");
  const table = make("dl");
  for (const [name, value] of rows) {
    table.append(make("dt", { textContent: name.replaceAll("_", " ") }), make("dd", { textContent: value }));
  }
  const meaning = make("p", {
    textContent:
      "Values are in the input's units. The reconstruction is the mean of the draws; the interval says where the " +
      "reference image would lie, as often as its calibration states for images like those of its test. Fine " +
      "structure where the uncertainty is large is the model's guess: do not count or measure it.",
  });
  element("facts").querySelector("div").replaceChildren(meaning, table);
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const pressed = document.activeElement;
  element("key-problem").textContent = "";
  attempt(async () => {
    const key = encodeURIComponent(element("key").value.trim()); // fetch throws at letters that no key has
    try {
      await ask("/session", { method: "POST", headers: { authorization: `Bearer ${key}` } });
    } catch (error) {
      if (error.status === 401) {
        element("key-problem").textContent = "That key is unknown.";
        element("key").select();
      }
      throw error;
    }
    element("key").value = "";
    if ((await begin()) && stays(pressed)) element("files").focus();
  });
});
element("older").addEventListener("click", () => {
  pages += 1;
  refresh();
});
element("task").addEventListener("change", () => {
  element("version").value = ""; // a number means something else for every model
  versions();
});
element("show-card").addEventListener("click", () => attempt(showChosenCard));
element("files").addEventListener("change", () => attempt(() => upload(element("files").files)));
const drop = element("drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  attempt(() => upload(event.dataTransfer.files));
});
element("order-form").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => document.hidden || refresh());
begin();
