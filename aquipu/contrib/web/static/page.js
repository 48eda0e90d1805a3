// The page: what the store is, where it stands, who reads it; and the one stream that feeds it all.

import { Refused, follow, get, hasToken, openText, takeTokenFromAddress, whoAsksForTheToken } from "./api.js";
import { lines } from "./chart.js";
import * as log from "./log.js";
import { counted, element, isolated, lasted, plain, short, sized } from "./text.js";

const SECONDS = 300; // of the charts
const SPANS = [60, 120, SECONDS]; // of one that knows nothing of before: as wide as what it has seen
const CHART_PAUSE = 1000, SPOKEN_PAUSE = 10000; // milliseconds
const HEALTH = { ok: ["good", "well"], degraded: ["warn", "look"], failed: ["bad", "failed"], closed: ["bad", "closed"] };

const at = (id) => document.getElementById(id);
const moments = []; // {at, next, latencies}
let before = []; // what the log itself says of the time before: {at, value}
let drawn = 0, spoken = 0, ending = null;

// the token

whoAsksForTheToken((wrong) => new Promise((given) => {
  const dialog = at("login"), form = at("login-form"), field = at("token");
  at("login-wrong").hidden = !wrong;
  at("login-wrong").textContent = wrong ? "That was not the token." : "";
  form.onsubmit = () => { const token = field.value; field.value = ""; given(token); };
  dialog.oncancel = (event) => event.preventDefault();
  if (!dialog.open) dialog.showModal();
}));

document.querySelector("footer").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || !hasToken()) return;
  event.preventDefault();
  openText(link.getAttribute("href")).catch((error) => notice(error.message));
});

// where it stands

function figure(id, parts, title = "") {
  const place = at(id);
  place.classList.toggle("none", parts === null);
  if (parts === null) { place.textContent = "not known here"; place.title = title; return; }
  const [value, unit] = Array.isArray(parts) ? parts : [parts, ""];
  place.title = title;
  if (unit) place.replaceChildren(value, " ", element("small", {}, unit)); else place.textContent = value;
}

function rateNow() {
  const last = moments.at(-1);
  const first = moments.findLast((one) => last.at - one.at >= 1.9) ?? moments[0];
  return last === first ? null : Math.max((last.next - first.next) / (last.at - first.at), 0);
}

function showFigures(moment) {
  const rate = rateNow();
  figure("rate", rate === null ? "–" : short(rate));
  const kept = moment.next_sequence - moment.first_sequence;
  figure("kept", kept < 1e7 ? counted(kept) : short(kept), `${counted(moment.first_sequence)} to ${counted(moment.next_sequence - 1)}`);
  const statistics = moment.statistics;
  const unsynced = moment.synced_sequence === null ? null : moment.next_sequence - moment.synced_sequence;
  figure("unsynced", unsynced === null ? null : [counted(unsynced), unsynced === 1 ? "record" : "records"]);
  figure("buffered", statistics === null ? null : [counted(statistics.buffered_records), "records"]);
  const free = statistics?.free_bytes ?? null;
  figure("free", free === null ? null : sized(free).split(" "));
  const p99 = moments.findLast((one) => one.latencies?.append_seconds_p99 != null);
  figure("append99", statistics === null ? null : p99 ? lasted(p99.latencies.append_seconds_p99) : "–");
}

function showStages(moment) {
  const { first_sequence: first, next_sequence: next, synced_sequence: synced, statistics } = moment;
  const accepted = statistics === null ? null : next + statistics.buffered_records;
  const most = accepted ?? next;
  const behind = most - (synced ?? next);
  const window = Math.min(2 ** Math.max(Math.ceil(Math.log2(behind + 1)) + 1, 6), Math.max(most - first, 1));
  at("stages-range").textContent = window === 1 ? "the last record" : `the last ${counted(window)} records`;
  const stage = (name, sequence, said) => {
    const made = element("li", {}, element("span", { class: "name" }, name));
    if (sequence === null) made.append(element("span", { class: "name" }, "not known here"), "");
    else {
      const share = Math.max(1 - (most - sequence) / window, 0);
      const meter = element("meter", { min: "0", max: "1", "aria-label": name });
      meter.value = share;
      made.append(meter, element("span", {}, said));
    }
    return made;
  };
  at("stages").replaceChildren(
    stage("Accepted", accepted, accepted === null ? "" : counted(accepted)),
    stage("Acknowledged", next, counted(next)),
    stage("On the disk", synced, synced === null ? "" : counted(synced)));
}

function showCharts(moment) {
  const now = moment.at;
  if (now * 1000 - drawn < CHART_PAUSE && drawn) return;
  drawn = now * 1000;
  const rates = [];
  for (let index = 1; index < moments.length; index += 1) {
    const one = moments[index], last = moments[index - 1];
    const seconds = one.at - last.at;
    rates.push({ at: one.at, value: seconds > 5 ? null : Math.max((one.next - last.next) / seconds, 0) });
  }
  const smooth = rates.map((one, index) => {
    const around = rates.slice(Math.max(index - 3, 0), index + 1).filter(({ value }) => value !== null);
    return one.value === null || !around.length ? one : { at: one.at, value: around.reduce((sum, { value }) => sum + value, 0) / around.length };
  });
  const begun = moments[0].at;
  const earlier = before.filter((one) => one.at < begun);
  lines(at("rate-chart"), [{ points: [...earlier, ...smooth.slice(earlier.length ? 4 : 0)], name: "rate", filled: true }], { seconds: SECONDS, now, written: short, least: 10 });
  at("latency").hidden = moment.statistics === null;
  if (moment.statistics !== null) {
    const series = (name) => moments.map((one) => ({ at: one.at, value: one.latencies?.[name] ?? null }));
    lines(at("latency-chart"), [
      { points: series("append_seconds_p50"), name: "p50", filled: true },
      { points: series("append_seconds_p99"), name: "p99" },
    ], { seconds: SPANS.find((span) => now - begun <= span) ?? SECONDS, now, written: (value) => lasted(value).join(" "), least: 0.001 });
  }
  if (now * 1000 - spoken > SPOKEN_PAUSE) {
    spoken = now * 1000;
    const rate = rateNow();
    if (rate !== null) at("rate-chart").setAttribute("aria-label", `Appends per second, now ${short(rate)}`);
    const p99 = moment.latencies?.append_seconds_p99;
    if (p99 != null) at("latency-chart").setAttribute("aria-label", `Append latency, 99 % now ${lasted(p99).join(" ")}`);
  }
}

function showHealth(health) {
  const place = at("health");
  place.hidden = health === null;
  if (health === null) return;
  const [state, said] = HEALTH[health.state] ?? ["warn", health.state];
  place.dataset.state = state;
  place.textContent = said;
  notice(health.reasons.length && state !== "good" ? health.reasons.join(" · ") : "");
}

function notice(text) {
  const place = at("notice"), shown = plain(text);
  if (place.textContent !== shown) place.textContent = shown;
  place.hidden = !text;
}

function showConsumers(consumers) {
  const names = Object.keys(consumers ?? {});
  at("consumers").hidden = names.length === 0;
  at("no-consumers").hidden = names.length !== 0;
  at("no-consumers").textContent = consumers === null ? "How far consumers are cannot be read just now." : "No consumer keeps its place here.";
  at("consumer-rows").replaceChildren(...names.map((name) => {
    const { sequence, records, seconds } = consumers[name];
    return element("tr", {},
      element("td", {}, isolated(name)),
      element("td", { class: "number" }, counted(sequence)),
      element("td", { class: "number" }, counted(records)),
      element("td", { class: "number" }, records === 0 ? "–" : lasted(seconds).join(" ")));
  }));
}

function showState(state, said) {
  const place = at("link");
  const text = { good: "live", wait: "reconnecting", bad: "refused" }[state];
  place.dataset.state = state === "wait" ? "warn" : state;
  if (place.textContent !== text) place.textContent = text;
  if (said) notice(said);
}

// the stream

function heard(name, moment) {
  if (name === "lost") { moments.length = 0; log.lost(); return; }
  if (name === "end") { notice(moment.error); return; }
  moments.push({ at: moment.at, next: moment.next_sequence, latencies: moment.latencies });
  while (moments.length && moment.at - moments[0].at > SECONDS + 5) moments.shift();
  showHealth(moment.health);
  showFigures(moment);
  showStages(moment);
  showCharts(moment);
  showConsumers(moment.consumers);
  log.heard(moment);
}

function listen(wanted) {
  ending?.abort();
  ending = null;
  if (wanted === null) return;
  ending = new AbortController();
  follow("api/live", { relation: wanted.labels }, { last: wanted.last, signal: ending.signal, heard, state: showState });
}

async function lookBack() {
  const step = 5;
  const { since, counts } = await get("api/rate", { step, count: SECONDS / step });
  const begin = Date.parse(since) / 1000;
  before = counts.slice(0, -1).map((count, index) => ({ at: begin + (index + 0.5) * step, value: count / step }));
}

async function start() {
  takeTokenFromAddress();
  try {
    const known = await get("api/status");
    at("login").close?.();
    const path = at("path");
    path.replaceChildren(isolated(known.store));
    document.title = `${plain(known.store).split("/").pop()} – aquipu`;
    at("unknown").hidden = known.unknown.length === 0;
    at("unknown").replaceChildren(...known.unknown.map((text) => element("li", {}, text)));
    at("latency").hidden = known.statistics === null;
    showConsumers(known.consumers);
  } catch (error) {
    showState("bad", error instanceof Refused ? error.message : "The service cannot be reached.");
    if (error instanceof Refused && error.status < 500) return;
  }
  log.begin(listen);
  lookBack().catch(() => {}); // the chart begins now, then
}

start();
