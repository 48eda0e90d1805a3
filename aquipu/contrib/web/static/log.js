// The log: searched, paged, and live. The newest records come first.
//
// What is searched for stands behind the # of the address, so that it can be kept and sent on. A
// list that shows the newest records is live: what comes is put on top. The list begins where the
// page of the API ended, and the stream where the list began, so there is no gap between them.

import { Refused, get } from "./api.js";
import { bars } from "./chart.js";
import { offerLabels } from "./labels.js";
import { open, whenLeft } from "./record.js";
import { clock, counted, decoded, element, isolated, localTime, nodes, plain, short, zone } from "./text.js";

const PAGE = 50, ROWS_MAX = 300, DATA_BYTES = 400;
const BARS = 60, BARS_PAUSE = 2000; // milliseconds between two looks at the bars
const STEPS = [1, 5, 15, 60, 300, 900, 3600, 10800, 86400, 604800]; // seconds of a bar

const at = (id) => document.getElementById(id);
const rows = at("rows"), tail = at("tail"), status = at("status"), older = at("older");
const span = at("span"), since = at("since"), until = at("until");

let wish = { labels: [], span: "", since: "", until: "", before: null };
let next = null, waiting = [], changed = () => {}, number = 0, barsShown = null, newest = null;

// what is searched for, and the address

function read() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const labels = hash.getAll("label").filter(Boolean);
  const before = /^\d{1,19}$/.test(hash.get("before") ?? "") ? hash.get("before") : null;
  return { labels, span: hash.get("span") ?? "", since: hash.get("since") ?? "", until: hash.get("until") ?? "", before };
}

function go(changes) {
  wish = { ...wish, before: null, ...changes };
  const hash = new URLSearchParams();
  for (const label of wish.labels) hash.append("label", label);
  for (const name of ["span", "since", "until", "before"]) if (wish[name]) hash.set(name, wish[name]);
  const text = String(hash);
  history.pushState(null, "", text ? `#${text}` : location.pathname);
  search();
}

function asked() {
  const found = { relation: wish.labels, before: wish.before };
  if (wish.span && wish.span !== "between") found.since = new Date(Date.now() - wish.span * 1000).toISOString();
  if (wish.span === "between") {
    if (wish.since) found.since = new Date(wish.since).toISOString();
    if (wish.until) found.until = new Date(wish.until).toISOString();
  }
  return found;
}

function isLive() { return !wish.before && !(wish.span === "between" && wish.until); }

function isSearch() { return Boolean(wish.labels.length || wish.span || wish.before); }

function show() {
  span.value = [...span.options].some((one) => one.value === wish.span) ? wish.span : "";
  since.value = wish.since; until.value = wish.until;
  at("between").hidden = wish.span !== "between";
  at("clear").hidden = !isSearch();
  at("chips").replaceChildren(...wish.labels.map((label) => element("li", {}, element("button", {
    type: "button", "aria-label": `Search without ${plain(label)}`,
    onclick: () => go({ labels: wish.labels.filter((one) => one !== label) }),
  }, isolated(label)))));
  tail.disabled = !isLive();
}

// the list

async function search() {
  const mine = ++number;
  show();
  changed(null); // whoever listens stops until the list is there
  status.textContent = "Searching …";
  waiting = [];
  at("new").hidden = true;
  try {
    const found = await get("api/records", { ...asked(), limit: PAGE, bytes: DATA_BYTES });
    if (mine !== number) return;
    next = found.next;
    newest = found.next_sequence;
    rows.replaceChildren(...found.records.map((record) => row(record)));
    say();
    changed(isLive() ? { labels: wish.labels, last: found.next_sequence } : { labels: [], last: null });
  } catch (error) {
    if (mine !== number) return;
    rows.replaceChildren();
    next = null;
    status.textContent = error instanceof Refused ? `Not found: ${error.message}` : "The service cannot be reached.";
    changed({ labels: [], last: null });
  }
  older.hidden = next === null;
  drawBars();
}

function say() {
  const shown = rows.querySelectorAll("tr[data-sequence]").length;
  const records = `${counted(shown)} ${shown === 1 ? "record" : "records"}`;
  if (shown > 0 && isLive()) { // more will come: no number that would soon be wrong
    const fit = isSearch() ? " that fit" : "";
    status.textContent = next === null ? `All records${fit}, the newest first.` : `The newest records${fit}; there are more.`;
    return;
  }
  status.textContent = shown === 0 ? (isSearch() ? "No record fits." : "No record yet.") :
    next === null ? `${records}, all there are, the newest first.` : `The newest ${records}; there are more.`;
}

async function showOlder() {
  const mine = number;
  older.disabled = true;
  try {
    const found = await get("api/records", { ...asked(), before: next, limit: PAGE, bytes: DATA_BYTES });
    if (mine !== number) return;
    next = found.next;
    const first = found.records[0];
    rows.append(...found.records.map((record) => row(record)));
    say();
    if (first) rows.querySelector(`[data-sequence="${first.sequence}"] a`)?.focus({ preventScroll: true });
  } catch (error) {
    status.textContent = error instanceof Refused ? error.message : "The service cannot be reached.";
  } finally {
    older.disabled = false;
    older.hidden = next === null;
  }
}

function row(record, fresh = false) {
  const labels = record.relations.map((label) => element("button", {
    type: "button", class: "chip", title: plain(label),
    onclick: (event) => { event.stopPropagation(); if (!wish.labels.includes(label)) go({ labels: [...wish.labels, label] }); },
  }, isolated(label)));
  const made = element("tr", { role: "row", class: fresh ? "fresh" : "" },
    element("td", { role: "cell", class: "time" }, ...timeOf(record)),
    element("td", { role: "cell", class: "seq" }, element("a", { href: `#record=${record.sequence}` }, counted(record.sequence))),
    element("td", { role: "cell" }, element("div", { class: "labels" }, ...labels)),
    element("td", { role: "cell", class: "data" }, ...summary(record)));
  made.dataset.sequence = record.sequence;
  made.addEventListener("click", (event) => {
    if (event.target.closest("button") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (String(getSelection())) return;
    show.from = made;
    open(record.sequence);
  });
  return made;
}

function timeOf(record) {
  const [day, time] = localTime(record.time).split(" ");
  return [element("span", { class: "day" }, day), ` ${time}`];
}

function summary(record) {
  if (record.bytes === 0) return [element("span", { class: "cut" }, "empty")];
  let text = record.data;
  const shown = [];
  if (record.encoding === "base64") {
    text = new TextDecoder("utf-8", { fatal: false }).decode(decoded(record.data));
    shown.push(element("span", { class: "cut" }, "bytes "));
  }
  shown.push(isolated(text));
  if (record.cut) shown.push(element("span", { class: "cut" }, ` … ${short(record.bytes)} bytes`));
  return shown;
}

function passed(count, before) {
  const made = element("tr", { role: "row", class: "passed" });
  const said = count === null ? "more records were passed over" : `${counted(count)} passed over`;
  made.append(element("td", { role: "cell", colSpan: 4 }, `${said} `,
    element("button", { type: "button", class: "quiet", onclick: () => go({ before: String(before) }) }, "Look at them")));
  return made;
}

// what comes

export function heard(moment) {
  if (moment.records.length === 0 && moment.passed === 0) return;
  newest = moment.next_sequence;
  if (!isLive()) return;
  if (!tail.checked) {
    waiting.unshift(moment);
    waiting.length = Math.min(waiting.length, 50);
    const count = waiting.reduce((sum, one) => sum + one.records.length + (one.passed ?? 0), 0);
    at("show-new").textContent = `Show ${counted(count)} new ${count === 1 ? "record" : "records"}`;
    at("new").hidden = count === 0;
    return;
  }
  put(moment);
}

function put(moment) {
  const made = moment.records.map((record) => row(record, true));
  if (moment.passed !== 0 && moment.records.length) {
    made.push(passed(moment.passed, moment.records.at(-1).sequence));
  }
  rows.prepend(...made);
  while (rows.children.length > ROWS_MAX) {
    rows.lastElementChild.remove();
    const last = rows.querySelector("tr[data-sequence]:last-of-type") ?? rows.lastElementChild;
    if (last?.dataset.sequence) { next = Number(last.dataset.sequence); older.hidden = false; }
  }
}

export function lost() { search(); }

// the bars

function barSpan() {
  if (wish.span && wish.span !== "between") return [Number(wish.span), null];
  if (wish.span === "between" && (wish.since || wish.until)) {
    const end = wish.until ? new Date(wish.until) : new Date();
    const begin = wish.since ? new Date(wish.since) : new Date(end - 86400000);
    return [Math.max((end - begin) / 1000, 1), wish.until ? end : null];
  }
  return [3600, null];
}

async function drawBars() {
  const mine = number;
  const [seconds, end] = barSpan();
  const step = STEPS.find((one) => one * BARS >= seconds) ?? STEPS.at(-1);
  const count = Math.max(Math.min(Math.ceil(seconds / step), BARS), 1);
  try {
    const found = await get("api/rate", { step, count, until: end?.toISOString() });
    if (mine !== number) return;
    const from = Date.parse(found.since);
    const sum = found.counts.reduce((one, other) => one + other, 0);
    const text = JSON.stringify([found.since, found.counts, at("history-chart").clientWidth]);
    if (text === barsShown) return;
    barsShown = text;
    const written = (value) => short(value), withDay = seconds > 86400 / 2;
    bars(at("history-chart"), found.counts, {
      from, step, written, clock: (time) => clock(time, withDay),
      chosen: (index) => go({ span: "between", since: local(from + index * step * 1000), until: local(from + (index + 1) * step * 1000) }),
    });
    const name = wish.span === "between" ? "Records in this time" : `Records, ${wish.span ? span.selectedOptions[0].textContent : "last hour"}`;
    at("history-title").textContent = wish.labels.length ? `${name}, whatever their labels` : name;
    at("history-sum").textContent = `${counted(sum)} in all`;
    at("history-chart").setAttribute("aria-label", `${name}: ${counted(sum)}, at most ${counted(Math.max(...found.counts))} in ${step} seconds`);
  } catch { /* the list says what is wrong */ }
}

function local(milliseconds) {
  const date = new Date(milliseconds);
  return new Date(milliseconds - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

// who does what

export function begin(listen) {
  changed = listen;
  at("zone").textContent = `(${zone()})`;
  at("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = at("label").value;
    at("label").value = "";
    const labels = label && !wish.labels.includes(label) ? [...wish.labels, label] : wish.labels;
    go({ labels, span: span.value, since: since.value, until: until.value });
  });
  span.addEventListener("change", () => {
    at("between").hidden = span.value !== "between";
    if (span.value === "between") since.focus(); else go({ span: span.value, since: "", until: "" });
  });
  at("clear").addEventListener("click", () => { go({ labels: [], span: "", since: "", until: "" }); at("label").focus(); });
  older.addEventListener("click", showOlder);
  const release = () => {
    at("new").hidden = true;
    for (const moment of waiting.reverse()) put(moment);
    waiting = [];
  };
  at("show-new").addEventListener("click", () => { release(); tail.focus(); });
  tail.addEventListener("change", () => { if (tail.checked) release(); });
  offerLabels(at("label"), at("offers"), (label) => {
    go({ labels: wish.labels.includes(label) ? wish.labels : [...wish.labels, label] });
  });
  whenLeft(() => {
    if (new URLSearchParams(location.hash.slice(1)).has("record")) history.replaceState(null, "", location.pathname);
    show.from?.querySelector("a")?.focus();
  });
  addEventListener("popstate", arrive);
  addEventListener("resize", () => { barsShown = null; drawBars(); });
  setInterval(() => { if (!document.hidden && isLive()) drawBars(); }, BARS_PAUSE);
  arrive();
}

function arrive() {
  const record = new URLSearchParams(location.hash.slice(1)).get("record");
  if (record !== null && /^\d{1,19}$/.test(record)) open(record);
  if (location.hash === "#log") return;
  wish = read();
  search();
}
