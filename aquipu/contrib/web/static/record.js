// One record, all of it: its fields, and its data as JSON folded out, as text, or as bytes.

import { Refused, bytes, get } from "./api.js";
import { folded, parsed } from "./folded.js";
import { counted, decoded, element, hexed, isolated, localTime, nodes, sized, zone } from "./text.js";

const FIRST_BYTES = 65536, MORE_BYTES = 65536; // of the data that are shown
const JSON_BYTES_MAX = 1048576;

const dialog = document.getElementById("detail");
const body = document.getElementById("body");
const more = document.getElementById("more-data");
let record = null, data = new Uint8Array(), view = "text", left = () => {};

export function whenLeft(call) { left = call; }

export async function open(sequence) {
  try {
    record = await get(`api/records/${sequence}`, { bytes: FIRST_BYTES });
  } catch (error) {
    fail(sequence, error);
    return;
  }
  data = record.encoding === "base64" ? decoded(record.data) : new TextEncoder().encode(record.data);
  view = record.encoding === "base64" ? "bytes" : "text";
  if (/^\s*[[{]/.test(record.data) && record.encoding === "utf-8" && record.bytes <= JSON_BYTES_MAX) {
    if (record.cut) await whole();
    if (jsonOf() !== undefined) view = "json";
  }
  fields();
  draw();
  if (!dialog.open) dialog.showModal();
}

function fail(sequence, error) {
  record = { sequence: Number(sequence), bytes: 0 };
  data = new Uint8Array();
  heading();
  document.getElementById("fields").replaceChildren();
  document.getElementById("views").replaceChildren();
  body.replaceChildren(element("p", {}, error instanceof Refused ? error.message : "The service cannot be reached."));
  more.hidden = true;
  document.getElementById("shown-bytes").textContent = "";
  if (!dialog.open) dialog.showModal();
}

function heading() {
  document.getElementById("detail-title").textContent = `Record ${counted(record.sequence)}`;
}

function fields() {
  heading();
  const labels = record.relations.map((label) => element("span", { class: "chip" }, isolated(label)));
  const rows = [
    [`Time (${zone(new Date(record.time))})`, [localTime(record.time, 9)]],
    ["ISO 8601", [record.time]],
    ["Labels", labels.length ? labels : ["none"]],
    ["Size", [`${sized(record.bytes)}${record.bytes >= 1024 ? ` (${counted(record.bytes)} bytes)` : ""}`]],
  ];
  document.getElementById("fields").replaceChildren(...rows.flatMap(([name, shown]) => [
    element("dt", {}, name), element("dd", {}, ...shown)]));
}

function textOf() { return new TextDecoder("utf-8", { fatal: false }).decode(data, { stream: data.length < record.bytes }); }

function jsonOf() {
  try { return parsed(new TextDecoder("utf-8", { fatal: true }).decode(data)); } catch { return undefined; }
}

function draw() {
  const isWhole = data.length >= record.bytes;
  const value = isWhole && record.bytes <= JSON_BYTES_MAX ? jsonOf() : undefined;
  const views = [["text", "Text"], ["bytes", "Bytes"]];
  if (value !== undefined && value !== null && typeof value === "object") views.unshift(["json", "JSON"]);
  else if (view === "json") view = "text";
  document.getElementById("views").replaceChildren(...views.map(([name, shown]) => element("button", {
    type: "button", "aria-pressed": String(name === view), onclick: () => { view = name; draw(); },
  }, shown)));
  if (view === "json") body.replaceChildren(folded(value));
  else if (view === "bytes") body.replaceChildren(element("pre", { class: "hex" }, hexed(data)));
  else body.replaceChildren(element("pre", {}, nodes(textOf(), { lines: true })));
  more.hidden = isWhole;
  document.getElementById("shown-bytes").textContent =
    isWhole ? "" : `The first ${sized(data.length)} of ${sized(record.bytes)}`;
}

async function next(size) {
  const end = Math.min(data.length + size, record.bytes);
  const piece = await bytes(`api/records/${record.sequence}/data`, data.length, end);
  const joined = new Uint8Array(data.length + piece.length);
  joined.set(data);
  joined.set(piece, data.length);
  data = joined;
}

async function whole() { while (data.length < record.bytes) await next(record.bytes - data.length); }

more.addEventListener("click", async () => {
  more.disabled = true;
  try { await next(MORE_BYTES); draw(); } catch (error) { fail(record.sequence, error); } finally { more.disabled = false; }
});

document.getElementById("download").addEventListener("click", async () => {
  const all = await bytes(`api/records/${record.sequence}/data`);
  const url = URL.createObjectURL(new Blob([all], { type: "application/octet-stream" }));
  const link = element("a", { href: url, download: `record-${record.sequence}.bin` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});
document.getElementById("close").addEventListener("click", () => dialog.close());
document.getElementById("newer-one").addEventListener("click", () => open(record.sequence + 1));
document.getElementById("older-one").addEventListener("click", () => { if (record.sequence > 0) open(record.sequence - 1); });
dialog.addEventListener("close", () => { body.replaceChildren(); data = new Uint8Array(); left(); });
