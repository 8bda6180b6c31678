// SPDX-License-Identifier: Apache-2.0
// PNG and JPEG as Python reads them (data/reading/pictures.py): stored values, no colour management, turned by EXIF.

import { decode } from "fast-png";
import { Unusable, requireSize } from "./errors.js";
import { decodeJpeg, jpegHeader } from "./jpeg.js";
import { jpegFacts, latin, pngFacts, turned } from "./orientation.js";

const [PNG, JPEG] = ["\x89PNG\r\n\x1a\n", "\xff\xd8\xff"];
const PNG_HEADER = 33; // bytes of the signature and the first chunk
const DICOM_MARK = 128; // place of "DICM"
const OTHERS = { BM: "BMP", "II*\0": "TIFF", "MM\0*": "TIFF", GIF8: "GIF", RIFF: "WebP", "%PDF": "a PDF document" };

/** Reads a PNG or JPEG file, whichever its content is, into a picture. */
export async function readPicture(bytes) {
  const head = latin(bytes.subarray(0, 8));
  if (head.startsWith(PNG)) return asPicture(png(bytes), pngFacts(bytes));
  if (head.startsWith(JPEG)) {
    const header = jpegHeader(bytes);
    return asPicture(await decodeJpeg(bytes, header), jpegFacts(header.segments));
  }
  if (latin(bytes.subarray(DICOM_MARK, DICOM_MARK + 4)) === "DICM") {
    throw new Unusable("holds DICOM, and its name says PNG or JPEG; let its name end with .dcm");
  }
  const kind = Object.keys(OTHERS).find((mark) => head.startsWith(mark));
  if (kind) throw new Unusable(`holds ${OTHERS[kind]}, which this page doesn't read; save it as PNG`);
  throw new Unusable("holds no PNG or JPEG image; copy the file again");
}

/** "PNG" or "JPG" for a file of that content, whatever its name. */
export function hiddenKind(bytes) {
  const head = latin(bytes.subarray(0, 8));
  if (head.startsWith(PNG)) return "PNG";
  return head.startsWith(JPEG) ? "JPG" : "";
}

function png(bytes) {
  requirePng(bytes);
  let found;
  try {
    found = decode(bytes, { checkCrc: true });
  } catch (error) {
    throw new Unusable(`is a damaged PNG (${error.message}); copy the file again`);
  }
  const { width: columns, height: rows, depth, palette } = found;
  let { channels, data } = found;
  if (depth < 8) data = bitsOf(data, rows, columns, depth, palette ? 1 : 255 / (2 ** depth - 1));
  else if (depth === 16 && channels > 1) data = data.map((value) => value >> 8); // as Pillow does
  if (palette) {
    const colours = new Uint8Array(3 * data.length);
    data.forEach((entry, place) => colours.set(palette[entry]?.slice(0, 3) ?? [], 3 * place));
    [channels, data] = [3, colours];
  }
  return { rows, columns, channels, data };
}

/** Refuses by its header what can't be decoded. */
function requirePng(bytes) {
  if (bytes.length < PNG_HEADER) throw new Unusable("is cut short; copy the file again");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  requireSize(view.getUint32(20), view.getUint32(16));
  const [depth, interlaced] = [bytes[24], bytes[28]];
  if (depth < 8 && interlaced) {
    throw new Unusable("is an interlaced PNG of fewer than 8 bits, which this page doesn't read; save it again");
  }
}

/** Values of 1, 2 or 4 bits, whose rows begin with a byte. */
function bitsOf(bytes, rows, columns, depth, factor) {
  const perRow = Math.ceil((columns * depth) / 8);
  return Uint8Array.from({ length: rows * columns }, (_, place) => {
    const [row, bit] = [Math.floor(place / columns), (place % columns) * depth];
    const byte = bytes[row * perRow + (bit >> 3)];
    return ((byte >> (8 - depth - (bit & 7))) & (2 ** depth - 1)) * factor;
  });
}

function asPicture({ rows, columns, channels, data }, { orientation, aspect }) {
  const quarter = orientation >= 5 && orientation <= 8;
  return {
    rows: quarter ? columns : rows, columns: quarter ? rows : columns,
    channels: planes(data, rows * columns, channels).map((plane) => turned(plane, rows, columns, orientation)),
    rowLength: quarter ? 1 / aspect : aspect, columnLength: 1, spacingKnown: false,
    photometric: "", modality: "", hounsfield: false, plane: "", voiRange: null, kind: "picture",
  };
}

/** Interleaved values as one float32 plane per channel. */
export function planes(data, count, channels) {
  return Array.from({ length: channels }, (_, channel) => {
    const plane = new Float32Array(count);
    for (let place = 0; place < count; place++) plane[place] = data[place * channels + channel];
    return plane;
  });
}
