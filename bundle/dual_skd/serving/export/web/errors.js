// SPDX-License-Identifier: Apache-2.0
/** A file that can't be used; the message is one sentence with the remedy. */
export class Unusable extends Error {}

const MAX_PIXELS = 2 ** 26; // a page has no memory for more

/** Refuses an image without pixels, or with more than a page can hold. */
export function requireSize(rows, columns) {
  if (!(rows * columns > 0)) throw new Unusable(`has no pixels: its header says ${columns} x ${rows}; copy the file again`);
  if (rows * columns > MAX_PIXELS) {
    throw new Unusable(`has ${columns} x ${rows} pixels, more than this page reads; use dual-skd predict, or make it smaller`);
  }
}

/** A file without an image in it, which a folder may hold. */
export class NotAnImage extends Unusable {}
