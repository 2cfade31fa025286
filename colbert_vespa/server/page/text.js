// Texts and numbers as they are shown. The server counts characters (code points); JavaScript counts UTF-16 units.

/** Slices of a text by code points. */
export class CodePoints {
  constructor(text) {
    this.text = text;
    this.starts = null; // of each code point, in units; none where both counts are the same
    if (/[\ud800-\udbff]/.test(text)) {
      this.starts = [];
      for (let unit = 0; unit < text.length; unit += text.codePointAt(unit) > 0xffff ? 2 : 1) this.starts.push(unit);
      this.starts.push(text.length);
    }
    this.length = this.starts ? this.starts.length - 1 : text.length;
  }

  slice(start, end = this.length) {
    const at = (place) => (this.starts ? this.starts[Math.min(Math.max(place, 0), this.length)] : place);
    return this.text.slice(at(start), at(end));
  }
}

export const codePointLength = (text) => new CodePoints(text).length;

/** At most `most` characters, with an ellipsis for the rest. */
export function cut(text, most) {
  if (text.length <= most) return text;
  return `${new CodePoints(text.slice(0, 2 * most + 2)).slice(0, most)}…`;
}

/** Beginning and end of an id: both tell ids apart. */
export function cutMiddle(text, most) {
  if (text.length <= most) return text;
  const half = Math.floor(most / 2);
  return `${cut(text, half)}${text.slice(-half).replace(/^[\udc00-\udfff]/, "")}`;
}

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export const count = (number) => whole.format(number);

export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = number;
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit && value < 100 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

/** A score with as many digits as tell its neighbours apart: fused ones are small. */
export function score(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return Math.abs(value) < 0.1 ? value.toFixed(4) : value.toFixed(2);
}

export function similarity(value) {
  return value === null || !Number.isFinite(value) ? "–" : value.toFixed(3);
}

export function shownValue(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.slice(0, 20).map(shownValue).join(", ") + (value.length > 20 ? ", …" : "");
  if (typeof value === "object") return Object.entries(value).map(([key, one]) => `${key} ${shownValue(one)}`).join(", ");
  return String(value);
}

/** Seconds or milliseconds since 1970, or ISO 8601, as a local time. */
export function moment(value) {
  const date = new Date(typeof value === "number" ? (value < 1e11 ? value * 1000 : value) : value);
  if (Number.isNaN(date.getTime())) return String(value);
  return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function ago(value) {
  const date = new Date(typeof value === "number" ? (value < 1e11 ? value * 1000 : value) : value);
  const seconds = (Date.now() - date.getTime()) / 1000;
  if (!Number.isFinite(seconds)) return "";
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return relative.format(-Math.round(seconds / size), unit);
  }
  return "just now";
}
