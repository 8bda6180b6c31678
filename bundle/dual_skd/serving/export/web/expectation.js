// SPDX-License-Identifier: Apache-2.0
// What the model expects of an image, noted in training (data/reading/expectation.py).

import { extremes } from "./preprocessing.js";

const SIZE_FACTOR = 1.5; // outside the range of training, from which size and aspect ratio are remarked on
const MIN_COLOUR = 0.1; // mean distance of the channels, as a share of the range, from which it is colour
const PROJECTIONS = ["CR", "DX", "DR", "RG"]; // X-ray, by detectors of several ages

/** {refusals, remarks}: sentences why an answer would mean nothing, and why it may be worse. */
export function judged(expected, window, picture) {
  if (!expected) return { refusals: [], remarks: [] };
  const colour = inColour(picture);
  return { refusals: refusalsOf(expected, window, picture, colour), remarks: remarksOf(expected, picture, colour) };
}

function refusalsOf(expected, window, picture, colour) {
  const found = wrongUnit(expected, window, picture);
  const modality = modalityOf(picture.modality);
  const known = expected.modalities;
  if (modality && known.length && !known.includes("") && !known.includes(modality)) {
    found.push(`its modality is ${picture.modality}, training had ${known.join(", ")} only`);
  }
  if (colour && expected.colour === false) found.push("it is in colour, training had grey images only");
  return found;
}

function wrongUnit(expected, window, { hounsfield, kind }) {
  if (window == null || window === "percentile" || window === "zscore") return [];
  if (expected.hounsfield && window !== "file") {
    if (hounsfield === false) return ["its values aren't Hounsfield units, which the intensity window is for"];
    if (hounsfield === null && expected.images) {
      return ["nothing says that its values are Hounsfield units, and it shows no air, as training did"];
    }
    return [];
  }
  if (!expected.formats.length || expected.formats.includes(kind)) return [];
  return [`it is a ${kind} file, and the window is for values of ${expected.formats.join(" or ")}`];
}

function remarksOf(expected, { columns, rows, plane, hounsfield }, colour) {
  const found = [];
  const measured = [["size", Math.max(columns, rows), expected.sizes], ["aspect ratio", columns / rows, expected.aspect_ratios]];
  for (const [name, value, known] of measured) {
    if (known.length && !(known[0] / SIZE_FACTOR <= value && value <= known[1] * SIZE_FACTOR)) {
      const range = known.map((end) => Number(end.toPrecision(4))).join(" to ");
      found.push(`its ${name} is ${Number(value.toPrecision(4))} (${columns} x ${rows}), in training ${range}`);
    }
  }
  if (plane && expected.planes.length && !expected.planes.some((one) => one === "" || one === plane)) {
    found.push(`its slices are ${plane}, in training ${expected.planes.join(" or ")}`);
  }
  if (hounsfield && expected.hounsfield === false) found.push("its values are Hounsfield units, those of training weren't");
  if (expected.colour && !colour) found.push("it is grey, training had images in colour only");
  return found;
}

function modalityOf(modality) {
  if (["", "OT"].includes(modality)) return "";
  return PROJECTIONS.includes(modality) ? "X-ray" : modality;
}

function inColour({ channels }) {
  if (channels.length < 3) return false;
  const [red, green, blue] = channels;
  let sum = 0;
  red.forEach((value, place) => {
    sum += Math.max(value, green[place], blue[place]) - Math.min(value, green[place], blue[place]);
  });
  const ends = channels.slice(0, 3).map(extremes);
  const extent = Math.max(...ends.map(([, high]) => high)) - Math.min(...ends.map(([low]) => low));
  return sum / red.length > MIN_COLOUR * extent;
}
