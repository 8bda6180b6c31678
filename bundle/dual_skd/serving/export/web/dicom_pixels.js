// SPDX-License-Identifier: Apache-2.0
// Stored values of a DICOM frame (data/reading/dicom_decoders.py, and what pydicom decodes).

import { Unusable } from "./errors.js";
import { SYNTAX } from "./dicom_header.js";
import { decodeJpeg, hasPlainColours, jpegHeader } from "./jpeg.js";

const { dicomParser } = globalThis;
const NATIVE = [SYNTAX.implicit, SYNTAX.explicit, SYNTAX.deflated, SYNTAX.big];
const RLE_HEADER = 64;

/** One frame: a typed array per sample (1, or 3 in RGB), of the stored width and sign. */
export async function framePlanes(elements, header, frame) {
  const element = elements.element("pixels");
  if (!element) throw new Unusable("has no pixel data that this page reads: it is cut short or of another kind; leave it out");
  if (![8, 16, 32].includes(header.allocated)) {
    throw new Unusable(`stores ${header.allocated} bits a value, which this page doesn't read; convert it to 8 or 16`);
  }
  if (NATIVE.includes(header.syntax)) return nativePlanes(elements, element, header, frame);
  if (header.syntax === SYNTAX.rle) return rlePlanes(encoded(elements, element, header, frame), header);
  if (header.syntax === SYNTAX.jpeg) return jpegPlanes(encoded(elements, element, header, frame), header);
  throw new Unusable(`is compressed (transfer syntax ${header.syntax}), which this page doesn't read; export it uncompressed`);
}

function arrayOf(header, buffer, count) {
  const kinds = { 8: [Uint8Array, Int8Array], 16: [Uint16Array, Int16Array], 32: [Uint32Array, Int32Array] };
  return new kinds[header.allocated][Number(header.signed)](buffer, 0, count);
}

function nativePlanes(elements, element, header, frame) {
  const { samples, allocated } = header;
  if (header.photometric === "YBR_FULL_422") {
    throw new Unusable("holds uncompressed YBR_FULL_422, which this page doesn't read; export it as RGB");
  }
  const [width, count] = [allocated / 8, header.rows * header.columns];
  const size = count * samples * width;
  if (element.length < size * header.frames) {
    throw new Unusable(
      `is cut short or damaged: its header declares ${size * header.frames} bytes of pixels, ${element.length} are there; copy it again`,
    );
  }
  let bytes = elements.bytes.subarray(element.dataOffset, element.dataOffset + element.length);
  if (header.syntax === SYNTAX.big && (width > 1 || element.vr === "OW")) bytes = swapped(bytes, Math.max(width, 2));
  return inRgb(split(bytes.slice(frame * size, (frame + 1) * size), header, count, samples), header);
}

function swapped(bytes, width) {
  const found = bytes.slice();
  for (let at = 0; at + width <= found.length; at += width) found.subarray(at, at + width).reverse();
  return found;
}

/** Samples apart, that lie side by side or in planes. */
function split(bytes, header, count, samples) {
  const all = arrayOf(header, bytes.buffer, count * samples);
  if (samples === 1) return [all];
  return Array.from({ length: samples }, (_, sample) =>
    header.planar
      ? all.slice(sample * count, (sample + 1) * count)
      : all.filter((_, place) => place % samples === sample),
  );
}

/** YCbCr as RGB (PS3.3, C.7.6.3.1.2), in 8 bits. */
function inRgb(planes, { photometric }) {
  if (!photometric.startsWith("YBR")) return planes;
  const found = planes.map((plane) => new Uint8Array(plane.length));
  const [green, red, blue] = [-0.114 * 1.772 / 0.587, 1.402, 1.772];
  planes[0].forEach((luma, place) => {
    const [cb, cr] = [planes[1][place] - 128, planes[2][place] - 128];
    const values = [luma + red * cr, luma + green * cb - ((0.299 * 1.402) / 0.587) * cr, luma + blue * cb];
    values.forEach((value, k) => (found[k][place] = Math.min(Math.max(Math.floor(value + 0.5), 0), 255)));
  });
  return found;
}

/** The compressed bytes of a frame. */
function encoded(elements, element, header, frame) {
  const { dataSet } = elements;
  const fragments = element.fragments ?? [];
  if (!fragments.length) throw new Unusable("is compressed, but holds no compressed frame; copy it again");
  if (header.frames === 1) return dicomParser.readEncapsulatedPixelDataFromFragments(dataSet, element, 0, fragments.length);
  if (fragments.length === header.frames) {
    return dicomParser.readEncapsulatedPixelDataFromFragments(dataSet, element, frame, 1);
  }
  const stated = element.basicOffsetTable;
  const table = stated.length === header.frames ? stated : dicomParser.createJPEGBasicOffsetTable(dataSet, element);
  if (table.length !== header.frames) throw new Unusable("holds another number of frames than its header says; copy it again");
  return dicomParser.readEncapsulatedImageFrame(dataSet, element, frame, table);
}

/** RLE (PS3.5, annex G): a segment per byte of each sample, the most significant first. */
function rlePlanes(bytes, header) {
  const [count, width] = [header.rows * header.columns, header.allocated / 8];
  const { samples } = header;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < RLE_HEADER || view.getUint32(0, true) !== samples * width) {
    throw new Unusable("holds RLE data of another kind than its header says; copy it again");
  }
  const ends = Array.from({ length: samples * width }, (_, k) => view.getUint32(4 + 4 * k, true));
  const planes = Array.from({ length: samples }, (_, sample) => {
    const stored = new Uint8Array(count * width);
    for (let byte = 0; byte < width; byte++) {
      const k = sample * width + byte;
      unpackBits(bytes.subarray(ends[k], ends[k + 1]), stored, width - 1 - byte, width);
    }
    return arrayOf(header, stored.buffer, count);
  });
  return inRgb(planes, header);
}

function unpackBits(source, target, first, step) {
  let [at, place] = [0, first];
  while (place < target.length) {
    const control = source[at++];
    if (control === undefined) throw new Unusable("is cut short: its RLE data end before the image; copy it again");
    if (control < 128) {
      for (let n = 0; n <= control && place < target.length; n++, place += step) target[place] = source[at + n];
      at += control + 1;
    } else if (control > 128) {
      for (let n = 0; n < 257 - control && place < target.length; n++, place += step) target[place] = source[at];
      at += 1;
    }
  }
  if (at > source.length) throw new Unusable("is cut short: its RLE data end before the image; copy it again");
}

async function jpegPlanes(frame, header) {
  let start = 0;
  while (start < frame.length && !(frame[start] === 0xff && frame[start + 1] === 0xd8 && frame[start + 2] === 0xff)) start++;
  const bytes = frame.subarray(start);
  const declared = jpegHeader(bytes);
  const samples = declared.layers.length;
  if (declared.rows !== header.rows || declared.columns !== header.columns || samples !== header.samples) {
    throw new Unusable("is damaged: its header and its JPEG image differ in size or colours; copy it again");
  }
  if (header.allocated !== 8) throw new Unusable("states more than 8 bits for an 8-bit JPEG; export it uncompressed");
  if (samples === 3 && !hasPlainColours(declared, header.photometric)) {
    throw new Unusable("holds a JPEG in RGB that doesn't say so, which this page doesn't read; export it uncompressed");
  }
  const { data } = await decodeJpeg(bytes, declared);
  return split(data, { ...header, planar: false }, header.rows * header.columns, samples);
}
