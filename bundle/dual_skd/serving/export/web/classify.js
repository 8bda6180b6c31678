// SPDX-License-Identifier: Apache-2.0
// The functions of the page without its elements; the export's check calls them, too.

import { recipe } from "./assets.js";
import { loaded, logitsOf } from "./network.js";
import { answerOf, csvOf, probabilities } from "./prediction.js";
import { imagesOf } from "./reading.js";

/** Answers for the images of a file: [{image, prepared, remarks, logits, answer} or {image, problem}]. */
export async function classified(file, { accept = false } = {}) {
  const found = await imagesOf(file, accept);
  for (const [place, one] of found.entries()) {
    if (one.problem) continue;
    try {
      await answer(one);
    } catch (error) {
      found[place] = { image: one.image, problem: `${one.image} can't be classified (${error.message ?? error}); open the page anew.` };
    }
  }
  return found;
}

async function answer(one) {
  one.logits = await logitsOf(one.prepared.values);
  const multiLabel = recipe.activation === "sigmoid";
  const temperatures = [recipe.temperature, recipe.auxiliary?.temperature];
  const p = one.logits.map((logits, network) => probabilities(logits, temperatures[network], multiLabel));
  one.answer = answerOf(recipe, ...p);
}

globalThis.dualSkd = {
  classified, csvOf: (results) => csvOf(recipe, results), loaded, logitsOf, use: (other) => Object.assign(recipe, other),
};
