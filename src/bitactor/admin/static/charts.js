// Charts, drawn by hand as SVG. Every axis begins at zero and is labelled; nothing is smoothed.

import { el, short, svg } from "./format.js";

const LEFT = 46;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;

/** A round number at or above the value, and the steps to it. */
export function scale(most, steps = 4) {
  if (!(most > 0)) return { most: 1, step: 1 };
  const raw = most / steps;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((one) => one * power >= raw * (1 - 1e-9));
  return { most: Math.ceil(most / step - 1e-9) * step, step };
}

function frame(holder, height, described) {
  const width = Math.max(260, holder.clientWidth || 600);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described });
  return { drawing, width, right: width - RIGHT, bottom: height - BOTTOM };
}

function rule(drawing, y, right, label) {
  drawing.append(
    svg("line", { class: "grid", x1: LEFT, x2: right, y1: y, y2: y }),
    svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, label),
  );
}

/** Lines over the last `seconds`. series: [{name, points: [[seconds ago (<= 0), value]], total}]. */
export function lines(holder, series, { seconds, most = null, label = short, height = 210, described }) {
  const { drawing, right, bottom } = frame(holder, height, described);
  const highest = Math.max(0, ...series.flatMap((one) => one.points.map((point) => point[1])));
  const axis = scale(most ?? highest);
  const x = (ago) => LEFT + ((ago + seconds) / seconds) * (right - LEFT);
  const y = (value) => bottom - (value / axis.most) * (bottom - TOP);
  for (let value = 0; value <= axis.most * (1 + 1e-9); value += axis.step) rule(drawing, y(value), right, label(value));
  for (let ago = -seconds; ago <= 0; ago += seconds / 4) {
    const anchor = ago === 0 ? "end" : ago === -seconds ? "start" : "middle";
    drawing.append(svg("text", { x: x(ago), y: bottom + 16, "text-anchor": anchor }, ago === 0 ? "now" : `${ago} s`));
  }
  drawing.append(svg("line", { class: "axis", x1: LEFT, x2: right, y1: bottom, y2: bottom }));
  series.forEach((one, at) => {
    const seen = one.points.filter((point) => point[0] >= -seconds);
    if (!seen.length) return;
    const path = seen.map(([ago, value]) => `${x(ago).toFixed(1)},${y(value).toFixed(1)}`);
    if (series.length === 1) {
      const [first, last] = [x(seen[0][0]), x(seen.at(-1)[0])];
      drawing.append(svg("polygon", { class: `area f${at + 1}`, points: `${first},${bottom} ${path.join(" ")} ${last},${bottom}` }));
    }
    drawing.append(svg("polyline", { class: `line c${at + 1}`, points: path.join(" ") }));
  });
  holder.replaceChildren(...(series.length > 1 ? [legend(series)] : []), drawing);
}

function legend(series) {
  return el("p", { class: "legend" }, series.map((one, at) => el("span", {},
    svg("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" },
      svg("line", { class: `line c${at + 1}`, x1: 0, x2: 18, y1: 4, y2: 4 })),
    `${one.name} `, el("b", {}, short(one.points.at(-1)?.[1] ?? 0)))));
}

/** Bars: the share of samples in each bucket. Buckets are steps of a scale, so bars stand side by side. */
export function shares(holder, grown, { label, unit, height = 170, described }) {
  const total = grown ? grown.counts.reduce((sum, count) => sum + count, 0) : 0;
  if (!total) {
    holder.replaceChildren(el("p", { class: "empty" }, "Nothing in the last minute."));
    return;
  }
  const names = [...grown.bounds.map((bound) => `≤ ${label(bound)}`), `> ${label(grown.bounds.at(-1))}`];
  let first = grown.counts.findIndex((count) => count > 0);
  let last = grown.counts.findLastIndex((count) => count > 0);
  first = Math.max(0, first - 1);
  last = Math.min(grown.counts.length - 1, Math.max(last + 1, first + 4));
  const shown = grown.counts.slice(first, last + 1);
  const { drawing, right, bottom } = frame(holder, height, described);
  const axis = scale((100 * Math.max(...shown)) / total);
  const y = (percent) => bottom - (percent / axis.most) * (bottom - TOP);
  for (let value = 0; value <= axis.most * (1 + 1e-9); value += axis.step) {
    rule(drawing, y(value), right, `${Number(value.toPrecision(3))}%`);
  }
  const slot = (right - LEFT) / shown.length;
  const every = Math.ceil(58 / slot);
  shown.forEach((count, at) => {
    const left = LEFT + at * slot;
    const top = y((100 * count) / total);
    const bar = svg("rect", { class: "bar", x: left + slot * 0.12, width: slot * 0.76, y: top, height: bottom - top });
    bar.append(svg("title", {}, `${names[first + at]} ${unit}: ${((100 * count) / total).toFixed(1)}% (${count} of ${total})`));
    drawing.append(bar);
    if (at % every === 0) {
      drawing.append(svg("text", { x: left + slot / 2, y: bottom + 16, "text-anchor": "middle" }, names[first + at]));
    }
  });
  drawing.append(svg("line", { class: "axis", x1: LEFT, x2: right, y1: bottom, y2: bottom }));
  holder.replaceChildren(el("p", { class: "legend" },
    ["p50", 0.5, "p99", 0.99].reduce((parts, _, at, all) => at % 2 ? parts : [...parts,
      el("span", {}, `${all[at]} `, el("b", {}, names[quantile(grown.counts, all[at + 1])]))], []),
    el("span", {}, "samples ", el("b", {}, short(total)))), drawing);
}

/** The bucket in which the quantile lies. */
export function quantile(counts, share) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let left = Math.max(1, share * total);
  for (let at = 0; at < counts.length; at += 1) {
    left -= counts[at];
    if (left <= 0) return at;
  }
  return counts.length - 1;
}
