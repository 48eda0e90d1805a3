// JSON folded out: a part is made when it is opened, so depth and size cost nothing before that.

import { element, nodes } from "./text.js";

const PARTS = 100; // of a list or an object, that are shown at once
const OPEN_DEPTH = 3, OPEN_PARTS = 24;

class Digits { // of a number that JavaScript would round
  constructor(text) { this.text = text; }
}

// Return the value of a JSON text, with its numbers as they were written; throws for what is none.
export function parsed(text) {
  try {
    return JSON.parse(text, (key, value, context) => (
      typeof value === "number" && context?.source !== undefined && String(value) !== context.source
        ? new Digits(context.source) : value));
  } catch (error) {
    if (error instanceof RangeError) return JSON.parse(text); // too deep to look at each number
    throw error;
  }
}

export function folded(value) { return part(null, value, 0); }

function part(key, value, depth) {
  if (value === null || typeof value !== "object" || value instanceof Digits) {
    return element("div", { class: "leaf" }, ...name(key), leaf(value));
  }
  const isList = Array.isArray(value);
  const entries = isList ? value.map((one, index) => [index, one]) : Object.entries(value);
  const size = isList ? `[${entries.length}]` : `{${entries.length}}`;
  const made = element("details");
  made.append(element("summary", {}, ...name(key), element("span", { class: "count" }, size)));
  let shown = 0;
  const more = () => {
    const until = Math.min(shown + PARTS, entries.length);
    for (; shown < until; shown += 1) made.append(part(...entries[shown], depth + 1));
    if (shown < entries.length) {
      const next = element("button", { type: "button", class: "quiet" }, `${entries.length - shown} more`);
      next.addEventListener("click", () => { next.remove(); more(); });
      made.append(next);
    }
  };
  made.addEventListener("toggle", () => { if (made.open && shown === 0) more(); });
  if (depth < OPEN_DEPTH && entries.length <= OPEN_PARTS) { more(); made.open = true; }
  return made;
}

function name(key) {
  if (key === null) return [];
  return [element("span", { class: "key" }, element("bdi", {}, nodes(String(key)))), ": "];
}

function leaf(value) {
  if (typeof value === "string") return element("span", { class: "value-text" }, "\"", element("bdi", {}, nodes(value)), "\"");
  if (value instanceof Digits) return element("span", { class: "value-number" }, value.text);
  const kind = typeof value === "number" ? "value-number" : "value-other";
  return element("span", { class: kind }, String(value));
}
