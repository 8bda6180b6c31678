// SPDX-License-Identifier: Apache-2.0
// From a picture to the network's input, by the steps of the model's recipe (serving/export/numpy_preprocessing.py).

import { Unusable } from "./errors.js";

/** Prepares a picture: {rows, columns, values: float32}. */
export function prepared(steps, picture) {
  const named = Object.fromEntries(steps.map((step) => [step.step, step]));
  let image = { rows: picture.rows, columns: picture.columns, values: grey(picture, named) };
  if (image.values.some((value) => value - value !== 0)) throw new Unusable("has values that are NaN or infinite; leave it out");
  if (named.resample && !picture.spacingKnown) {
    throw new Unusable("has no pixel spacing, so it can't be resampled to a spacing in mm; leave it out");
  }
  const lengths = [picture.rowLength || 1, picture.columnLength || 1];
  for (const step of steps) image = CHANGES[step.step]?.(image, step, lengths, picture) ?? image;
  return { ...image, values: Float32Array.from(image.values) };
}

const CHANGES = {
  resample: (image, step, lengths) => eachAxis(image, (line, axis) => resampled(line, lengths[axis], step.spacing[axis])),
  scale: (image, step, _, picture) => scaled(image, rangeOf(step, image.values, picture.voiRange)),
  zscore: (image) => standardised(image),
  resize: (image, step) => averaged(image, step.size),
  fit: (image, step, lengths) => averaged(image, fitting(step, image, lengths)),
  crop_or_pad: (image, step) => eachAxis(image, (line, axis) => cropped(line, step.size[axis])),
};

/** One channel in which bright means dense, in float32 as Python computes it. */
function grey({ channels, photometric, voiRange }, { grey: step, scale }) {
  let values = channels[0];
  if (channels.length > 2) {
    const [red, green, blue] = step.luma.map(Math.fround);
    values = values.map((value, place) => Math.fround(
      Math.fround(Math.fround(red * value) + Math.fround(green * channels[1][place])) +
        Math.fround(blue * channels[2][place]),
    ));
  }
  if (photometric !== "MONOCHROME1") return values;
  const window = scale?.range ?? "file";
  const [low, high] = (window === "file" ? voiRange : window) ?? extremes(values);
  return values.map((value) => low + high - value);
}

/** Least and largest of the finite values. */
export function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low && value > -Infinity) low = value;
    if (value > high && value < Infinity) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}

function rangeOf(step, values, voiRange) {
  if (!step.percentiles && step.range !== "file") return step.range;
  if (!step.percentiles && voiRange) return voiRange;
  const [low, high] = step.percentiles ? percentiles(values, step.percentiles) : extremes(values);
  return low < high ? [low, high] : extremes(values);
}

function scaled(image, [low, high]) {
  const found = new Float64Array(image.values.length);
  for (let place = 0; place < found.length; place++) {
    const value = image.values[place];
    found[place] = high === low ? value - low - 1 : Math.min(Math.max((2 * (value - low)) / (high - low) - 1, -1), 1);
  }
  return { ...image, values: found };
}

function standardised(image) {
  const count = image.values.length;
  const mean = image.values.reduce((sum, value) => sum + value, 0) / count;
  const deviation = Math.sqrt(image.values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count) || 1;
  return { ...image, values: Float64Array.from(image.values, (value) => (value - mean) / deviation) };
}

/** Percentiles, linear between two values, as numpy.percentile gives them by default; values count in float32. */
export function percentiles(given, shares) {
  const values = given instanceof Float32Array ? given : Float32Array.from(given);
  const places = shares.map((share) => (share / 100) * (values.length - 1));
  const sorted = ranked(values, places.flatMap((at) => [Math.floor(at), Math.ceil(at)]));
  return places.map((at) => {
    const [low, high] = [sorted.get(Math.floor(at)), sorted.get(Math.ceil(at))];
    return low + (at - Math.floor(at)) * (high - low);
  });
}

/** rank from 0 -> value, by histograms of the upper and the lower bits of the numbers: no sorting of millions. */
function ranked(values, ranks) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const keyOf = (word) => (word & 0x80000000 ? ~word : word | 0x80000000) >>> 0; // in the order of the numbers
  const counts = new Uint32Array(65536);
  for (const word of bits) counts[keyOf(word) >>> 16]++;
  const wanted = ranks.map((rank) => ({ rank, ...placeOf(rank, counts) }));
  const below = new Map(wanted.map(({ place }) => [place, new Uint32Array(65536)]));
  const needed = Uint8Array.from({ length: 65536 }, (_, place) => Number(below.has(place)));
  for (const word of bits) {
    const key = keyOf(word);
    if (needed[key >>> 16]) below.get(key >>> 16)[key & 65535]++;
  }
  return new Map(wanted.map(({ rank, place, left }) => {
    const key = ((place << 16) | placeOf(left, below.get(place)).place) >>> 0;
    return [rank, new Float32Array(Uint32Array.of(key & 0x80000000 ? key ^ 0x80000000 : ~key).buffer)[0]];
  }));
}

/** The bin of a rank, and its rank in it. */
function placeOf(rank, counts) {
  let [place, left] = [0, rank];
  while (left >= counts[place]) left -= counts[place++];
  return { place, left };
}

/** Rows and columns of an image that is scaled as a whole. */
function fitting({ fit, size }, image, lengths) {
  const extent = [image.rows * lengths[0], image.columns * lengths[1]];
  const factor = Math[fit === "pad" ? "min" : "max"](size[0] / extent[0], size[1] / extent[1]);
  return extent.map((one) => Math.max(halfToEven(one * factor), 1));
}

function halfToEven(value) {
  const whole = Math.floor(value);
  if (value - whole !== 0.5) return Math.round(value);
  return whole % 2 ? whole + 1 : whole;
}

/** Area means: pixel i of m is the mean of pixels floor(i n / m) to ceil((i + 1) n / m) - 1 of n. */
function averaged({ rows, columns, values }, [height, width]) {
  const found = new Float64Array(height * width);
  const [across, sums] = [spans(columns, width), new Float64Array(columns)];
  spans(rows, height).forEach(([top, bottom], row) => {
    sums.fill(0);
    for (let at = top; at < bottom; at++) {
      for (let column = 0; column < columns; column++) sums[column] += values[at * columns + column];
    }
    across.forEach(([left, right], column) => {
      let sum = 0;
      for (let at = left; at < right; at++) sum += sums[at] / (bottom - top);
      found[row * width + column] = sum / (right - left);
    });
  });
  return { rows: height, columns: width, values: found };
}

const spans = (old, count) =>
  Array.from({ length: count }, (_, place) => [Math.floor((place * old) / count), Math.ceil(((place + 1) * old) / count)]);

function resampled(line, given, wanted) {
  const last = line.length - 1;
  return Float64Array.from({ length: halfToEven((last * given) / wanted + 1) }, (_, place) => {
    const at = (place * wanted) / given;
    const below = Math.min(Math.max(Math.floor(at), 0), last);
    const share = Math.min(Math.max(at - below, 0), 1);
    return line[below] * (1 - share) + line[Math.min(below + 1, last)] * share;
  });
}

function cropped(line, count) {
  const old = line.length;
  if (old > count) return line.slice(Math.floor(old / 2) - Math.floor(count / 2)).slice(0, count);
  const found = new Float64Array(count).fill(-1);
  found.set(line, Math.floor((count - old) / 2));
  return found;
}

/** Changes the lines along the rows' axis (0), then those along the columns' (1). */
function eachAxis(image, change) {
  return [0, 1].reduce((current, axis) => {
    const { rows, columns, values } = current;
    const [lines, length] = axis ? [rows, columns] : [columns, rows];
    const placeOf = (line, at, width) => (axis ? line * width + at : at * width + line);
    const line = new Float64Array(length);
    let found;
    for (let one = 0; one < lines; one++) {
      for (let at = 0; at < length; at++) line[at] = values[placeOf(one, at, columns)];
      const made = change(line, axis);
      const width = axis ? made.length : columns;
      found ??= { rows: axis ? rows : made.length, columns: width, values: new Float64Array(lines * made.length) };
      for (let at = 0; at < made.length; at++) found.values[placeOf(one, at, width)] = made[at];
    }
    return found;
  }, image);
}
