// What an index holds, how it is stored and how it is doing.

import { announce, button, el, foreign, replace } from "./dom.js";
import { ago, bytes, count, cut, moment, shownValue } from "./text.js";

const MOST_GROWTH = 8; // from here on any commit trains a new codebook (docs/reference/index-format.md)
const MOST_DRIFT = 0.03; // from here on, and from a growth of 2, `index compact` does

const whole = (value) => (Number.isFinite(value) ? count(value) : null);

/** What is shown of the facts, `[label, value, remark]`; without a value a line is left out. */
const HOLDS = [
  ["Documents", (info) => whole(info.documents)],
  ["Passages", (info) => whole(info.passages)],
  ["Token vectors", (info) => whole(info.token_vectors)],
  ["Size", (info) => (Number.isFinite(info.bytes) ? bytes(info.bytes) : null)],
];
const STORED = [
  ["Codec", (info) => info.codec],
  ["Dimensions", (info) => whole(info.dim)],
  ["Bytes a token vector", (info) => info.bytes_per_token],
  ["Centroids", (info) => whole(info.centroids)],
  ["Segments", (info) => whole(info.segments)],
  ["Layout", (info) => info.layout],
  ["Mode", (info) => info.mode],
  ["Shards", (info) => (info.shards ? `${count(info.shards)}, by ${info.key}` : null)],
  ["Effort of a search", (info) => info.effort],
  ["Model", (info) => info.model],
  ["Candidates", (info) => info.candidates?.join(", ")],
];
const HISTORY = [
  ["Version", (info) => whole(info.version)],
  ["Versions kept", (info) => whole(Array.isArray(info.versions) ? info.versions.length : info.versions)],
  ["Growth", (info) => (info.growth === null && info.centroids ? "not counted: the codebook came with the bundle and stays" : null)],
  ["Last feed", (info) => info.last_feed && moment(info.last_feed), (info) => ago(info.last_feed)],
];
const SAID = new Set(["name", "backend", "fields", "growth", "drift", "degraded", "coverage", "shard_sizes", "documents", "passages",
  "token_vectors", "bytes", "codec", "dim", "bytes_per_token", "centroids", "segments", "layout", "mode", "shards", "key", "effort", "model",
  "candidates", "version", "versions", "last_feed"]);

export class IndexView {
  /** refresh(): asks for all of it again. */
  constructor(place, refresh) {
    Object.assign(this, { place, refresh, hits: new Map() });
  }

  clear() {
    replace(this.place);
  }

  async show(state, index, info) {
    const rest = Object.keys(info).filter((name) => !SAID.has(name) && info[name] !== null);
    const others = rest.map((name) => [name.replaceAll("_", " "), () => cut(shownValue(info[name]), 200)]);
    const head = el("header.index-head", {}, el("div", {}, el("h2", {}, foreign(cut(info.name, 120))), el("p.soft", {}, info.backend === "vespa" ? "Vespa application" : "Local index")), button("Refresh", this.refresh));
    replace(this.place, head, degraded(info), el("dl.facts.big", {}, lines(HOLDS, info)),
      el("div.panels", {},
        panel("Storage", el("dl.lines", {}, lines([...STORED, ...others], info))),
        panel("History", el("dl.lines", {}, lines(HISTORY, info)), meters(info)),
        panel("Metadata", fieldTable(info.fields ?? {})),
        info.shard_sizes ? panel("Shards", shardTable(info.shard_sizes)) : null));
    announce(`Index ${info.name}`);
  }
}

function lines(table, info) {
  return table.map(([label, value, remark]) => {
    const shown = value(info);
    if (shown === null || shown === undefined || shown === "") return null;
    return el("div", {}, el("dt", {}, label), el("dd", {}, foreign(String(shown)), remark?.(info) ? el("span.soft", {}, ` ${remark(info)}`) : null));
  });
}

const panel = (title, ...content) => el("section.panel", {}, el("h3", {}, title), content);

function degraded(info) {
  const why = [...(info.degraded ?? [])];
  if (Number.isFinite(info.coverage) && info.coverage < 1 && !why.length) why.push(`${(100 * info.coverage).toFixed(0)}% of the documents can be searched`);
  return why.length ? el("div.notice.warn", { role: "status" }, el("h2", {}, "Not all of it can be searched"), why.map((text) => el("p", {}, foreign(cut(text, 200))))) : null;
}

/** How near the codebook is to being trained again. */
function meters(info) {
  const growth = Number.isFinite(info.growth) ? meter("Growth", info.growth, MOST_GROWTH, `${info.growth.toFixed(2)} ×`,
    "Token vectors now, compared with those that the codebook was trained on. From 2 on, index compact trains a new codebook; from 8 on, any feed does.") : null;
  const drift = Number.isFinite(info.drift) ? meter("Drift", Math.max(info.drift, 0), MOST_DRIFT, info.drift.toFixed(4),
    "How much worse the vectors fit the codebook than those it was trained on. From 0.03 on, index compact trains a new one.") : null;
  return [growth, drift];
}

function meter(label, value, limit, text, told) {
  const share = Math.min(value / limit, 1);
  return el("div.meter", {}, el("div.meter-head", {}, el("span", {}, label), el("b.number", {}, text)),
    el(`div.meter-bar${share >= 1 ? ".full" : ""}`, { role: "meter", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": String(limit), "aria-valuenow": String(Math.min(value, limit)), "aria-valuetext": text }, el("i", { vars: { share: share.toFixed(3) } })),
    el("p", {}, told));
}

function fieldTable(fields) {
  const entries = Object.entries(fields);
  if (!entries.length) return el("p.soft", {}, "The documents have no metadata.");
  return el("table.plain", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Field"), el("th", { scope: "col" }, "Type"))),
    el("tbody", {}, entries.map(([name, type]) => el("tr", {}, el("th", { scope: "row" }, foreign(cut(name, 80))), el("td.mono", {}, type)))));
}

function shardTable(shards) {
  return el("table.plain", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Shard"), el("th", { scope: "col" }, "Passages"))),
    el("tbody", {}, shards.map(({ shard, passages, error }) => el("tr", {}, el("th", { scope: "row" }, String(shard)), el("td.number", {}, error ? foreign(cut(error, 120)) : whole(passages))))));
}
