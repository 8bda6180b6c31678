// SPDX-License-Identifier: Apache-2.0
// The student, and the auxiliary where the model has one, in ONNX Runtime Web with one thread.

import * as ort from "onnxruntime-web";
import { recipe, unpacked } from "./assets.js";

let networks;

/** Loads the networks once. */
export function loaded() {
  networks ??= load();
  return networks;
}

async function load() {
  ort.env.wasm.numThreads = 1; // several would need headers of a server
  ort.env.wasm.wasmBinary = (await unpacked("onnxruntime")).buffer;
  const found = [];
  for (const name of ["model", ...(recipe.auxiliary ? ["auxiliary"] : [])]) {
    found.push(await ort.InferenceSession.create(await unpacked(name), { executionProviders: ["wasm"] }));
  }
  return found;
}

/** Logits of each network, for values (N, 1, H, W) in one array. */
export async function logitsOf(values) {
  const [, ...shape] = recipe.input.shape;
  const count = values.length / shape.reduce((product, one) => product * one, 1);
  const feeds = { [recipe.input.name]: new ort.Tensor("float32", values, [count, ...shape]) };
  const found = [];
  for (const session of await loaded()) found.push((await session.run(feeds))[recipe.output.name].data);
  return found;
}
