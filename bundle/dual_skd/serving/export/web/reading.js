// SPDX-License-Identifier: Apache-2.0
// From a file to what the network takes, or to the sentence why it can't be used.

import { recipe } from "./assets.js";
import { openedDicom, readFrame } from "./dicom.js";
import { NotAnImage, Unusable } from "./errors.js";
import { judged } from "./expectation.js";
import { hiddenKind, readPicture } from "./pictures.js";
import { prepared } from "./preprocessing.js";

const MAX_BYTES = 2 ** 30;
const [PICTURES, OTHERS] = [/\.(png|jpe?g)$/i, /\.(bmp|tiff?|nii|nii\.gz|npy|npz)$/i];
const REMEDY = "give images like those of training, or take it all the same";

/** The images of a file: [{image: name, prepared, remarks} or {image, problem}]. */
export async function imagesOf(file, accept) {
  const name = file.webkitRelativePath || file.name;
  try {
    const found = [];
    for (const { suffix, picture } of await picturesOf(file)) {
      found.push({ image: name + suffix, ...preparedOrProblem(name + suffix, picture, accept) });
    }
    return found;
  } catch (error) {
    return [{ image: name, problem: sentence(name, error), noImage: error instanceof NotAnImage }];
  }
}

function preparedOrProblem(name, picture, accept) {
  const options = recipe.preprocessing;
  const { refusals, remarks } = judged(options.expected, options.window, picture);
  if (refusals.length && !accept) {
    return { problem: `${name} isn't what was trained on: ${refusals.join("; ")}; ${REMEDY}.`, unexpected: true };
  }
  try {
    const found = { prepared: prepared(options.steps, picture), remarks: [...refusals, ...remarks] };
    return { ...found, unexpected: refusals.length > 0 };
  } catch (error) {
    return { problem: sentence(name, error) };
  }
}

async function picturesOf(file) {
  if (file.size > MAX_BYTES) throw new Unusable("is larger than 1 GiB; cut it into parts");
  if (OTHERS.test(file.name)) throw new Unusable("isn't read by this page, which takes PNG, JPEG and DICOM; save it as PNG");
  const bytes = await bytesOf(file);
  if (PICTURES.test(file.name)) return [{ suffix: "", picture: await readPicture(bytes) }];
  const hidden = hiddenKind(bytes);
  if (hidden) throw new Unusable(`holds a ${hidden} image, and its name doesn't say so; let its name end with .${hidden.toLowerCase()}`);
  const { frame, window } = recipe.preprocessing;
  const dicom = openedDicom(bytes, frame);
  const found = [];
  for (const number of dicom.numbers) {
    const suffix = frame === "all" && dicom.header.frames > 1 ? `#frame=${number}` : "";
    found.push({ suffix, picture: await readFrame(dicom, number, window === "file") });
  }
  return found;
}

async function bytesOf(file) {
  let bytes;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Unusable('can\'t be opened: it is a folder, for which there is "Choose a folder", or it was moved; choose it again');
  }
  if (!bytes.length) throw new Unusable("is empty (0 bytes); copy the file again");
  return bytes;
}

function sentence(name, error) {
  if (error instanceof Unusable) return `${name} ${error.message}.`;
  return `${name} can't be read, it is damaged or not what its name says (${error.message ?? error}); copy the file again.`;
}
