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
const unjudged = several => several ? "there are no prediction sets where images have several labels" : "the model is not calibrated (`hiresattn evaluate --calibrate`), or not for such searches";
const notAssessed = (count, all, several) => count ? `review not assessed${count < all ? ` in ${counted(count, "case")}` : ""}: ${unjudged(several)}` : "";
const words = value => Array.isArray(value) ? value.join(", ") || "none" : value === null || value === undefined ? "" : String(value);
const last = name => name.split(/[\\/]/).filter(Boolean).pop() || name;
const COLOURS = ["var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)"];
function bars(shares, colours) {
  return make("div", {class: "bars"}, shares.map(([name, share]) => {
    const bar = make("i"); bar.style.width = `${100 * share}%`;
    if (colours) bar.style.background = colours[name] || "var(--soft)";
    return [make("span", {}, name), make("span", {}, bar), make("span", {class: "number"}, share.toFixed(2))];
  }).flat());
}
// The probabilities after a look, the likeliest in the end first, and what all other classes have together.
function sharesAfter(one, look) {
  const kept = Object.entries(one.scores_after || {}).map(([name, values]) => [name, values[look]]);
  const rest = 1 - kept.reduce((sum, [, share]) => sum + share, 0);
  return one.labels || Object.keys(one.scores).length <= kept.length ? kept : [...kept, ["all others", Math.max(rest, 0)]];
}
// The colours of classes are the model's, of every case the same; looks have greys by depth, those that carry the answer
// its colour.
const DEPTHS = /*DEPTH COLOURS*/[];
const depthColour = depth => DEPTHS[Math.min(depth, DEPTHS.length - 1)];
const answerColour = one => one.colours[(one.labels || [])[0] || one.class_name] || "var(--accent)";
function legend(all, colour) {
  const deepest = all.reduce((most, r) => Math.max(most, r.depth), 0), depths = Array.from({length: deepest + 1}, (_, depth) => {
    const mark = make("i"); mark.style.borderColor = depthColour(depth); if (!depth) mark.style.borderStyle = "dashed";
    return make("span", {}, mark, depth === 0 ? "0 (the whole, from afar)" : all.some(r => r.depth === depth && r.close) ? `${depth} (finest)` : String(depth));
  });
  const mark = make("i"); mark.style.borderColor = colour;
  return make("div", {class: "key soft"}, "Depth of the look:", ...depths, colour ? make("span", {}, mark, "carries the answer") : "");
}
// Attention as a layer of colour: weight per px, the finer looks in place of the coarser, the root regions left clear.
function heat(pen, all, shown, place) {
  const density = r => r.weight / (r.w * r.h), most = all.reduce((most, r) => r.depth ? Math.max(most, density(r)) : most, 0);
  if (!most) return;
  for (const r of shown.filter(r => r.depth).sort((a, b) => a.depth - b.depth || density(a) - density(b))) {
    const [x, y, w, h] = place(r), share = density(r) / most, left = Math.round(x), top = Math.round(y), box = [left, top, Math.round(x + w) - left, Math.round(y + h) - top];
    pen.clearRect(...box);
    pen.fillStyle = `rgb(${Math.round(255 - 41 * share)} ${Math.round(214 - 174 * share)} ${Math.round(10 + 10 * share)} / ${.55 * Math.sqrt(share)})`;
    pen.fillRect(...box);
  }
}
// The greatest of 1, 2 and 5 times a power of ten that isn't greater; a length in µm (or px, where the scale isn't known).
function roundBelow(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map(step => step * power).find(one => one <= most) || power;
}
function lengthWords(length, mpp) {
  const [unit, name] = !mpp ? [1, "px"] : [[1e9, "km"], [1e6, "m"], [1e3, "mm"]].find(([unit]) => length >= unit) || [1, "µm"];
  return `${Number((length / unit).toPrecision(3))} ${name}`;
}
const ORIGINS = {header: "from the file's header", column: "from the manifest", flag: "given as --mpp", assumed: "assumed", given: "given", CRS: "by its CRS"};
const scaleWords = size => lengthWords(size.mpp, size.mpp) + "/px" + (size.scale ? ` (${ORIGINS[size.scale]})` : "");
