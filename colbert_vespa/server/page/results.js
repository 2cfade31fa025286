// The list of hits.

import { button, el, foreign } from "./dom.js";
import { bestWindow, marked, pointsOf, spansOf } from "./marked.js";
import { SCORES } from "./stages.js";
import { count, cut, cutMiddle, score, shownValue } from "./text.js";

const SNIPPET = 340; // characters
const WHOLE = 20000; // characters of a text that are shown at most
const TITLE = 200;
const METADATA = 5;

/** on: `open(hit)` for the heat map, `filter(name, value)` or null. several: whether hits are of different indexes. */
export function resultList(result, on, several) {
  const best = Math.max(...result.hits.map((hit) => Math.abs(hit.score)), 1e-12);
  return el("ol.results", {}, result.hits.map((hit) => resultItem(hit, best, on, several)));
}

function resultItem(hit, best, on, several) {
  const title = el("h2", {}, titleButton(hit, () => on.open(hit)));
  const place = el("p.where", {}, el("bdi.mono", { dir: "auto", title: cut(hit.id, 400) }, cutMiddle(hit.passage_id, 72)), several ? [" · ", foreign(cut(hit.index, 40))] : null);
  const [text, more] = textBlock(hit);
  const foot = el("div.result-foot", {}, more, metadata(hit.metadata, on.filter));
  const body = el("div.result-body", {}, title, place, text, foot);
  return el("li.result", { data: { passage: hit.passage_id } }, el("div.rank.number", { "aria-hidden": "true" }, String(hit.rank)), body, scores(hit, best));
}

/** The title, or the id where there is none; opens the heat map. */
export function titleButton(hit, open) {
  const points = pointsOf(hit.title.trim() ? hit.title : "");
  const long = points.length > TITLE;
  const name = points.length ? [marked(points, spansOf(hit, "title"), 0, Math.min(TITLE, points.length)), long ? "…" : null] : cutMiddle(hit.id, 90);
  return el("button.title", { type: "button", dir: "auto", onclick: open, data: { item: "" }, "aria-haspopup": "dialog" }, name);
}

function textBlock(hit) {
  const points = pointsOf(hit.text);
  if (!points.length) return [el("p.text.soft", {}, "No text"), null];
  const spans = spansOf(hit, "text");
  const [start, end] = bestWindow(points, spans, SNIPPET);
  const text = el("p.text", { dir: "auto" }, start > 0 ? "… " : null, marked(points, spans, start, end), end < points.length ? " …" : null);
  if (start === 0 && end === points.length) return [text, null];
  const whole = () => {
    const most = Math.min(points.length, WHOLE);
    const rest = points.length - most;
    const tail = rest ? el("span.soft", {}, ` … ${count(rest)} more characters`) : null;
    return el("p.text.whole", { dir: "auto" }, marked(points, spans, 0, most), tail);
  };
  let shown = text;
  const more = button("Whole text", () => {
    const next = shown === text ? whole() : text;
    shown.replaceWith(next);
    shown = next;
    more.setAttribute("aria-expanded", String(next !== text));
    more.textContent = next === text ? "Whole text" : "Less";
  }, "button.link", { "aria-expanded": "false" });
  return [text, more];
}

function metadata(values, filter) {
  const entries = Object.entries(values ?? {}).filter(([name, value]) => name !== "metadata_json" && value !== null && shownValue(value) !== "");
  if (!entries.length) return null;
  const shown = entries.slice(0, METADATA).map(([name, value]) => {
    const parts = [el("span.key", {}, foreign(cut(name, 40))), " ", foreign(cut(shownValue(value), 70))];
    const can = filter && (["string", "boolean"].includes(typeof value)) && String(value).length <= 200;
    return el("li", {}, can ? el("button.value", { type: "button", title: "Filter by this value", onclick: () => filter(name, value) }, parts) : el("span.value", {}, parts));
  });
  const more = entries.length - METADATA;
  return el("ul.metadata", {}, shown, more > 0 ? el("li.soft", {}, `${more} more`) : null);
}

function scores(hit, best) {
  const others = Object.entries(hit.stages ?? {}).filter(([, value]) => Number.isFinite(value));
  const share = Math.max(0, hit.score) / best;
  return el("div.scores.number", {}, el("b", {}, score(hit.score)), el("i.bar", { vars: { share: share.toFixed(3) }, "aria-hidden": "true" }),
    el("dl", {}, others.map(([name, value]) => el("div", {}, el("dt", {}, SCORES[name] ?? name), el("dd", {}, score(value))))));
}
