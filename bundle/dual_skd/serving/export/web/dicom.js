// SPDX-License-Identifier: Apache-2.0
// A DICOM frame as a picture (data/reading/dicom_pixels.py and dicom_values.py): bits, rescale, palette, padding, VOI.

import { Unusable } from "./errors.js";
import { GROUPS, SYNTAX, geometryOf, headerOf, parsedDicom } from "./dicom_header.js";
import { framePlanes } from "./dicom_pixels.js";
import { extremes } from "./preprocessing.js";

const COLOURS = ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"];
const GREYS = ["MONOCHROME1", "MONOCHROME2"];
const PALETTES = [["x00281101", "x00281201"], ["x00281101", "x00281202"], ["x00281101", "x00281203"]];
const SUPPLEMENTAL = "x00089205"; // PixelPresentation
const AIR = -300; // HU: values below are air, which only CT has

/** The frames of a file that the model takes: {elements, header, numbers}. */
export function openedDicom(bytes, frame) {
  const elements = parsedDicom(bytes);
  const header = headerOf(elements);
  if (![...GREYS, ...COLOURS].includes(header.photometric)) {
    throw new Unusable(`has the PhotometricInterpretation "${header.photometric}", expected a grey or RGB image; leave it out`);
  }
  const expected = [...GREYS, "PALETTE COLOR"].includes(header.photometric) ? 1 : 3;
  if (header.samples !== expected) {
    throw new Unusable(`has ${header.samples} samples per pixel, a ${header.photometric} image has ${expected}; leave it out`);
  }
  return { elements, header, numbers: chosenFrames(elements, header.frames, frame) };
}

function chosenFrames(elements, count, frame) {
  if (count === 1) return [0];
  const positioned = elements.items("perFrame").some((item) => item.items(GROUPS.position).length);
  if (frame === null || frame === undefined) {
    throw new Unusable(`has ${count} frames, and the model takes single images; export the frame as an image of its own`);
  }
  if (positioned) {
    throw new Unusable(`has ${count} frames at positions of their own, which this page doesn't sort; export the frame`);
  }
  if (frame === "all") return Array.from({ length: count }, (_, number) => number);
  const number = frame === "middle" ? Math.floor(count / 2) : frame;
  if (number >= count) throw new Unusable(`has ${count} frames, and the model takes number ${number} from 0; leave it out`);
  return [number];
}

/** Reads a frame; `voiLut` applies the VOI LUT or window of the file. */
export async function readFrame({ elements, header }, number, voiLut) {
  const stored = (await framePlanes(elements, header, number)).map((plane) => storedBits(plane, header));
  const coloured = COLOURS.includes(header.photometric);
  const voi = voiLut ? voiOf(elements, header, number) : null;
  let channels = stored.map((plane) => Float32Array.from(plane));
  if (header.photometric === "PALETTE COLOR") channels = looked(elements, header, stored[0]);
  else if (!coloured) channels = [greyValues(elements, header, number, stored[0], voi)];
  return {
    ...geometryOf(elements, number), ...hounsfieldOf(header, channels[0]),
    rows: header.rows, columns: header.columns, channels, modality: header.modality, kind: "DICOM",
    voiRange: voi && !coloured ? orderedRange(voi) : null,
  };
}

function hounsfieldOf({ photometric, hounsfield }, values) {
  const [least] = extremes(values);
  const found = COLOURS.includes(photometric) ? "RGB" : hounsfield === false ? photometric : "MONOCHROME2";
  return { photometric: found, hounsfield: hounsfield ?? (least < 0 || least < AIR ? true : null) };
}

function orderedRange(voi) {
  const [low, high] = voi.ends.map(voi.apply).sort((one, other) => one - other);
  return low < high ? [low, high] : null;
}

/** The BitsStored bits that end with HighBit, see `_stored_values` in Python. */
function storedBits(values, { stored: bits, allocated: width, high, signed, syntax }) {
  const highest = high ?? bits - 1;
  if (highest === bits - 1 && bits < width && syntax === SYNTAX.jpeg) {
    const [low, most] = signed ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
    return values.map((value) => Math.min(Math.max(value, low), most));
  }
  const field = (first, count) => {
    const [up, down] = [32 - count - first, 32 - count];
    return values.map((value) => (signed ? (value << up) >> down : (value << up) >>> down));
  };
  const same = (one, other) => one.every((value, place) => value === other[place]);
  const lowest = bits === width ? values : field(0, bits);
  if (highest === bits - 1 || highest >= width) return lowest;
  if (highest >= bits) {
    const below = highest + 1 - bits;
    if (values.every((value) => (value & (2 ** below - 1)) === 0)) return field(below, bits);
    if (same(lowest, values)) return values;
  } else if (same(lowest, field(0, highest + 1))) {
    return lowest;
  }
  throw new Unusable(`states ${bits} bits of which the highest is bit ${highest}, and its pixels use others, too; leave it out`);
}

// ---------------------------------------------------------------------------------------------- values, tables, windows

function greyValues(elements, header, number, stored, voi) {
  const { apply } = rescaleOf(elements, header, number);
  const values = Float32Array.from(stored, apply);
  fillPadding(values, elements, header, stored);
  return voi ? values.map(voi.apply) : values;
}

/** The Modality LUT or rescale of a frame: {apply, ends of what it gives, known}. */
function rescaleOf(elements, header, number) {
  for (const group of elements.groups(GROUPS.rescale, number)) {
    const table = tableOf(group, "modalityLut", header.signed);
    if (table) return { apply: table.at, ends: [0, 2 ** table.depth - 1] };
    const [slope, intercept] = [group.text("slope"), group.text("intercept")];
    if (!slope && !intercept) continue;
    const [factor, offset] = [slope ? Number(slope) : 1, intercept ? Number(intercept) : 0];
    const apply = (value) => value * factor + offset;
    return { apply, ends: storedEnds(header).map(apply) };
  }
  return { apply: (value) => value, ends: storedEnds(header) };
}

function storedEnds({ signed, stored }) {
  return signed ? [-(2 ** (stored - 1)), 2 ** (stored - 1) - 1] : [0, 2 ** stored - 1];
}

/** The first table of a sequence: {at: value -> entry, first, last, depth}; null where there is none. */
function tableOf(group, name, signed) {
  const item = group.items(name)[0];
  const [descriptor, data] = [item?.element("descriptor"), item?.element("table")];
  if (descriptor?.length !== 6 || !data?.length) return null;
  const word = (place) => item.dataSet.uint16(descriptor.tag, place);
  const [count, depth] = [word(0) || 65536, word(2)];
  const isSigned = descriptor.vr ? descriptor.vr === "SS" : signed;
  const first = isSigned ? item.dataSet.int16(descriptor.tag, 1) : word(1);
  if (data.length < 2 * count) throw new Unusable("has a table of values that is too short or packed; export it without");
  const entry = (place) => item.dataSet.uint16(data.tag, Math.min(Math.max(place, 0), count - 1));
  return { at: (value) => entry(value - first), first, last: first + count - 1, depth };
}

/** The VOI LUT or window of a frame: {apply: value -> value, ends: values that give its range}. */
function voiOf(elements, header, number) {
  let fault = "";
  for (const group of elements.groups(GROUPS.voi, number)) {
    const table = tableOf(group, "voiLut", header.signed);
    if (table) return { apply: (value) => table.at(halfEven(value)), ends: [table.first, table.last] };
    const { window, why } = windowOf(group, rescaleOf(elements, header, number).ends);
    if (window) return { apply: window, ends: [-1e9, 1e9] };
    fault ||= why;
  }
  throw new Unusable(`has no VOI LUT and no window to apply${fault}; leave it out`);
}

function halfEven(value) {
  const whole = Math.floor(value);
  if (value - whole !== 0.5) return Math.round(value);
  return whole % 2 ? whole + 1 : whole;
}

/** The first window of a group as a function (PS3.3, C.11.2.1.2 and C.11.2.1.3), or why there is none. */
function windowOf(group, [low, high]) {
  const kind = (group.text("voiFunction") || "LINEAR").toUpperCase();
  const [statedCentre, statedWidth] = [group.text("centre"), group.text("width")].map((text) => text.split("\\")[0].trim());
  if (!statedCentre || !statedWidth) return { why: "" };
  let [centre, width] = [Number(statedCentre), Number(statedWidth)];
  if (Number.isNaN(centre) || Number.isNaN(width)) return { why: " (its window is no number)" };
  if (!["LINEAR", "LINEAR_EXACT", "SIGMOID"].includes(kind)) return { why: ` (its window has the unknown function ${kind})` };
  if (!(kind === "LINEAR" ? width >= 1 : width > 0)) return { why: ` (its window is ${width} wide, with the centre ${centre})` };
  const range = high - low;
  if (kind === "SIGMOID") return { window: (value) => range / (1 + Math.exp((-4 * (value - centre)) / width)) + low };
  if (kind === "LINEAR") [centre, width] = [centre - 0.5, width - 1];
  return {
    window: (value) => {
      if (value <= centre - width / 2) return low;
      if (value > centre + width / 2) return high;
      return ((value - centre) / width + 0.5) * range + low;
    },
  };
}

/** Gives padding the lowest real value, or the highest where low ones are bright. */
function fillPadding(values, elements, header, stored) {
  const value = elements.short("padding", header.signed);
  if (value === null) return;
  const wrap = (end) => (header.signed && end >= 2 ** (header.allocated - 1) ? end - 2 ** header.allocated : end);
  const ends = [value, elements.short("paddingLimit", header.signed) ?? value].map(wrap);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const isPadding = (place) => stored[place] >= low && stored[place] <= high;
  const [least, most] = extremes(values.filter((_, place) => !isPadding(place)));
  if (stored.every((_, place) => isPadding(place))) return;
  const inverted = header.photometric === "MONOCHROME1" && header.hounsfield === false;
  values.forEach((_, place) => {
    if (isPadding(place)) values[place] = inverted ? most : least;
  });
}

/** The colours of a palette as three planes. */
function looked(elements, header, stored) {
  const { dataSet } = elements;
  if (header.syntax === SYNTAX.big || ["MIXED", "COLOR"].includes(dataSet.string(SUPPLEMENTAL))) {
    throw new Unusable("has a palette that this page doesn't read; export it as RGB");
  }
  return PALETTES.map(([descriptor, table]) => {
    const [element, lut] = [dataSet.elements[descriptor], dataSet.elements[table]];
    if (element?.length !== 6 || !lut) throw new Unusable("has no palette that this page reads; export it as RGB");
    const count = dataSet.uint16(descriptor, 0) || 65536;
    const first = header.signed ? dataSet.int16(descriptor, 1) : dataSet.uint16(descriptor, 1);
    const wide = Math.round((lut.length / count) * 8) === 16;
    if (!wide && Math.floor(lut.length / count) !== 1) throw new Unusable("has a damaged palette; export it as RGB");
    const entry = (place) => (wide ? dataSet.uint16(table, place) : elements.bytes[lut.dataOffset + place]);
    return Float32Array.from(stored, (value) => entry(Math.min(Math.max(value - first, 0), count - 1)));
  });
}
