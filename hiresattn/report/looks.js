// Where a case was looked at: overviews with outlines, a replay, the probabilities on the way, and the looks themselves.
// What was switched on stays so from case to case. `step` goes to another look of the case that is open.
const kept = {few: false, every: false, heat: false, shade: false};
let step = () => {}, masks = 0;

// The probabilities look by look: a line a class, in its colour, and a mark at the look that is shown.
function course(one, all, choose) {
  const width = 300, height = 150, left = 26, right = 8, top = 8, bottom = 36, total = all.at(-1).id + 1;
  const across = id => left + id / Math.max(total - 1, 1) * (width - left - right), up = share => height - bottom - share * (height - top - bottom);
  const plot = svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "course", id: "course", role: "img", "aria-label": `Probabilities after each of ${total} looks: ${Object.keys(one.scores_after).join(", ")}`});
  for (const share of [0, .5, 1]) plot.append(svg("line", {class: "grid", x1: left, x2: width - right, y1: up(share), y2: up(share)}), svg("text", {x: left - 5, y: up(share) + 4, "text-anchor": "end"}, String(share)));
  plot.append(svg("text", {x: left, y: height - 20}, "1"), svg("text", {x: width - right, y: height - 20, "text-anchor": "end"}, String(total)), svg("text", {x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle"}, "looks so far"));
  for (const [name, values] of Object.entries(one.scores_after)) plot.append(svg("path", {d: `M${values.map((share, at) => `${across(all[at].id).toFixed(1)} ${up(share).toFixed(1)}`).join("L")}`, stroke: one.colours[name], "stroke-width": 2}));
  const mark = svg("line", {y1: top, y2: height - bottom, stroke: "var(--text)", "stroke-width": 1.5, "stroke-dasharray": "3 3"});
  plot.append(mark);
  plot.addEventListener("click", event => {
    const box = plot.getBoundingClientRect(), id = ((event.clientX - box.left) / box.width * width - left) / (width - left - right) * (total - 1);
    choose(all.reduce((best, r) => Math.abs(r.id - id) < Math.abs(best.id - id) ? r : best));
  });
  return {plot, move: r => { mark.setAttribute("x1", across(r.id)); mark.setAttribute("x2", across(r.id)); }};
}
function scaleBar(size, width) {
  const micron = size.mpp || 1, length = roundBelow(.25 * width * micron);
  const bar = make("div", {class: "scale"}, make("i"), lengthWords(length, size.mpp));
  bar.style.width = `${length / micron / width * 100}%`;
  return bar;
}
function extent(size, w, h) {
  if (!size.mpp) return `; ${w} × ${h} px`;
  return `; ${lengthWords(w * size.mpp, size.mpp)} × ${lengthWords(h * size.mpp, size.mpp)} at ${scaleWords(size)}`;
}
function looks(one) {
  const decisive = new Set(one.evidence), all = one.regions.map((r, at) => ({at, id: r[0], parent: r[1], depth: r[2], y: r[3], x: r[4], h: r[5], w: r[6], weight: r[7], source: r[8], close: r[9]}));
  const deepest = all.reduce((most, r) => Math.max(most, r.depth), 0), colour = answerColour(one);
  const finest = all.some(r => r.close) ? r => !!r.close : r => r.depth === deepest;
  const slider = make("input", {type: "range", min: 1, max: all.length, value: all.length, id: "order", "aria-label": "Looks so far", oninput: () => pick(all[slider.value - 1])});
  const told = make("span", {class: "soft", "aria-live": "polite"}), crop = make("img", {id: "crop", class: "crop", alt: ""}), about = make("figcaption"), strip = make("div", {class: "strip"});
  const choice = (name, text) => make("label", {}, make("input", {type: "checkbox", id: name, checked: kept[name], onchange: event => { kept[name] = event.target.checked; draw(); }}), ` ${text}`);
  const drawn = [], shades = [], layers = [];
  let picked = null;

  function view(picture) {
    const size = one.sources[picture.source] || {}, note = picture.note ? `: no picture (${picture.note})` : "";
    if (!picture.frame) return make("figure", {}, make("figcaption", {}, picture.name + note));
    const [y, x, h, w] = picture.frame, own = all.filter(r => r.source === picture.source), name = `m${masks++}`, whole = {x, y, width: w, height: h};
    const lines = svg("svg", {viewBox: `${x} ${y} ${w} ${h}`, preserveAspectRatio: "none", role: "img", "aria-label": "Regions looked at"});
    const mask = svg("mask", {id: name}), dark = svg("rect", {...whole, fill: "#000", opacity: .6, mask: `url(#${name})`, "pointer-events": "none"});
    mask.append(picture.unseen ? svg("image", {...whole, href: picture.unseen, preserveAspectRatio: "none"}) : svg("rect", {...whole, fill: "#fff"}));
    lines.append(mask, dark); shades.push(dark);
    for (const r of [...own].sort((a, b) => a.depth - b.depth || decisive.has(a.id) - decisive.has(b.id))) {
      const at = {x: r.x, y: r.y, width: r.w, height: r.h}, dash = r.depth ? "none" : "6 4";
      const edge = svg("rect", {...at, class: "edge"}), line = svg("rect", {...at, class: "r", stroke: decisive.has(r.id) ? colour : depthColour(r.depth), "stroke-dasharray": dash});
      line.append(svg("title", {}, `look ${r.id}, depth ${r.depth}, weight ${percent(r.weight)}`)); line.addEventListener("click", () => pick(r));
      lines.append(edge, line);
      const hole = r.close && !picture.unseen ? svg("rect", {...at, fill: "#000"}) : null;
      if (hole) mask.append(hole);
      drawn.push({r, edge, line, hole});
    }
    const layer = make("canvas", {width: Math.round(768 * Math.min(1, w / h)), height: Math.round(768 * Math.min(1, h / w))});
    layers.push({own, layer, left: x, top: y, zoom: layer.width / w});
    const shown = make("div", {class: "view"}, picture.image ? make("img", {src: picture.image, alt: `Overview of ${picture.name}`}) : "", layer, lines, scaleBar(size, w));
    shown.style.aspectRatio = `${w} / ${h}`; shown.style.maxWidth = `min(100%, ${Math.round(62 * w / h)}vh)`;
    return make("figure", {}, shown, make("figcaption", {}, picture.name + note + extent(size, w, h)));
  }
  function pick(r) {
    const picture = one.pictures.find(p => p.source === r.source), whole = one.crops[r.id];
    picked = r;
    if (r.at >= slider.value) slider.value = r.at + 1;
    const place = `Look ${r.id} (the first is 0)${r.parent === null ? "" : `, chosen from look ${r.parent}`}: depth ${r.depth}, ${percent(r.weight)} of the weight${decisive.has(r.id) ? ", carries the answer" : ""}; ${r.w} × ${r.h} px at row ${r.y}, column ${r.x}. `;
    about.textContent = place + (whole ? "" : picture && picture.image ? "From the overview." : "No picture.");
    crop.onload = () => { if (whole) about.textContent = place + (crop.naturalWidth < r.w ? `Reduced to ${crop.naturalWidth} px.` : "At native resolution."); };
    if (whole) crop.src = whole; else if (picture && picture.image) cut(picture, r); else crop.removeAttribute("src");
    crop.alt = `look ${r.id}`; crop.style.display = whole || picture && picture.image ? "" : "none";
    draw();
  }
  function cut(picture, r) {
    const image = new Image();
    image.onload = () => {
      const [y, x, , w] = picture.frame, canvas = make("canvas", {width: 192, height: 192}), scale = image.width / w;
      canvas.getContext("2d").drawImage(image, (r.x - x) * scale, (r.y - y) * scale, r.w * scale, r.h * scale, 0, 0, 192, 192);
      if (picked === r) crop.src = canvas.toDataURL();
    };
    image.src = picture.image;
  }
  const followed = Object.keys(one.scores_after || {}), shares = make("div"), after = make("h3", {"aria-live": "polite"});
  const chart = followed.length && all.length > 1 ? course(one, all, r => { slider.value = r.at + 1; pick(r); }) : null;
  const leftOut = one.cost.glimpses > all.length ? `; of ${counted(one.cost.glimpses, "look")} this page has the ${all.length} of most weight, and those that they were chosen from` : "";
  function draw() {
    const count = Number(slider.value), few = kept.few && decisive.size;
    told.textContent = `${count} of ${counted(all.length, "look")}${leftOut}`;
    if (followed.length) {
      after.textContent = count === all.length ? "Probabilities" : `Probabilities after ${counted(all[count - 1].id + 1, "look")}`;
      shares.replaceChildren(bars(sharesAfter(one, count - 1), one.colours));
    }
    if (chart) chart.move(all[count - 1]);
    for (const {r, edge, line, hole} of drawn) {
      const there = r.at < count && (few ? decisive.has(r.id) : kept.every || finest(r) || decisive.has(r.id) || r === picked);
      const width = r === picked ? 5 : decisive.has(r.id) ? 3 : r.depth ? 1.5 : 1;
      for (const [one, wide] of [[edge, width + 2], [line, width]]) { one.style.display = there ? "" : "none"; one.setAttribute("stroke-width", wide); }
      if (hole) hole.style.display = r.at < count ? "" : "none";
    }
    for (const dark of shades) dark.style.display = kept.shade && known ? "" : "none";
    for (const {own, layer, left, top, zoom} of layers) {
      const pen = layer.getContext("2d");
      pen.clearRect(0, 0, layer.width, layer.height);
      if (kept.heat) heat(pen, own, own.filter(r => r.at < count), r => [(r.x - left) * zoom, (r.y - top) * zoom, r.w * zoom, r.h * zoom]);
    }
    for (const button of strip.children) button.setAttribute("aria-pressed", String(Number(button.dataset.look) === picked.id));
  }
  const known = all.every(r => r.close !== null), best = all.filter(r => one.crops[r.id]).sort((a, b) => decisive.has(b.id) - decisive.has(a.id) || b.weight - a.weight);
  strip.append(...best.map(r => make("button", {type: "button", "data-look": r.id, onclick: () => pick(r)}, make("img", {src: one.crops[r.id], alt: `look ${r.id}`}), `${percent(r.weight)}${decisive.has(r.id) ? " ★" : ""}`)));
  const views = one.pictures.map(view);
  pick(best[0] || all.reduce((most, r) => r.weight > most.weight ? r : most));
  step = by => { const next = all[picked.at + by]; if (next) pick(next); };
  const looked = all.some(r => r.close) ? "" : " (nothing was)";
  const block = make("div", {class: "look"}, make("div", {}, ...views, legend(all, decisive.size ? colour : null),
    make("div", {class: "controls"}, make("label", {}, "Replay in the order of looking ", slider), told,
      make("div", {class: "tools"}, decisive.size ? choice("few", "only what carries the answer") : "", choice("every", "outlines of all depths"), choice("heat", "attention"), known ? choice("shade", `shade what was not looked at closely${looked}`) : ""))),
    make("div", {}, followed.length ? [after, shares, chart && chart.plot] : [], make("figure", {style: "margin-top: 14px"}, crop, about)));
  const most = best.length ? [make("h3", {}, `Looks of most weight${decisive.size ? " (★ carry the answer)" : ""}`), strip] : [];
  return [make("h3", {}, "Where it looked"), block, ...most];
}
