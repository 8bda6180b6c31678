// SPDX-License-Identifier: Apache-2.0
/** A file that can't be used; the message is one sentence with the remedy. */
export class Unusable extends Error {}

/** A file without an image in it, which a folder may hold. */
export class NotAnImage extends Unusable {}
