// SPDX-License-Identifier: Apache-2.0
// What is used of a DICOM header (data/reading/dicom_file.py and dicom_header.py).

import { inflateSync } from "fflate";
import { recipe } from "./assets.js";
import { NotAnImage, Unusable, requireSize } from "./errors.js";
import { latin } from "./orientation.js";

const { dicomParser } = globalThis;

export const SYNTAX = {
  implicit: "1.2.840.10008.1.2", explicit: "1.2.840.10008.1.2.1", deflated: "1.2.840.10008.1.2.1.99",
  big: "1.2.840.10008.1.2.2", rle: "1.2.840.10008.1.2.5", jpeg: "1.2.840.10008.1.2.4.50",
};
const TAGS = {
  syntax: "x00020010", sopClass: "x00080016", modality: "x00080060", samples: "x00280002", photometric: "x00280004",
  planar: "x00280006", frames: "x00280008", rows: "x00280010", columns: "x00280011", aspect: "x00280034",
  allocated: "x00280100", stored: "x00280101", high: "x00280102", signed: "x00280103", padding: "x00280120",
  paddingLimit: "x00280121", intercept: "x00281052", slope: "x00281053", rescaleType: "x00281054", centre: "x00281050",
  width: "x00281051", modalityLut: "x00283000", descriptor: "x00283002", table: "x00283006", voiLut: "x00283010",
  voiFunction: "x00281056", orientation: "x00200037", spacing: "x00280030", detectorSpacing: "x00181164",
  nominalSpacing: "x00182010", shared: "x52009229", perFrame: "x52009230", pixels: "x7fe00010",
};
export const GROUPS = { measures: "x00289110", plane: "x00209116", position: "x00209113", rescale: "x00289145", voi: "x00289132" };
// without these, the bytes of the pixels could mean anything
const REQUIRED = {
  samples: "SamplesPerPixel (0028,0002)", allocated: "BitsAllocated (0028,0100)", stored: "BitsStored (0028,0101)",
  signed: "PixelRepresentation (0028,0103)",
};
const CT_CLASSES = ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"];
const OTHER_UNITS = ["OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"]; // RescaleType of spectral CT and others

/** A parsed data set: values by the names of TAGS. */
export class Elements {
  constructor(dataSet) {
    this.dataSet = dataSet;
  }

  has(name) {
    return Boolean(this.dataSet.elements[TAGS[name]]?.length);
  }

  element(name) {
    return this.dataSet.elements[TAGS[name]];
  }

  text(name) {
    return this.has(name) ? this.dataSet.string(TAGS[name]).replaceAll("\0", "").trim() : "";
  }

  /** `count` finite numbers of a text, or null. */
  numbers(name, count) {
    const parts = this.text(name).split("\\").map((part) => (part.trim() ? Number(part) : NaN));
    return parts.length === count && parts.every(Number.isFinite) ? parts : null;
  }

  number(name) {
    return this.numbers(name, 1)?.[0] ?? null;
  }

  /** One number of 16 bits, or null; `signed` where the file doesn't say. */
  short(name, signed = false) {
    if (this.element(name)?.length !== 2) return null;
    const vr = this.element(name).vr;
    return (vr ? vr === "SS" : signed) ? this.dataSet.int16(TAGS[name]) : this.dataSet.uint16(TAGS[name]);
  }

  items(name) {
    return (this.dataSet.elements[TAGS[name] ?? name]?.items ?? []).map((item) => new Elements(item.dataSet));
  }

  /** Data sets that may hold an attribute of a functional group, the most special first; null: what frames share. */
  *groups(group, frame) {
    if (frame !== null) {
      const own = this.items("perFrame")[frame]?.items(group)[0];
      if (own) yield own;
    }
    const shared = this.items("shared")[0]?.items(group)[0];
    if (shared) yield shared;
    yield this;
  }
}

/** Parses a file; throws for what is no DICOM image. */
export function parsedDicom(bytes) {
  let whole = bytes;
  if (latin(bytes.subarray(128, 132)) !== "DICM") {
    const start = bytes[0] + 256 * bytes[1];
    if (start !== 2 && start !== 8) throw new NotAnImage("is no PNG, JPEG or DICOM file, by its name and content; leave it out");
    whole = withPreamble(bytes, start === 8);
  }
  let dataSet;
  try {
    dataSet = dicomParser.parseDicom(whole, { inflater });
  } catch (error) {
    throw new Unusable(`is a damaged or cut DICOM file (${String(error.exception ?? error.message ?? error)}); copy it again`);
  }
  const elements = new Elements(dataSet);
  elements.bytes = dataSet.byteArray; // of a deflated file, those inflated
  requireImage(elements);
  return elements;
}

/** A file of an old device, which begins with its elements. */
function withPreamble(bytes, guess) {
  const explicit = /^[A-Z]{2}$/.test(latin(bytes.subarray(4, 6)));
  const uid = explicit ? SYNTAX.explicit : SYNTAX.implicit;
  const value = uid.length % 2 ? `${uid}\0` : uid;
  const meta = `\x02\0\x10\0UI${String.fromCharCode(value.length)}\0${value}`;
  const head = `${"\0".repeat(128)}DICM${guess ? meta : ""}`;
  const found = new Uint8Array(head.length + bytes.length);
  found.set(Uint8Array.from(head, (letter) => letter.charCodeAt(0)));
  found.set(bytes, head.length);
  return found;
}

function inflater(bytes, position) {
  const content = inflateSync(bytes.subarray(position));
  const found = new Uint8Array(position + content.length);
  found.set(bytes.subarray(0, position));
  found.set(content, position);
  return found;
}

function requireImage(elements) {
  const kind = elements.text("sopClass");
  const other = recipe.dicom_objects[kind];
  if (other) throw new NotAnImage(`is a DICOM object of another kind (${other}); leave it out`);
  if (!elements.short("rows") || !elements.short("columns")) {
    throw new Unusable("has no image size in its header: it is no image, or was cut short; leave it out");
  }
}

/** What the reader and the check of the input need of a header. */
export function headerOf(elements) {
  const missing = Object.keys(REQUIRED).find((name) => elements.short(name) === null);
  if (missing) throw new Unusable(`has no ${REQUIRED[missing]} in its header; copy the file again or leave it out`);
  const [allocated, stored] = [elements.short("allocated"), elements.short("stored")];
  if (!(stored > 0 && stored <= allocated)) {
    throw new Unusable(`has values of ${stored} bits in ${allocated}, which can't be; copy the file again or leave it out`);
  }
  requireSize(elements.short("rows"), elements.short("columns"));
  const photometric = elements.text("photometric").toUpperCase();
  return {
    rows: elements.short("rows"), columns: elements.short("columns"), samples: elements.short("samples"),
    frames: elements.number("frames") || 1, photometric, modality: elements.text("modality").toUpperCase(),
    syntax: elements.dataSet.string(TAGS.syntax)?.replaceAll("\0", "").trim(),
    allocated, stored, high: elements.short("high"),
    signed: elements.short("signed") === 1, planar: elements.short("planar") === 1,
    hounsfield: inHounsfield(elements, photometric),
  };
}

/** {plane, rowLength, columnLength, spacingKnown} of a frame. */
export function geometryOf(elements, frame) {
  const stated = (name, group, count, valid) => {
    for (const holder of elements.groups(group, frame)) {
      const values = holder.numbers(name, count);
      if (values && valid(values)) return values;
    }
    return null;
  };
  const spacing =
    stated("spacing", GROUPS.measures, 2, (values) => values.some(Boolean)) ??
    elements.numbers("detectorSpacing", 2) ??
    elements.numbers("nominalSpacing", 2);
  const known = Boolean(spacing) && Math.min(...spacing) > 0;
  const aspect = elements.numbers("aspect", 2);
  const height = aspect && Math.min(...aspect) > 0 ? aspect[0] / aspect[1] : 1;
  const [rowLength, columnLength] = known ? spacing : [height, 1];
  return { plane: planeOf(stated("orientation", GROUPS.plane, 6, isPlane)), rowLength, columnLength, spacingKnown: known };
}

const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);

function isPlane(directions) {
  const [row, column] = [directions.slice(0, 3), directions.slice(3)];
  return Math.abs(dot(row, column)) < 1e-2 && [row, column].every((one) => Math.abs(dot(one, one) - 1) < 1e-2);
}

function planeOf(orientation) {
  if (!orientation) return "";
  const [a, b, c, d, e, f] = orientation;
  const normal = [b * f - c * e, c * d - a * f, a * e - b * d].map(Math.abs);
  return ["sagittal", "coronal", "axial"][normal.indexOf(Math.max(...normal))];
}

/** Whether rescaled values are Hounsfield units; null where only the values tell. */
function inHounsfield(elements, photometric) {
  if (elements.text("modality").toUpperCase() !== "CT" || !photometric.startsWith("MONOCHROME")) return false;
  const groups = [...elements.groups(GROUPS.rescale, 0)];
  if (groups.some((group) => OTHER_UNITS.includes(group.text("rescaleType").toUpperCase()))) return false;
  const ofCt = CT_CLASSES.includes(elements.text("sopClass"));
  for (const group of groups) {
    const [slope, intercept] = [group.number("slope"), group.number("intercept")];
    if (slope !== null || intercept !== null) {
      return ofCt || (slope || 1) !== 1 || (intercept || 0) !== 0 || (elements.short("stored") || 8) > 8;
    }
  }
  return ofCt ? null : false;
}
