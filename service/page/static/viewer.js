// The viewer: input and reconstruction on both sides of a line, the uncertainty over it, values under the cursor.

import { COLOURS } from "./colours.js";
import { number, ruler, scaleBar } from "./marks.js";
import { FAILED, Tiles, painted, spread } from "./tiles.js";

const WINDOW = [0.005, 0.998];
const LARGEST_SCALE = 32;
const READ_PAUSE = 120; // milliseconds that the cursor rests before values are fetched
/** What can be laid over the reconstruction; residuals are positive and negative. */
const OVERLAYS = [
  { layer: "uncertainty_std", words: "Standard deviation" },
  { layer: "schedule_map", words: "Schedule map", high: 1 },
  { layer: "residual", words: "Residual", high: 4, signed: true },
];
const element = (id) => document.getElementById(id);

export class Viewer {
  /** @param {(error: Error) => void} failed */
  constructor(failed) {
    this.failed = failed;
    this.canvas = element("canvas");
    this.tiles = null;
    this.drawing = false;
    this.watch();
  }

  /**
   * Show a restored image.
   * @param {string} image its path, e.g. /jobs/ID/images/0
   * @param {Object} view what GET image/view told
   */
  show(image, view) {
    this.tiles?.close();
    this.view = view;
    this.place = { t: 0, z: 0, c: 0 };
    this.cursor = null;
    this.windows = null;
    this.top = null;
    this.overlays();
    this.tiles = new Tiles(image, view, () => this.draw(), this.failed);
    element("nothing").hidden = true;
    element("stage").hidden = false;
    element("title").textContent = view.name;
    element("readout").textContent = "Point at a pixel, or move the cursor with the arrow keys.";
    this.axes();
    this.fit();
  }

  /** Show none. */
  clear() {
    this.tiles?.close();
    this.tiles = null;
    clearTimeout(this.reading);
    element("nothing").hidden = false;
    element("stage").hidden = true;
  }

  /** Ask again for what could not be fetched: whoever looks wants it. */
  retry() {
    this.tiles?.retry();
    this.draw();
  }

  watch() {
    const { canvas } = this;
    new ResizeObserver(() => this.resized()).observe(canvas);
    for (const id of ["split", "opacity", "map"]) element(id).addEventListener("input", () => this.draw());
    element("over").addEventListener("change", () => {
      this.top = null;
      this.draw();
    });
    for (const id of ["low", "high"]) {
      element(id).addEventListener("change", () => {
        this.windows = [Number(element("low").value), Number(element("high").value)];
        this.draw();
      });
    }
    element("top").addEventListener("change", () => {
      this.top = Math.max(0, Number(element("top").value));
      this.draw();
    });
    element("auto").addEventListener("click", () => {
      this.windows = this.top = null;
      this.draw();
    });
    element("zoom-in").addEventListener("click", () => this.zoom(2));
    element("zoom-out").addEventListener("click", () => this.zoom(1 / 2));
    element("zoom-fit").addEventListener("click", () => this.again());
    element("zoom-one").addEventListener("click", () => this.zoom(1 / this.scale));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(2 ** (-event.deltaY / 300), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      this.retry();
      canvas.setPointerCapture(event.pointerId);
      this.held = [event.offsetX, event.offsetY];
    });
    canvas.addEventListener("pointerup", () => { this.held = null; });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.tiles) return;
      if (this.held) {
        this.left += event.offsetX - this.held[0];
        this.upper += event.offsetY - this.held[1];
        this.held = [event.offsetX, event.offsetY];
      }
      this.point(Math.floor((event.offsetX - this.left) / this.scale), Math.floor((event.offsetY - this.upper) / this.scale));
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (!this.tiles) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const actions = {
      "+": () => this.zoom(2), "=": () => this.zoom(2), "-": () => this.zoom(1 / 2),
      0: () => this.again(), 1: () => this.zoom(1 / this.scale),
    };
    if (moves[event.key]) {
      const [dx, dy] = moves[event.key].map((step) => step * (event.shiftKey ? 10 : 1));
      const { width, height } = this.view;
      const [x, y] = this.cursor ?? [Math.floor(width / 2), Math.floor(height / 2)];
      const inside = (at, length) => Math.max(0, Math.min(length - 1, at));
      this.point(inside(x + dx, width), inside(y + dy, height));
      this.follow();
    } else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }

  /** Keep the cursor in sight. */
  follow() {
    const [x, y] = this.cursor;
    const { clientWidth, clientHeight } = this.canvas;
    const onto = (begin, at, length) => {
      const seen = begin + (at + 0.5) * this.scale;
      return begin + Math.max(0, 20 - seen) + Math.min(0, length - 20 - seen);
    };
    this.left = onto(this.left, x, clientWidth);
    this.upper = onto(this.upper, y, clientHeight);
    this.draw();
  }

  /** The whole image, and what of it could not be fetched. */
  again() {
    this.retry();
    this.fit();
  }

  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    const { width, height } = this.view;
    this.scale = Math.min(LARGEST_SCALE, clientWidth / width, clientHeight / height);
    this.left = (clientWidth - width * this.scale) / 2;
    this.upper = (clientHeight - height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const least = Math.min(1, 64 / Math.max(this.view.width, this.view.height));
    const scale = Math.max(least, Math.min(LARGEST_SCALE, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.upper = y - ((y - this.upper) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.draw();
  }

  resized() {
    const { canvas } = this;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
    if (!this.tiles) return;
    if (this.fitted) this.fit();
    else this.draw();
  }

  axes() {
    const { view } = this;
    const sliders = [];
    const slider = (axis, label, count, names = null) => {
      if (count < 2) return;
      const input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: count - 1, value: 0 });
      const told = document.createElement("span");
      const tell = () => { told.textContent = `${label} ${names ? names[this.place[axis]] : `${this.place[axis] + 1} of ${count}`}`; };
      input.id = `axis-${axis}`;
      input.setAttribute("aria-label", label);
      input.addEventListener("input", () => {
        this.place[axis] = Number(input.value);
        if (axis === "c") this.windows = this.top = null; // another channel, another brightness
        tell();
        this.draw();
      });
      tell();
      const wrap = document.createElement("label");
      wrap.append(told, input);
      sliders.push(wrap);
    };
    slider("t", "Time", view.t);
    slider("z", "z", view.z);
    slider("c", "Channel", view.channels.length, view.channels);
    element("axes").replaceChildren(...sliders);
  }

  /** What may be laid over this image. */
  overlays() {
    const there = OVERLAYS.filter(({ layer }) => this.view.layers.includes(layer));
    element("over").replaceChildren(...there.map(({ layer, words }) => new Option(words, layer)));
    element("over-row").hidden = there.length < 2;
  }

  get over() {
    return OVERLAYS.find(({ layer }) => layer === element("over").value) ?? OVERLAYS[0];
  }

  /** Where the colours begin; those of a signed layer are centred on 0. */
  bottom() {
    return this.over.signed ? -this.top : 0;
  }

  layer(name) {
    return { layer: name, ...this.place };
  }

  draw() {
    if (this.drawing || !this.tiles) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.paint();
      this.canvas.setAttribute("aria-busy", String(this.tiles?.waiting ?? false));
    });
  }

  paint() {
    if (!this.tiles) return; // emptied since it was asked for
    const { canvas, view } = this;
    this.tiles.begin();
    const context = canvas.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const last = view.levels - 1;
    const whole = this.tiles.get(this.layer("input"), last, 0, 0);
    this.tiles.get(this.layer("reconstruction"), last, 0, 0);
    const over = this.tiles.get(this.layer(this.over.layer), last, 0, 0);
    if (whole && !this.windows) this.windows = spread(whole, ...WINDOW);
    if (over && this.top === null) this.top = this.over.high ?? spread(over, 0, WINDOW[1])[1];
    if (!this.windows) return;
    this.told();
    const line = (canvas.clientWidth * element("split").value) / 100;
    const opacity = element("opacity").value / 100;
    this.side(context, 0, line, (columns) => this.plane(context, columns, "input", ...this.windows, null, "grey"));
    this.side(context, line, canvas.clientWidth, (columns) => {
      this.plane(context, columns, "reconstruction", ...this.windows, null, "grey");
      if (opacity > 0 && this.top !== null) {
        const map = element("map").value;
        context.globalAlpha = opacity;
        this.plane(context, columns, this.over.layer, this.bottom(), this.top, COLOURS[map], map);
        context.globalAlpha = 1;
      }
    });
    context.fillStyle = "#fff";
    if (line > 0 && line < canvas.clientWidth) context.fillRect(line - 1, 0, 2, canvas.clientHeight);
    this.mark(context);
    this.canvas.dataset.ruler = ruler(context, this.view.pixel_size_um?.x, this.scale);
    canvas.dataset.painted = String(1 + Number(canvas.dataset.painted ?? 0));
  }

  /** Paint between two columns of the canvas only. */
  side(context, from, to, paint) {
    if (from >= to) return;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, this.canvas.clientHeight);
    context.clip();
    paint([from, to]);
    context.restore();
  }

  /** One layer between two columns of the canvas: what is there of the level that fits, over the coarsest one. */
  plane(context, [from, to], layer, low, high, colours, name) {
    const { view, scale } = this;
    const place = this.layer(layer);
    const finest = Math.max(0, Math.min(view.levels - 1, Math.floor(Math.log2(1 / (scale * devicePixelRatio)))));
    context.imageSmoothingEnabled = scale < 1;
    for (const level of new Set([view.levels - 1, finest])) {
      const side = view.tile * 2 ** level;
      const range = (begin, low, high, length) => [
        Math.max(0, Math.floor((low - begin) / scale / side)),
        Math.min(Math.ceil(length / side), Math.ceil((high - begin) / scale / side)),
      ];
      const [top, bottom] = range(this.upper, 0, this.canvas.clientHeight, view.height);
      const [first, end] = range(this.left, from, to, view.width);
      for (let row = top; row < bottom; row++) {
        for (let column = first; column < end; column++) {
          const tile = this.tiles.get(place, level, row, column);
          if (!tile) continue;
          const width = Math.min(side, view.width - column * side);
          const height = Math.min(side, view.height - row * side);
          context.drawImage(
            painted(tile, low, high, colours, name),
            this.left + column * side * scale, this.upper + row * side * scale, width * scale, height * scale,
          );
        }
      }
    }
  }

  mark(context) {
    if (!this.cursor || document.activeElement !== this.canvas) return;
    const [x, y] = this.cursor;
    const size = Math.max(this.scale, 7);
    const middle = [this.left + (x + 0.5) * this.scale, this.upper + (y + 0.5) * this.scale];
    for (const [width, colour] of [[3, "#000"], [1, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.strokeRect(middle[0] - size / 2, middle[1] - size / 2, size, size);
    }
  }

  told() {
    const set = (id, value) => { if (document.activeElement !== element(id)) element(id).value = number(value); };
    set("low", this.windows[0]);
    set("high", this.windows[1]);
    scaleBar(element("scale-bar"), COLOURS[element("map").value]);
    if (this.top === null) return;
    set("top", this.top);
    element("scale-low").textContent = number(this.bottom());
    element("scale-high").textContent = number(this.top);
  }

  point(x, y) {
    const { width, height } = this.view;
    if (x < 0 || y < 0 || x >= width || y >= height) {
      this.draw();
      return;
    }
    this.cursor = [x, y];
    this.draw();
    clearTimeout(this.reading);
    this.reading = setTimeout(() => this.read(), READ_PAUSE);
  }

  /** The cursor's values of layers that only some results have. */
  others(at) {
    return OVERLAYS.slice(1)
      .filter(({ layer }) => this.view.layers.includes(layer))
      .map(({ layer, words }) => [words.toLowerCase(), at(layer)]);
  }

  read() {
    if (!this.cursor || !this.tiles) return;
    const [x, y] = this.cursor;
    const at = (layer) => this.tiles.value(this.layer(layer), x, y);
    const [input, mean, std, lower, upper] = ["input", "reconstruction", "uncertainty_std", "lower", "upper"].map(at);
    const others = this.others(at);
    const values = [input, mean, std, lower, upper, ...others.map(([, value]) => value)];
    if (values.includes(FAILED)) {
      element("readout").textContent = `Column ${x}, row ${y}: its values did not come; click the image, or Fit, to try again.`;
      return;
    }
    if (values.includes(null)) {
      clearTimeout(this.reading);
      this.reading = setTimeout(() => this.read(), READ_PAUSE);
      return;
    }
    const size = this.view.pixel_size_um;
    const where = size ? `, ${number(x * size.x)} and ${number(y * size.y)} µm` : "";
    element("readout").textContent =
      `Column ${x}, row ${y}${where}: input ${number(input)}, reconstruction ${number(mean)}, ` +
      `interval ${number(lower)} to ${number(upper)}, standard deviation ${number(std)}` +
      others.map(([words, value]) => `, ${words} ${number(value)}`).join("");
  }
}
