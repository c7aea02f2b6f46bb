// What is drawn beside an image to read it by: a ruler, and the scale of the colours.

/** A number for people: four digits that count. */
export function number(value) {
  return String(Number(Number(value).toPrecision(4)));
}

/**
 * A length of 1, 2 or 5 times a power of ten, at the lower left of a canvas.
 * @param {?number} size of a pixel of the image, in micrometres; the ruler is in pixels without
 * @param {number} scale screen pixels per pixel of the image
 * @returns {string} what it says
 */
export function ruler(context, size, scale) {
  const { clientWidth, clientHeight } = context.canvas;
  const perUnit = size ? scale / size : scale; // screen pixels per micrometre, or per pixel
  const longest = clientWidth / 4 / perUnit;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= longest);
  const width = length * perUnit;
  const x = 14;
  const y = clientHeight - 16;
  const text = size ? `${number(length)} µm` : `${number(length)} px`;
  context.font = "13px system-ui, sans-serif";
  context.fillStyle = "#000a";
  context.fillRect(x - 6, y - 20, Math.max(width, context.measureText(text).width) + 12, 30);
  context.fillStyle = "#fff";
  context.fillRect(x, y, width, 4);
  context.fillText(text, x, y - 5);
  return text;
}

/**
 * All colours of a map, the first one at the left.
 * @param {HTMLCanvasElement} canvas of 256 x 12
 * @param {Uint8Array} colours 256 x [red, green, blue]
 */
export function scaleBar(canvas, colours) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(256, 12);
  for (let at = 0; at < 256 * 12; at++) {
    picture.data.set(colours.subarray(3 * (at % 256), 3 * (at % 256) + 3), 4 * at);
    picture.data[4 * at + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}
