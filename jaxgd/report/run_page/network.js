'use strict';
// Compute the network, and turn a drawing into an input of the network. This file does not access the page.

// Each function maps the weighted inputs z of one layer to its activations a.
const ACTIVATIONS = {
  sigmoid: z => z.map(v => 1 / (1 + Math.exp(-v))),
  tanh: z => z.map(v => Math.tanh(v)),
  relu: z => z.map(v => Math.max(v, 0)),
  softmax: z => {
    const top = z.reduce((a, b) => Math.max(a, b));
    const e = z.map(v => Math.exp(v - top)), sum = e.reduce((a, b) => a + b);
    return e.map(v => v / sum);
  },
};

function bytes(base64) {
  return Uint8Array.from(atob(base64), c => c.charCodeAt(0));
}

// Decode little-endian float32 values, on a computer of any byte order.
function floats(base64) {
  const raw = bytes(base64), view = new DataView(raw.buffer), out = new Float32Array(raw.length / 4);
  for (let i = 0; i < out.length; i++) out[i] = view.getFloat32(4 * i, true);
  return out;
}

function decoded(layers) {
  return layers.map(layer => ({activation: layer.activation, w: floats(layer.w), b: floats(layer.b)}));
}

// Return the outputs of the network for an image of bytes. A byte x becomes the input x/255.
function feedforward(layers, image) {
  let a = Float64Array.from(image, v => v / 255);
  for (const layer of layers) {
    const z = Float64Array.from(layer.b), n = a.length;
    for (let j = 0; j < z.length; j++) {
      for (let k = 0; k < n; k++) z[j] += layer.w[j * n + k] * a[k];
    }
    a = ACTIVATIONS[layer.activation](z);
  }
  return a;
}

// Return a blank gray image. A value of 0 is paper, and 255 is ink.
function paper(height, width) {
  return {height, width, gray: new Uint8Array(height * width)};
}

// Draw a line with round ends and soft edges, from [x0, y0] to [x1, y1]. Coordinates and radius are in pixels.
function drawLine(image, [x0, y0], [x1, y1], radius) {
  const dx = x1 - x0, dy = y1 - y0, square = dx * dx + dy * dy || 1, reach = radius + 1;
  const top = Math.max(0, Math.floor(Math.min(y0, y1) - reach));
  const bottom = Math.min(image.height, Math.ceil(Math.max(y0, y1) + reach));
  const left = Math.max(0, Math.floor(Math.min(x0, x1) - reach));
  const right = Math.min(image.width, Math.ceil(Math.max(x0, x1) + reach));
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const x = column + 0.5 - x0, y = row + 0.5 - y0;
      const along = Math.min(Math.max((x * dx + y * dy) / square, 0), 1);
      const distance = Math.hypot(x - along * dx, y - along * dy);
      const ink = Math.round(255 * Math.min(Math.max(radius + 0.5 - distance, 0), 1));
      const at = row * image.width + column;
      if (ink > image.gray[at]) image.gray[at] = ink;
    }
  }
}

// The functions below repeat the steps of `fit_to_frame` in jaxgd/data/image. Rounding changes a pixel by at most one
// gray level. A drawing has no background and no faint marks, so the functions do not remove them.
const SPECK = 0.005, LEAST_CONTRAST = 16;

// Return the drawing in the frame of the training images, or null if all its gray values are below LEAST_CONTRAST.
function fitToFrame(ink, frame) {
  if (ink.gray.every(v => v < LEAST_CONTRAST)) return null;
  const [rows, columns] = projections(ink);
  const top = firstLine(rows), bottom = ink.height - firstLine(rows.slice().reverse());
  const left = firstLine(columns), right = ink.width - firstLine(columns.slice().reverse());
  const scale = Math.min(frame.box_height / (bottom - top), frame.box_width / (right - left));
  const height = Math.max(1, rint((bottom - top) * scale)), width = Math.max(1, rint((right - left) * scale));
  const digit = resized(ink, top, bottom, left, right, height, width, frame.peak);
  let center = [(height - 1) / 2, (width - 1) / 2];
  if (frame.centering === 'mass') center = projections(digit).map(centerOfMass);
  const row = corner(frame.center_row, center[0], frame.height - height);
  const column = corner(frame.center_column, center[1], frame.width - width);
  const framed = paper(frame.height, frame.width);
  for (let i = 0; i < height; i++) {
    framed.gray.set(digit.gray.subarray(i * width, (i + 1) * width), (row + i) * frame.width + column);
  }
  return framed;
}

// The sum of the ink in every row, and in every column.
function projections({height, width, gray}) {
  const rows = new Float64Array(height), columns = new Float64Array(width);
  for (let i = 0; i < gray.length; i++) {
    rows[Math.floor(i / width)] += gray[i];
    columns[i % width] += gray[i];
  }
  return [rows, columns];
}

// Return the index of the first line (row or column) with ink. Ignore the ink before an empty line if it is at most
// 0.5% of all ink.
function firstLine(lines) {
  const total = lines.reduce((a, b) => a + b);
  let before = 0, first = 0;
  lines.forEach((ink, i) => {
    before += ink;
    if (ink === 0 && before <= SPECK * total) first = i + 1;
  });
  return first;
}

function centerOfMass(lines) {
  let sum = 0, moment = 0;
  lines.forEach((ink, i) => { sum += ink; moment += ink * i; });
  return Math.fround(moment / sum);
}

// Round x ≥ 0 to the nearest whole number, and halves to the even one, as Python does.
function rint(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + low % 2 : Math.round(x);
}

function corner(target, center, most) {
  return Math.min(Math.max(Math.floor(target - center + 0.5), 0), most);
}

// Cut out a box and resize it: by area averages if it shrinks, and linearly if it grows. Then scale the gray values so
// that the largest is `peak`.
function resized(image, top, bottom, left, right, height, width, peak) {
  const down = footprints(bottom - top, height), across = footprints(right - left, width);
  const values = new Float64Array(height * width), line = new Float64Array(right - left);
  down.forEach((rows, i) => {
    line.fill(0);
    for (const [row, weight] of rows) {
      const start = (top + row) * image.width + left;
      for (let k = 0; k < line.length; k++) line[k] += weight * image.gray[start + k];
    }
    across.forEach((columns, j) => {
      for (const [column, weight] of columns) values[i * width + j] += weight * line[column];
    });
  });
  const stretch = peak / values.reduce((a, b) => Math.max(a, b));
  return {height, width, gray: Uint8Array.from(values, v => rint(v * stretch))};
}

// The old pixels that each new pixel covers along one axis, with their weights.
function footprints(old, count) {
  const half = Math.max(old / count, 1) / 2;
  return Array.from({length: count}, (_, i) => {
    const middle = (i + 0.5) * (old / count), covered = [];
    let sum = 0;
    for (let k = Math.max(Math.floor(middle - half), 0); k < Math.min(Math.ceil(middle + half), old); k++) {
      const overlap = Math.min(k + 1, middle + half) - Math.max(k, middle - half);
      if (overlap > 0) {
        covered.push([k, overlap]);
        sum += overlap;
      }
    }
    return covered.map(([k, overlap]) => [k, overlap / sum]);
  });
}
