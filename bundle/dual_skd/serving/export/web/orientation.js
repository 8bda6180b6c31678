// SPDX-License-Identifier: Apache-2.0
// What JPEG and PNG say beside their pixels: EXIF orientation and the shape of a pixel, as Pillow takes them.

import { Unusable } from "./errors.js";

const ORIENTATION = 0x0112;
const XMP_ORIENTATION = /tiff:Orientation(?:="|>)([0-9])/;
const MAX_PIXEL_ASPECT = 4; // of height and width: beyond it a stated density is taken for a mistake

/** Text of bytes, one character each. */
export const latin = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");

/** Segments {marker, data} of a JPEG image before its pixels. */
export function* jpegSegments(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 2;
  while (at + 4 <= bytes.length) {
    if (bytes[at] !== 0xff || bytes[at + 1] === 0xff) {
      at += 1;
      continue;
    }
    const marker = bytes[at + 1];
    if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += 2;
      continue;
    }
    const length = view.getUint16(at + 2);
    yield { marker, data: bytes.subarray(at + 4, at + 2 + length) };
    if (marker === 0xda) return; // the scan
    at += 2 + Math.max(length, 2);
  }
}

/** {orientation 1 to 8, aspect: height of a stored pixel by its width} of the segments of a JPEG image. */
export function jpegFacts(segments) {
  const starting = (text) => segments.find(({ data }) => latin(data.subarray(0, text.length)) === text)?.data;
  const exif = starting("Exif\0\0");
  const xmp = starting("http://ns.adobe.com/xap/1.0/\0");
  const jfif = segments[0]?.marker === 0xe0 ? starting("JFIF\0") : undefined;
  const orientation = (exif && exifOrientation(exif.subarray(6))) || Number(xmp && XMP_ORIENTATION.exec(latin(xmp))?.[1]);
  let density = [1, 1];
  if (jfif?.length >= 12 && (jfif[7] || !exif)) {
    density = [jfif[8] * 256 + jfif[9], jfif[10] * 256 + jfif[11]];
  }
  return { orientation: orientation || 1, aspect: aspectOf(density) };
}

/** The same of a PNG, whose chunks are looked through. */
export function pngFacts(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let [orientation, density] = [1, [1, 1]];
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const data = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    const type = latin(bytes.subarray(at + 4, at + 8));
    if (type === "eXIf") orientation = exifOrientation(data) || 1;
    if (type === "pHYs" && data.length === 9) density = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (["tEXt", "zTXt", "iTXt"].includes(type) && hidesOrientation(data, type)) {
      throw new Unusable("states its orientation in a text, which this page doesn't read; save it again as a PNG");
    }
  }
  return { orientation, aspect: aspectOf(density) };
}

function hidesOrientation(data, type) {
  const text = latin(data);
  const packed = type === "zTXt" || (type === "iTXt" && text.charCodeAt(text.indexOf("\0") + 1) === 1);
  if (text.startsWith("Raw profile type exif\0")) return true;
  return text.startsWith("XML:com.adobe.xmp\0") && (packed || XMP_ORIENTATION.test(text));
}

/** Orientation in a block of EXIF from its TIFF header on, or undefined. */
function exifOrientation(block) {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const little = block[0] === 0x49;
  try {
    const start = view.getUint32(4, little);
    for (let entry = 0; entry < view.getUint16(start, little); entry++) {
      const at = start + 2 + 12 * entry;
      if (view.getUint16(at, little) === ORIENTATION) return view.getUint16(at + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // a damaged block says nothing
  }
  return undefined;
}

function aspectOf([across, down]) {
  const aspect = across / down;
  return aspect >= 1 / MAX_PIXEL_ASPECT && aspect <= MAX_PIXEL_ASPECT ? aspect : 1;
}

/** Turns a channel (rows x columns) as its orientation says; returns the channel alone. */
export function turned(values, rows, columns, orientation) {
  const source = {
    2: (r, c) => r * columns + columns - 1 - c,
    3: (r, c) => (rows - 1 - r) * columns + columns - 1 - c,
    4: (r, c) => (rows - 1 - r) * columns + c,
    5: (r, c) => c * columns + r,
    6: (r, c) => (rows - 1 - c) * columns + r,
    7: (r, c) => (rows - 1 - c) * columns + columns - 1 - r,
    8: (r, c) => c * columns + columns - 1 - r,
  }[orientation];
  if (!source) return values;
  const [height, width] = orientation >= 5 ? [columns, rows] : [rows, columns];
  const found = new Float32Array(values.length);
  for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) found[r * width + c] = values[source(r, c)];
  return found;
}
