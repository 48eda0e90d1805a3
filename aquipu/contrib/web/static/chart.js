// Charts, drawn by hand: lines over the last minutes, and bars over any time.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 44, RIGHT = 4, TOP = 6, BOTTOM = 16;

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The next round number, of which half is round, too.
export function rounded(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

function place(svg) {
  const box = svg.getBoundingClientRect();
  const width = Math.max(box.width, 120), height = Math.max(box.height, 50);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return { width, height, right: width - RIGHT, bottom: height - BOTTOM };
}

function axes(parts, { right, bottom }, top, written) {
  for (const share of [1, 0.5]) {
    const y = Math.round(bottom - share * (bottom - TOP)) + 0.5;
    parts.push(shape("line", { class: "grid", x1: LEFT, x2: right, y1: y, y2: y }));
    parts.push(shape("text", { x: LEFT - 6, y: y + 3.5, "text-anchor": "end" }, written(top * share)));
  }
  parts.push(shape("line", { class: "base", x1: LEFT, x2: right, y1: bottom + 0.5, y2: bottom + 0.5 }));
}

// Draw series of values, one each moment; null is a gap. `seconds` is the width in time.
export function lines(svg, series, { seconds, now, written, least = 0 }) {
  const area = place(svg);
  const { right, bottom } = area;
  let most = least;
  for (const { points } of series) for (const { value } of points) if (value > most) most = value;
  const top = rounded(most);
  const parts = [];
  axes(parts, area, top, written);
  const x = (at) => (right - ((now - at) / seconds) * (right - LEFT)).toFixed(1);
  const y = (value) => (bottom - (value / top) * (bottom - TOP)).toFixed(1);
  for (const { points, name, filled } of series) {
    let path = "", fill = "", begun = null, last = null;
    const end = () => { if (filled && begun !== null) fill += `L${x(last)} ${bottom}L${x(begun)} ${bottom}Z`; begun = null; };
    for (const { at, value } of points) {
      if (now - at > seconds) continue;
      if (value === null) { end(); continue; }
      const step = `${begun === null ? "M" : "L"}${x(at)} ${y(value)}`;
      path += step; fill += step;
      begun ??= at; last = at;
    }
    end();
    if (filled && fill) parts.push(shape("path", { class: "area", d: fill }));
    if (path) parts.push(shape("path", { class: `line ${name}`, d: path }));
  }
  const unit = seconds > 60 ? 60 : 20;
  const every = right - LEFT < (seconds / unit) * 64 ? 2 * unit : unit; // so that they stand apart
  for (let ago = Math.floor(seconds / every) * every; ago >= 0; ago -= every) {
    const anchor = ago === 0 ? "end" : ago === seconds ? "start" : "middle";
    const said = ago === 0 ? "now" : unit === 60 ? `−${ago / 60} min` : `−${ago} s`;
    parts.push(shape("text", { x: Number(x(now - ago)), y: bottom + 12, "text-anchor": anchor }, said));
  }
  svg.replaceChildren(...parts);
}

// Draw counts as bars; `chosen` hears which one was clicked.
export function bars(svg, counts, { from, step, written, clock, chosen }) {
  const area = place(svg);
  const { right, bottom } = area;
  const top = rounded(Math.max(...counts, 1));
  const parts = [];
  axes(parts, area, top, written);
  const wide = (right - LEFT) / counts.length;
  counts.forEach((count, number) => {
    const x = LEFT + number * wide;
    const hit = shape("rect", { class: "hit", x: x.toFixed(1), y: TOP, width: wide.toFixed(1), height: bottom - TOP });
    hit.append(shape("title", {}, `${clock(from + number * step * 1000)}: ${written(count)}`));
    hit.addEventListener("click", () => chosen(number));
    parts.push(hit);
    if (count > 0) {
      const height = Math.max((count / top) * (bottom - TOP), 1.5);
      parts.push(shape("rect", {
        class: "bar", "pointer-events": "none", rx: 1,
        x: (x + wide * 0.12).toFixed(1), width: (wide * 0.76).toFixed(1),
        y: (bottom - height).toFixed(1), height: height.toFixed(1),
      }));
    }
  });
  const shown = Math.max(Math.min(6, Math.floor((right - LEFT) / 90)), 2);
  for (let tick = 0; tick <= shown; tick += 1) {
    const share = tick / shown;
    const anchor = tick === 0 ? "start" : tick === shown ? "end" : "middle";
    const at = from + share * counts.length * step * 1000;
    parts.push(shape("text", { x: LEFT + share * (right - LEFT), y: bottom + 12, "text-anchor": anchor }, clock(at)));
  }
  svg.replaceChildren(...parts);
}
