// SPDX-License-Identifier: Apache-2.0
// What the page carries besides scripts: networks and WebAssembly, each packed by gzip in base64.

/** The bytes of an asset of the page. */
export async function unpacked(name) {
  const text = atob(document.getElementById(`asset-${name}`).textContent.trim());
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The description of the model. */
export const recipe = JSON.parse(document.getElementById("recipe").textContent);
