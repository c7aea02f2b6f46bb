// Tiles of exact values: fetched once, kept while there is room, painted in shades of grey or colours.

import { answered } from "./api.js";

const MOST_TILES = 160; // of up to 1 MiB of values each; more where one painting needs more
const RECENT = 1000; // milliseconds
/** The value of a pixel whose tile could not be fetched. */
export const FAILED = undefined;

/** The planes of one image. */
export class Tiles {
  /**
   * @param {string} image path of the image, e.g. /jobs/ID/images/0
   * @param {Object} view what GET image/view told
   * @param {() => void} arrived called when there is more to see
   * @param {(error: Error) => void} failed called for the first tile that could not be fetched
   */
  constructor(image, view, arrived, failed) {
    this.image = image;
    this.view = view;
    this.arrived = arrived;
    this.failed = failed;
    this.kept = new Map(); // key -> tile, the one used last at the end
    this.ended = new AbortController();
    this.painting = 0;
    this.told = false; // of a failure
  }

  /**
   * A painting begins. What the last one did not use makes room, and nothing else: a tile that is used in every
   * painting would be asked for again, arrive, and have all painted again, without end. What the read-out waits
   * for is asked for between paintings, so all of the last second stays.
   */
  begin() {
    const recent = performance.now() - RECENT;
    for (const [old, tile] of this.kept) {
      if (this.kept.size <= MOST_TILES || tile.painting === this.painting || tile.used > recent) break;
      if (tile.values || tile.failed) this.kept.delete(old); // one on its way would be asked for twice
    }
    this.painting += 1;
  }

  /** Whether what was last painted lacks tiles that are on their way. */
  get waiting() {
    return [...this.kept.values()].some((tile) => tile.painting === this.painting && !tile.values && !tile.failed);
  }

  /** Have what could not be fetched fetched again. */
  retry() {
    this.told = false;
    for (const [key, tile] of this.kept) if (tile.failed) this.kept.delete(key);
  }

  /** Nothing more is fetched. */
  close() {
    this.ended.abort();
    this.kept.clear();
  }

  /**
   * A tile, or null while it is on its way and when it could not be fetched.
   * @param {{layer: string, t: number, z: number, c: number}} place
   * @returns {?{values: Float32Array, width: number, height: number}}
   */
  get(place, level, row, column) {
    const tile = this.known(place, level, row, column);
    return tile.values ? tile : null;
  }

  known(place, level, row, column) {
    const key = `layer=${place.layer}&t=${place.t}&z=${place.z}&c=${place.c}&level=${level}&row=${row}&column=${column}`;
    let tile = this.kept.get(key);
    if (tile) this.kept.delete(key);
    else tile = this.fetched(key);
    this.kept.set(key, tile);
    tile.painting = this.painting;
    tile.used = performance.now();
    return tile;
  }

  /** The value of a pixel of the image, null while its tile is on its way, or FAILED. */
  value(place, x, y) {
    const side = this.view.tile;
    const tile = this.known(place, 0, Math.floor(y / side), Math.floor(x / side));
    if (tile.failed) return FAILED;
    return tile.values ? tile.values[(y % side) * tile.width + (x % side)] : null;
  }

  fetched(key) {
    const tile = { values: null, width: 0, height: 0, painted: null, as: "", failed: false };
    answered(`${this.image}/tile?${key}`, { signal: this.ended.signal })
      .then(async (reply) => {
        tile.width = Number(reply.headers.get("x-cvdm-width"));
        tile.height = Number(reply.headers.get("x-cvdm-height"));
        tile.values = new Float32Array(await reply.arrayBuffer());
        this.arrived();
      })
      .catch((error) => {
        if (error.name === "AbortError") return;
        tile.failed = true;
        if (!this.told) this.failed(error);
        this.told = true;
      });
    return tile;
  }
}

/**
 * A tile as a picture.
 * @param {number} low value of the first colour
 * @param {number} high value of the last colour
 * @param {?Uint8Array} colours 256 x [red, green, blue]; grey without
 * @returns {HTMLCanvasElement}
 */
export function painted(tile, low, high, colours, name) {
  const as = `${name} ${low} ${high}`;
  if (tile.as === as) return tile.painted;
  const canvas = tile.painted ?? document.createElement("canvas");
  canvas.width = tile.width;
  canvas.height = tile.height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(tile.width, tile.height);
  const scale = high > low ? 255 / (high - low) : 0; // without a range all has the first colour
  const { data } = picture;
  for (let at = 0, to = 0; at < tile.values.length; at++, to += 4) {
    const shade = Math.max(0, Math.min(255, Math.round((tile.values[at] - low) * scale)));
    if (colours) {
      data[to] = colours[3 * shade];
      data[to + 1] = colours[3 * shade + 1];
      data[to + 2] = colours[3 * shade + 2];
    } else data[to] = data[to + 1] = data[to + 2] = shade;
    data[to + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
  tile.painted = canvas;
  tile.as = as;
  return canvas;
}

/** The values between which a share of a tile lies: percentiles, as [low, high]. */
export function spread(tile, low, high) {
  const values = Float32Array.from(tile.values).sort();
  const at = (share) => values[Math.min(values.length - 1, Math.round(share * (values.length - 1)))];
  return [at(low), at(high)];
}
