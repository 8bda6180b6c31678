// SPDX-License-Identifier: Apache-2.0
// Baseline and progressive JPEG by libjpeg-turbo, the library that Pillow has: pixels are equal to the last bit.

import { Unusable, requireSize } from "./errors.js";
import { jpegSegments } from "./orientation.js";
import { unpacked } from "./assets.js";

const FRAME_MARKERS = [0xc0, 0xc1, 0xc2]; // Huffman-coded baseline, extended and progressive
const RGB_IDS = "82,71,66";
let library;

/** What a JPEG image declares, with all segments before its pixels. */
export function jpegHeader(bytes) {
  const segments = [...jpegSegments(bytes)];
  const start = segments.find(({ marker }) => marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker));
  if (!start || start.data.length < 6) throw new Unusable("holds no whole JPEG image; copy the file again");
  if (!FRAME_MARKERS.includes(start.marker) || start.data[0] !== 8) {
    throw new Unusable("is a lossless, arithmetic or 12-bit JPEG, which this page doesn't read; export it uncompressed");
  }
  const { data } = start;
  const layers = Array.from({ length: data[5] }, (_, k) => [...data.subarray(6 + 3 * k, 8 + 3 * k)]);
  return { rows: data[1] * 256 + data[2], columns: data[3] * 256 + data[4], layers, segments };
}

/** Whether libjpeg and PhotometricInterpretation can only mean the same colours, see `decode_jpeg` in Python. */
export function hasPlainColours({ layers, segments }, photometric) {
  const ids = String(layers.map(([id]) => id));
  const marked = segments.some(({ marker }) => marker === 0xee) || segments[0]?.marker === 0xe0;
  const subsampled = new Set(layers.map(([, sampling]) => sampling)).size > 1;
  return marked || subsampled || ids === "1,2,3" || ids === RGB_IDS || photometric.startsWith("YBR");
}

/** Decodes to {rows, columns, channels: 1 or 3, data: interleaved bytes}. */
export async function decodeJpeg(bytes, header) {
  if (![1, 3].includes(header.layers.length)) {
    throw new Unusable("is a JPEG in CMYK, which this page doesn't read; save it in RGB or grey");
  }
  requireSize(header.rows, header.columns);
  library ??= await globalThis.libjpegturbowasm_decode({ wasmBinary: await unpacked("jpeg") });
  const decoder = new library.JPEGDecoder();
  try {
    decoder.getEncodedBuffer(bytes.length).set(bytes);
    decoder.decode();
    const { width, height, componentCount } = decoder.getFrameInfo();
    const data = decoder.getDecodedBuffer().slice(); // the library's memory moves
    return { rows: height, columns: width, channels: componentCount, data };
  } catch {
    throw new Unusable("holds a damaged or cut JPEG image; copy the file again");
  } finally {
    decoder.delete();
  }
}
