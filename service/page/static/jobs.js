// The list of jobs: kept as it is where nothing changed, so that focus and pictures stay.

const ENDED = new Set(["done", "failed", "cancelled"]);
const REST = 1000; // milliseconds in which what was meant for another button neither cancels nor removes
const HELD = 4000; // milliseconds from one arrival above other jobs to the next
const WORDS = { queued: "Waits", running: "At work", done: "Done", failed: "Failed", cancelled: "Cancelled" };

/** Whether anything of some jobs will still change. */
export const unfinished = (jobs) => jobs.some((job) => !ENDED.has(job.state));

export class JobList {
  /**
   * @param {HTMLElement} list
   * @param {{look: Function, cancel: Function, remove: Function, all: Function}} does what the buttons do
   */
  constructor(list, does) {
    this.list = list;
    this.does = does;
    this.caller = ""; // whose jobs need no owner
    this.shown = new Map(); // id -> {card, text}
    this.resting = 0; // the timer of a rest, 0 without one
    this.until = 0; // when the next jobs may come above others
    list.addEventListener("keydown", (event) => {
      // Enter held down on Remove would go on with the next job, which gets the focus.
      if (event.repeat && event.key === "Enter") event.preventDefault();
    });
  }

  /**
   * Show these and no others, the newest first.
   *
   * An arrival puts another job's Cancel where somebody may be about to press, so there is a rest then, unless
   * a mouse is elsewhere. Were each of a batch shown at once, the rest would not end: those that come soon
   * after another are held back, and buttons take clicks most of the time.
   * @returns {Object[]} the jobs that have ended since they were shown last
   */
  show(jobs) {
    const ended = [];
    const ids = new Set(jobs.map((job) => job.id));
    const tops = new Map([...this.list.children].map((card) => [card, top(card)]));
    let came = false;
    let went = false;
    let place = null; // of a job that is gone and had the focus
    for (const [id, { card }] of this.shown) {
      if (ids.has(id)) continue;
      if (card.contains(document.activeElement)) place = [...this.list.children].indexOf(card);
      card.remove();
      this.shown.delete(id);
      went = true;
    }
    const last = jobs.findLastIndex((job) => this.shown.get(job.id)?.card.isConnected);
    const hold = performance.now() < this.until;
    let at = 0;
    jobs.forEach((job, index) => {
      const known = this.shown.get(job.id) ?? this.begin(job);
      const arrives = !known.card.isConnected;
      if (!arrives || !hold || index > last) {
        const there = this.list.children[at] ?? null;
        if (there !== known.card) this.list.insertBefore(known.card, there);
        if (arrives && index < last) this.until = performance.now() + HELD;
        came ||= arrives;
        at += 1;
      }
      const text = JSON.stringify(job);
      if (known.text === text) return;
      if (known.text && !known.ended && ENDED.has(job.state)) ended.push(job);
      this.update(known, job);
      known.text = text;
    });
    // What fell off the end moved nothing; but the next button may have the focus now.
    const moved = ([card, before]) => card.isConnected && Math.abs(top(card) - before) > 1;
    // A finger may be about to press anywhere.
    const pointed = this.list.matches(":hover") || matchMedia("(hover: none)").matches;
    if (((went || (came && pointed)) && [...tops].some(moved)) || place !== null) this.rest();
    if (place !== null) this.focus(place);
    return ended;
  }

  /** Focus a button of the job at a place, else of the last one, else the list. */
  focus(place) {
    const card = this.list.children[place] ?? this.list.lastElementChild;
    (card?.querySelector("button:enabled:not([hidden])") ?? this.list).focus();
  }

  /** Cancel and remove nothing for a moment: other buttons are now where somebody may be about to press. */
  rest() {
    clearTimeout(this.resting);
    this.list.classList.add("resting");
    this.resting = setTimeout(() => {
      this.resting = 0;
      this.list.classList.remove("resting");
    }, REST);
  }

  /** Tell which image is in the viewer. */
  mark(id, number) {
    for (const item of this.list.querySelectorAll("[aria-current]")) item.removeAttribute("aria-current");
    this.shown.get(id)?.images[number]?.setAttribute("aria-current", "true");
  }

  begin(job) {
    const card = make("li", { className: "job" });
    card.dataset.id = job.id;
    const known = {
      card,
      text: "",
      state: make("span", { className: "state" }),
      when: make("span", { className: "when", textContent: new Date(job.created).toLocaleString() }),
      bar: make("progress", { max: 100 }),
      told: make("p"),
      cancel: make("button", { type: "button", className: "quiet", textContent: "Cancel" }),
      remove: make("button", { type: "button", className: "quiet", textContent: "Remove" }),
      images: [],
      list: make("ul", { className: "images" }),
      more: make("button", { type: "button", className: "quiet" }),
    };
    known.more.addEventListener("click", () => this.does.all(job.id));
    const name = nameOf(job);
    known.bar.setAttribute("aria-label", `Progress of ${name}`);
    known.cancel.setAttribute("aria-label", `Cancel ${name}`);
    known.remove.setAttribute("aria-label", `Remove ${name}`);
    known.cancel.addEventListener("click", () => {
      if (!this.resting) this.does.cancel(job.id);
    });
    known.remove.addEventListener("click", () => {
      if (!this.resting) this.does.remove(job.id, name, known.results);
    });
    const head = make("div", { className: "row" });
    head.append(known.state, known.when, make("span", { className: "spring" }), known.cancel, known.remove);
    card.append(head, known.bar, known.told, known.list, known.more);
    this.shown.set(job.id, known);
    return known;
  }

  update(known, job) {
    known.ended = ENDED.has(job.state);
    // Of a large job the list has the first images only: there may be results among the others.
    known.results = job.images.length < job.image_count || job.images.some((image) => image.state === "done");
    known.state.textContent = WORDS[job.state];
    known.state.className = `state ${job.state}`;
    known.bar.hidden = known.ended;
    known.bar.value = job.percent;
    this.buttons(known);
    known.told.textContent = (job.owner === this.caller ? "" : `Of ${job.owner}: `) + told(job);
    for (const image of job.images) {
      if (!known.images[image.number]) known.list.append((known.images[image.number] = make("li")));
      this.image(known.images[image.number], job, image);
    }
    const hidden = job.image_count - known.images.length;
    known.more.hidden = hidden === 0;
    known.more.textContent = `Show ${hidden} more`;
    known.more.setAttribute("aria-label", `Show ${hidden} more of ${nameOf(job)}`);
  }

  /** Cancel until the end, Remove after it: not at once where the one takes the other's place under a finger. */
  buttons(known) {
    if (known.ended === known.cancel.hidden && known.text) return;
    const focused = document.activeElement === known.cancel;
    known.cancel.hidden = known.ended;
    known.remove.hidden = !known.ended;
    if (!known.text || !known.ended) return;
    known.remove.disabled = true;
    setTimeout(() => {
      known.remove.disabled = false;
      if (focused && document.activeElement === document.body) known.remove.focus();
    }, REST);
  }

  image(item, job, image) {
    const text = JSON.stringify(image);
    if (item.dataset.text === text) return;
    item.dataset.text = text;
    const path = `/jobs/${job.id}/images/${image.number}`;
    const done = image.state === "done";
    const picture = done
      ? make("img", { src: `${path}/preview.png`, alt: "", loading: "lazy" })
      : make("span", { className: "empty" });
    const about = make("span", { className: "name", textContent: image.name });
    const extent = `${image.axes.toLowerCase()} ${image.shape.join(" × ")}`;
    const small = make("small", { className: "hint", textContent: ` ${extent}${done ? "" : `, ${image.percent} %`}` });
    about.append(small);
    for (const doubt of image.warnings) {
      const text = `Expected ${doubt.expected}; got ${doubt.actual}. ${doubt.remedy}`;
      about.append(make("div", { className: "warning", textContent: text }));
    }
    if (image.error) {
      const error = `expected ${image.error.expected}; got ${image.error.actual}. ${image.error.remedy}`;
      about.append(make("div", { className: "error", textContent: error }));
    }
    const actions = make("span");
    if (done) {
      const look = make("button", { type: "button", textContent: "Look" });
      look.setAttribute("aria-label", `Look at ${image.name}`);
      look.addEventListener("click", ({ detail }) => this.does.look(job, image, detail === 0)); // 0: no mouse
      actions.append(look);
    }
    item.replaceChildren(picture, about, actions);
  }
}

/** Where a card is on the screen. */
const top = (card) => card.getBoundingClientRect().top;

/** A job by its images' names, for people. */
export function nameOf(job) {
  const others = job.image_count - 1;
  return job.images[0].name + (others ? ` and ${others} more` : "");
}

/** How a job has ended, for people. */
export const endOf = (job) => `${WORDS[job.state]}: ${nameOf(job)}.`;

function told(job) {
  const parts = [`${job.task}, version ${job.version}, ${job.samples} draws of ${job.steps} steps, seed ${job.seed}`];
  if (job.channels.length) parts[0] += `, channels ${job.channels.join(", ")}`;
  if (ENDED.has(job.state)) return parts[0];
  if (job.images_ahead > 0) parts.push(`${job.images_ahead} images before it`);
  const { seconds, disk_mib: disk, memory_mib: memory } = job.estimate;
  const room = `${disk === null ? "some" : `${Math.ceil(disk)} MiB of`} disk${memory === null ? "" : ` and up to ${Math.ceil(memory)} MiB of memory`}`;
  if (seconds !== null) parts.push(`takes about ${duration(seconds)}, ${room}`);
  else parts.push(`takes ${room}; how long is known soon`);
  if (job.seconds_left !== null) parts.push(`about ${duration(job.seconds_left)} left`);
  const { expected, actual, remedy } = job.waits_for ?? {};
  const reason = job.waits_for ? ` It waits: expected ${expected}; got ${actual}. ${remedy}` : "";
  return `${parts.join("; ")}.${reason}`;
}

/** Seconds in words. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** An element with properties. */
export function make(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
