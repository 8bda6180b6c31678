// SPDX-License-Identifier: Apache-2.0
// What is seen: files in, a picture with its answer, a table of all, a CSV.

import { recipe } from "./assets.js";
import { classified } from "./classify.js";
import { loaded } from "./network.js";
import { columnsOf, csvOf } from "./prediction.js";
import { extremes } from "./preprocessing.js";

const find = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
let entries = []; // {file, image, answer, remarks, shown} or {file, image, problem, unexpected}
let queue = Promise.resolve();
let emptied = 0; // how many times the table was

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function say(text) {
  find("status").textContent = text;
}

/** Classifies files one after the other; those that aren't images are passed over in a folder. */
function take(files, { folder = false, accept = false } = {}) {
  const [chosen, since] = [[...files], emptied];
  queue = queue.then(async () => {
    let [passed, first] = [0, null];
    for (const [place, file] of chosen.entries()) {
      if (since === emptied) say(`Reading ${place + 1} of ${chosen.length} …`);
      const found = await classified(file, { accept });
      if (since !== emptied) return; // what was chosen before isn't wanted any more
      for (const one of found) {
        if (folder && one.noImage) {
          passed++;
          continue;
        }
        const entry = add(one, file);
        first ??= entry;
      }
      await new Promise((next) => setTimeout(next)); // so that the page can be drawn
    }
    if (first) show(first);
    say(summary(chosen.length, passed));
  });
}

function summary(count, passed) {
  const unusable = entries.filter(({ problem }) => problem).length;
  const words = [`${count} ${count === 1 ? "file" : "files"} read.`];
  if (passed) words.push(`${passed} without an image were passed over.`);
  if (unusable) words.push(`${unusable} of the images in the table could not be used.`);
  return words.join(" ");
}

function add({ prepared, logits, ...one }, file) {
  const entry = { ...one, file, shown: prepared && pictureOf(prepared) };
  const former = entries.findIndex((other) => other.file === file && other.image === entry.image); // classified anew
  if (former >= 0) entries[former] = entry;
  else entries.push(entry);
  listed();
  return entry;
}

/** The network's input as grey bytes: values from -1 to 1, or from the least to the largest where they are scores. */
function pictureOf({ rows, columns, values }) {
  const scores = recipe.preprocessing.steps.some(({ step }) => step === "zscore");
  const [low, high] = scores ? extremes(values) : [-1, 1];
  const data = new Uint8ClampedArray(4 * values.length).fill(255);
  values.forEach((value, place) => data.fill((255 * (value - low)) / (high - low || 1), 4 * place, 4 * place + 3));
  return new ImageData(data, columns, rows);
}

// ---------------------------------------------------------------------------------------------------------- one image

function show(entry) {
  find("result").hidden = false;
  find("name").textContent = entry.image;
  const canvas = find("picture");
  canvas.parentElement.hidden = !entry.shown;
  if (entry.shown) {
    [canvas.width, canvas.height] = [entry.shown.width, entry.shown.height];
    canvas.getContext("2d").putImageData(entry.shown, 0, 0);
  }
  find("answer").replaceChildren(...(entry.problem ? problemOf(entry) : answerOf(entry)));
  for (const button of document.querySelectorAll("#rows button")) {
    button.setAttribute("aria-current", String(entries[button.value] === entry));
  }
}

function problemOf(entry) {
  const heading = entry.unexpected ? "Not what this model has learned from" : "This file can't be used";
  const found = [element("h3", { textContent: heading, className: "alarm" }), element("p", { textContent: entry.problem })];
  if (entry.unexpected) {
    const button = element("button", { type: "button", textContent: "Classify it all the same" });
    button.addEventListener("click", () => take([entry.file], { accept: true }));
    found.push(button);
  }
  return found;
}

function answerOf({ answer, remarks, unexpected }) {
  const warning = `Not ${unexpected ? "" : "quite "}what this model has learned from: `;
  const found = remarks.length
    ? [element("p", { className: "warning" }, element("b", { textContent: warning }), `${remarks.join("; ")}.`)]
    : [];
  found.push(element("h3", { textContent: answer.label || "No class above 50 %" }), bars(answer), facts(answer));
  return found;
}

function bars({ probabilities, chosen }) {
  const order = probabilities.map((_, k) => k).sort((one, other) => probabilities[other] - probabilities[one]);
  return element("ul", { className: "bars" }, ...order.map((k) => {
    const bar = element("span", { className: "bar" }, element("span", { className: chosen[k] ? "fill chosen" : "fill" }));
    bar.firstChild.style.width = `${100 * probabilities[k]}%`;
    bar.setAttribute("aria-hidden", "true");
    const name = element("span", { textContent: recipe.class_names[k] });
    return element("li", {}, name, element("span", { className: "value", textContent: percent(probabilities[k]) }), bar);
  }));
}

function facts({ set, uncertainty, disagreement }) {
  const rows = [["Uncertainty", uncertainty.toFixed(3), "0: sure, 1: all classes equally probable"]];
  if (disagreement !== undefined) {
    rows.push(["Disagreement", disagreement.toFixed(3), "0: both networks say the same, 1: they exclude each other"]);
  }
  if (set) {
    const missed = percent(recipe.prediction_sets.alpha).replace(".0", "");
    const all = recipe.prediction_sets.threshold === null ? "; too few validation images: every class is in it" : "";
    rows.push(["Can't be ruled out", set.join(", "), `such sets lack the true class of at most ${missed} of images like the validation images${all}`]);
  }
  return element("dl", {}, ...rows.flatMap(([name, value, words]) => [
    element("dt", { textContent: name }),
    element("dd", {}, element("b", { textContent: value }), element("small", { textContent: words })),
  ]));
}

// ----------------------------------------------------------------------------------------------------------- all images

const SHOWN = columnsOf(recipe).filter((name) => !name.startsWith("p_"));

function listed() {
  find("all").hidden = false;
  const place = entries.length - 1;
  if (find("rows").children.length < entries.length) find("rows").append(rowOf(entries[place], place));
  else find("rows").replaceChildren(...entries.map(rowOf));
}

function rowOf(entry, place) {
  const button = element("button", { type: "button", className: "link", value: place, textContent: entry.image });
  button.addEventListener("click", () => {
    show(entry);
    find("result").scrollIntoView({ block: "nearest" });
    find("name").focus();
  });
  const { answer } = entry;
  const cells = {
    predicted: answer ? `${answer.label || "none"} (${percent(Math.max(...answer.probabilities))})` : "no answer",
    uncertainty: answer?.uncertainty.toFixed(3), disagreement: answer?.disagreement?.toFixed(3),
    prediction_set: answer?.set?.join(", "), problem: entry.problem,
  };
  return element("tr", {}, element("th", { scope: "row" }, button), ...SHOWN.slice(1).map((name) =>
    element("td", { textContent: cells[name] ?? "", className: name === "problem" ? "words" : "" }),
  ));
}

function save() {
  const address = URL.createObjectURL(new Blob([csvOf(recipe, entries)], { type: "text/csv" }));
  element("a", { href: address, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

function clear() {
  emptied++;
  entries = [];
  find("rows").replaceChildren();
  for (const id of ["all", "result"]) find(id).hidden = true;
  say("The table is empty.");
  find("files").focus();
}

// -------------------------------------------------------------------------------------------------------------- events

for (const [id, folder] of [["files", false], ["folder", true]]) {
  find(id).addEventListener("change", (event) => {
    take(event.target.files, { folder });
    event.target.value = ""; // the same file can be chosen again
  });
}
find("save").addEventListener("click", save);
find("clear").addEventListener("click", clear);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
document.addEventListener("dragleave", () => find("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
find("head").replaceChildren(...SHOWN.map((name) => element("th", { scope: "col", textContent: name.replace("_", " ") })));

loaded().then(
  () => say("Ready."),
  (error) => say(`This browser can't run the network (${error.message}). Use Chrome, Edge, Firefox or Safari of 2023 or newer.`),
);
