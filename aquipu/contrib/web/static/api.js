// The API of the store: questions, and the stream that comes back by itself.
//
// The token is kept for this tab alone (sessionStorage), and sent in a header: never in an address,
// never as a cookie. A link may bring it behind the #, which no server sees; it is taken from there
// at once, so that it stays in no history.

const KEY = "aquipu token";
const BASE = new URL("./", document.baseURI);
const PAUSE_LEAST = 250, PAUSE_MOST = 5000; // milliseconds until a lost stream is asked for again

let ask = async () => null; // asks the user for the token
let asking = null;

export function whoAsksForTheToken(dialog) { ask = dialog; }

export function takeTokenFromAddress() {
  const hash = new URLSearchParams(location.hash.slice(1));
  if (!hash.has("token")) return;
  store(hash.get("token"));
  hash.delete("token");
  history.replaceState(null, "", `${location.pathname}#${hash}`);
}

function store(token) {
  try { sessionStorage.setItem(KEY, token); } catch { kept = token; }
}
let kept = null;
function token() {
  try { return sessionStorage.getItem(KEY); } catch { return kept; }
}

async function login(wrong) {
  asking ??= ask(wrong).then((given) => { store(given); }).finally(() => { asking = null; });
  await asking;
}

async function request(path, options = {}) {
  for (;;) {
    const used = token();
    const headers = { ...options.headers };
    if (used) headers.Authorization = `Bearer ${used}`;
    const response = await fetch(new URL(path, BASE), {
      ...options, headers, cache: "no-store", credentials: "omit", redirect: "error",
    });
    if (response.status !== 401) return response;
    await response.body?.cancel();
    if (used === token()) await login(Boolean(used));
  }
}

// Open what the API answers as text: a link could not send the token.
export async function openText(path) {
  const text = await (await checked(await request(path))).text();
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  window.open(url, "_blank", "noopener");
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

export function hasToken() { return Boolean(token()); }

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function checked(response) {
  if (response.ok) return response;
  let message = `the service has answered ${response.status}`;
  try { message = (await response.json()).error ?? message; } catch { /* no JSON: that is all */ }
  throw new Refused(response.status, message);
}

export async function get(path, parameters = {}, options = {}) {
  return (await checked(await request(address(path, parameters), options))).json();
}

export async function bytes(path, begin, end) {
  const headers = begin === undefined ? {} : { Range: `bytes=${begin}-${end - 1}` };
  return new Uint8Array(await (await checked(await request(path, { headers }))).arrayBuffer());
}

export function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") query.append(name, one);
    }
  }
  const text = String(query);
  return text ? `${path}?${text}` : path;
}

// Follow a stream until `signal` ends it. A connection that is lost is asked for again, with the id
// of the last event, so nothing is left out and nothing comes twice.
export async function follow(path, parameters, { last, signal, heard, state }) {
  let pause = PAUSE_LEAST;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream" };
      if (last !== undefined && last !== null) headers["Last-Event-ID"] = String(last);
      const response = await checked(await request(address(path, parameters), { headers, signal }));
      state("good");
      for await (const event of eventsOf(response.body)) {
        pause = PAUSE_LEAST;
        if (event.id !== null) last = event.id;
        if (event.data !== null) heard(event.name, JSON.parse(event.data));
        if (signal.aborted) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) { state("bad", error.message); return; }
    }
    state("wait");
    await new Promise((resume) => {
      const timer = setTimeout(resume, pause);
      signal.addEventListener("abort", () => { clearTimeout(timer); resume(); }, { once: true });
    });
    pause = Math.min(pause * 2, PAUSE_MOST);
  }
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) yield eventOf(block);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function eventOf(block) {
  const event = { name: "message", id: null, data: null };
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at < 1) continue;
    const value = line.slice(at + 2);
    const name = line.slice(0, at);
    if (name === "event") event.name = value;
    if (name === "id") event.id = value;
    if (name === "data") event.data = value;
  }
  return event;
}
