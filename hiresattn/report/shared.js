// What the pages have in common: elements, and numbers in words. No page makes an element of a text.
const $ = id => document.getElementById(id);
function make(tag, values, ...children) {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(values || {})) {
    if (name.startsWith("on")) one.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) one.setAttribute(name, value === true ? "" : value);
  }
  one.append(...children.flat().filter(child => child !== null && child !== undefined && child !== ""));
  return one;
}
function svg(tag, values, text) {
  const one = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) one.setAttribute(name, value);
  if (text !== undefined) one.textContent = text;
  return one;
}
const percent = share => typeof share !== "number" ? "–" : share ? `${Number((100 * share).toPrecision(2))} %` : "0 %";
const counted = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;
// Cases that nobody judged: the model says neither that they need a review nor that they don't.
const UNCALIBRATED = "the model is not calibrated (`hiresattn evaluate --calibrate`)";
const notAssessed = (count, all) => count ? `review not assessed${count < all ? ` in ${counted(count, "case")}` : ""}: ${UNCALIBRATED}` : "";
const words = value => Array.isArray(value) ? value.join(", ") || "none" : value === null || value === undefined ? "" : String(value);
const last = name => name.split(/[\\/]/).filter(Boolean).pop() || name;
const COLOURS = ["var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)"];
function bars(shares, colours) {
  return make("div", {class: "bars"}, shares.map(([name, share], at) => {
    const bar = make("i"); bar.style.width = `${100 * share}%`;
    if (colours) bar.style.background = colours[at] || "var(--soft)";
    return [make("span", {}, name), make("span", {}, bar), make("span", {class: "number"}, share.toFixed(2))];
  }).flat());
}
// The probabilities after a look, the likeliest in the end first, and what all other classes have together.
function sharesAfter(one, look) {
  const kept = Object.entries(one.scores_after || {}).map(([name, values]) => [name, values[look]]);
  const rest = 1 - kept.reduce((sum, [, share]) => sum + share, 0);
  return one.labels || Object.keys(one.scores).length <= kept.length ? kept : [...kept, ["all others", Math.max(rest, 0)]];
}
