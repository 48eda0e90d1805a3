// Text of strangers, as nodes that show it and do nothing else.
//
// Nothing here ever becomes HTML: all of it goes through text nodes. What cannot be seen, or would
// change how the rest is seen (control characters, marks that turn the direction, invisible ones),
// is shown by its name or its number. Each text is isolated, so it turns nothing around it.

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/gu;
const LINES = /[\n\t]/;

const NAMES = ("NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI "
  + "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US").split(" ");

// The name of a character, in letters that every font has.
function named(character) {
  const number = character.codePointAt(0);
  if (number === 0x7f) return "DEL";
  return NAMES[number] ?? `U+${number.toString(16).toUpperCase().padStart(4, "0")}`;
}

// Return the nodes of a text; with `lines`, line feeds and tabs are what they are.
export function nodes(text, { lines = false } = {}) {
  const found = document.createDocumentFragment();
  let at = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (lines && LINES.test(match[0])) continue;
    if (match.index > at) found.append(text.slice(at, match.index));
    const mark = document.createElement("span");
    mark.className = "mark-char";
    mark.textContent = named(match[0]);
    found.append(mark);
    at = match.index + match[0].length;
  }
  if (at < text.length) found.append(text.slice(at));
  return found;
}

// Return the text with what cannot be seen made visible, where only text can stand.
export function plain(text) { return text.replace(UNSEEN, (one) => `\u2039${named(one)}\u203a`); }

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// An isolated piece of a stranger's text.
export function isolated(text, options) { return element("bdi", {}, nodes(text, options)); }

export function decoded(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) found[at] = text.charCodeAt(at);
  return found;
}

export function hexed(data, begin = 0) {
  const rows = [];
  for (let at = 0; at < data.length; at += 16) {
    const row = [...data.subarray(at, at + 16)];
    const digits = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(47);
    const shown = row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    rows.push(`${(begin + at).toString(16).padStart(8, "0")}  ${digits}  ${shown}`);
  }
  return rows.join("\n");
}

// numbers and times

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export function counted(number) { return WHOLE.format(number); }
export function short(number) { return number < 10000 ? WHOLE.format(Math.round(number)) : SHORT.format(number); }

export function sized(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit === 0 ? counted(bytes) : bytes.toFixed(bytes < 10 ? 1 : 0)} ${units[unit]}`;
}

export function lasted(seconds) {
  if (seconds < 0.001) return [(seconds * 1e6).toFixed(0), "µs"];
  if (seconds < 1) return [(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0), "ms"];
  if (seconds < 120) return [seconds.toFixed(seconds < 10 ? 1 : 0), "s"];
  if (seconds < 7200) return [(seconds / 60).toFixed(0), "min"];
  if (seconds < 172800) return [(seconds / 3600).toFixed(0), "h"];
  return [(seconds / 86400).toFixed(0), "days"];
}

function two(number) { return String(number).padStart(2, "0"); }

// The time here, of a time in UTC with nanoseconds.
// The zone of the clock here, such as UTC+1 or UTC-3:30.
export function zone(date = new Date()) {
  const minutes = -date.getTimezoneOffset(), size = Math.abs(minutes);
  if (minutes === 0) return "UTC";
  const rest = size % 60 ? `:${two(size % 60)}` : "";
  return `UTC${minutes > 0 ? "+" : "\u2212"}${Math.floor(size / 60)}${rest}`;
}

export function localTime(iso, precision = 3) {
  const date = new Date(`${iso.slice(0, 23)}Z`);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${iso.slice(20, 20 + precision)}`;
}

export function clock(milliseconds, withDay) {
  const date = new Date(milliseconds);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return withDay ? `${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}` : time;
}
