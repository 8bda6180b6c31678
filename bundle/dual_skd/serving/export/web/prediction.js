// SPDX-License-Identifier: Apache-2.0
// From logits to an answer and its row of a table (metrics/probabilities.py, metrics/uncertainty.py).

const ROUNDING = 1e-6; // as in Python: a set never loses a class to the rounding of a table

/** Probabilities of logits that the temperature divides. */
export function probabilities(logits, temperature, multiLabel) {
  const scaled = Array.from(logits, (value) => value / temperature);
  if (multiLabel) return scaled.map((value) => 1 / (1 + Math.exp(-value)));
  const most = Math.max(...scaled);
  const odds = scaled.map((value) => Math.exp(value - most));
  const sum = odds.reduce((total, value) => total + value, 0);
  return odds.map((value) => value / sum);
}

/** The answer by probabilities of the student, and of the auxiliary where there is one. */
export function answerOf(recipe, p, auxiliary) {
  const multiLabel = recipe.activation === "sigmoid";
  const likeliest = p.indexOf(Math.max(...p));
  const chosen = p.map((value, k) => (multiLabel ? value > 0.5 : k === likeliest));
  const sets = recipe.prediction_sets;
  const inside = sets && p.map((value, k) => k === likeliest || 1 - value <= (sets.threshold ?? Infinity) + ROUNDING);
  const named = (flags) => recipe.class_names.filter((_, k) => flags[k]);
  return {
    label: named(chosen).join("|"), probabilities: p, chosen, inside,
    set: inside && named(inside), uncertainty: entropyShare(p, multiLabel),
    disagreement: auxiliary && disagreement(p, auxiliary, multiLabel),
  };
}

const yesAndNo = (value) => [value, 1 - value];
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function entropy(p) {
  return -p.reduce((sum, value) => sum + (value > 0 ? value * Math.log(value) : 0), 0);
}

function entropyShare(p, multiLabel) {
  if (multiLabel) return mean(p.map((value) => entropy(yesAndNo(value)))) / Math.log(2);
  return p.length > 1 ? entropy(p) / Math.log(p.length) : 0;
}

/** Jensen-Shannon divergence in bits. */
function disagreement(one, other, multiLabel) {
  if (multiLabel) return mean(one.map((value, k) => disagreement(yesAndNo(value), yesAndNo(other[k]), false)));
  const middle = one.map((value, k) => (value + other[k]) / 2);
  return Math.max(entropy(middle) - (entropy(one) + entropy(other)) / 2, 0) / Math.log(2);
}

/** The columns of `dual-skd predict --csv`. */
export function columnsOf(recipe) {
  const names = recipe.class_names.map((name) => `p_${name}`);
  const extra = ["uncertainty", ...(recipe.auxiliary ? ["disagreement"] : []), ...(recipe.prediction_sets ? ["prediction_set"] : [])];
  return ["image", "predicted", ...names, ...extra, "problem"];
}

/** A table of {image, answer or problem} in CSV. */
export function csvOf(recipe, results) {
  const columns = columnsOf(recipe);
  const rows = results.map(({ image, answer, problem }) => {
    if (problem) return { image, problem };
    const row = { image, predicted: answer.label, uncertainty: answer.uncertainty.toFixed(6) };
    recipe.class_names.forEach((name, k) => (row[`p_${name}`] = general(answer.probabilities[k])));
    if (recipe.auxiliary) row.disagreement = answer.disagreement.toFixed(6);
    if (answer.set) row.prediction_set = answer.set.join("|");
    return row;
  });
  const lines = [columns, ...rows.map((row) => columns.map((name) => row[name] ?? ""))];
  return lines.map((cells) => `${cells.map((cell) => quoted(escaped(cell))).join(",")}\r\n`).join("");
}

/** A number as Python's format ".9g" writes it. */
export function general(value) {
  const [digits, exponent] = value.toExponential(8).split("e");
  const shortened = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (value === 0) return "0";
  if (exponent >= -4 && exponent < 9) return shortened(value.toFixed(8 - exponent));
  const size = String(Math.abs(exponent)).padStart(2, "0");
  return `${shortened(digits)}e${exponent < 0 ? "-" : "+"}${size}`;
}

// what a spreadsheet would take for a formula gets an apostrophe, as in utils/csv_text.py
const FORMULA = /(?<![^;\t\r\n])("*)('*)(?=[=+\-@\t\r＝＋－＠])/g;
const HARMLESS = /^(?:[=+\-@]|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)$/;
const escaped = (cell) => (HARMLESS.test(cell) ? cell : cell.replace(FORMULA, "$1'$2"));
const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
