// How an answer came about: what each stage took and gave.

import { el, foreign } from "./dom.js";
import { count, counted, cut, milliseconds } from "./text.js";

export const SCORES = { maxsim: "MaxSim", bm25: "BM25", candidates: "First stage" };

const LEAST_MS = 0.05; // shorter stages are left out
const NAMES = {
  encode: "encode", select: "filter", centroids: "centroids", probe: "probe", interaction: "approximate", rerank: "rerank",
  last: "last stage", read: "read", shards: "shards", request: "build", vespa: "Vespa", parse: "parse", maxsim: "MaxSim",
};
const TOLD = {
  encode: "the query's token vectors", select: "documents that the filter selects", centroids: "query rows with centroids",
  probe: "passages of the nearest centroids", interaction: "approximate scores by centroids", rerank: "decompressed MaxSim",
  last: "scores of the best once more", read: "texts and metadata", shards: "waiting for the processes of shards",
  request: "the request to Vespa", vespa: "from sending to the answer", parse: "reading the answer", search: "all of the search",
  network: "the way here and back, and the server's own work", explain: "words that matched",
};

/** Stages in their order, in milliseconds; a sum is left out where its parts are there. */
export function segments(timings, total) {
  const entries = Object.entries(timings ?? {}).filter(([name, ms]) => !name.startsWith("vespa_") && Number.isFinite(ms));
  const detailed = entries.some(([name]) => name !== "encode" && name !== "search");
  const shown = entries.filter(([name]) => name !== "search" || !detailed);
  const long = shown.filter(([, ms]) => ms >= LEAST_MS);
  const rest = total - shown.reduce((sum, [, ms]) => sum + ms, 0);
  return rest >= LEAST_MS ? [...long, ["network", rest]] : long;
}

/** A bar of the stages by their time, and their names below it. */
export function stagesView(result, total) {
  const parts = segments(result.timings_ms, total);
  const name = (stage) => NAMES[stage] ?? (stage === "network" ? "transfer" : stage.replaceAll("_", " "));
  const bar = el("div.stage-bar", { "aria-hidden": "true" }, parts.map(([stage, ms], place) => el(`i.s${place % 4}`, { vars: { ms: ms.toFixed(3) }, data: { stage } })));
  const list = el("ul.stage-list", {}, parts.map(([stage, ms], place) =>
    el("li", { title: TOLD[stage] ?? "" }, el(`i.s${place % 4}`, { "aria-hidden": "true", data: { stage } }), el("span", {}, name(stage)), " ", el("b.number", {}, milliseconds(ms)))));
  const inside = Object.entries(result.timings_ms ?? {}).filter(([stage]) => stage.startsWith("vespa_"));
  const vespa = inside.length
    ? el("p.stage-inside", {}, "Vespa reports: ", inside.map(([stage, ms]) => `${stage.slice(6).replaceAll("_", " ")} ${milliseconds(ms)}`).join(", "))
    : null;
  return el("section.stages", { "aria-label": "Stages and their times" }, bar, list, vespa);
}

/** One line of how many passages each stage had. */
export function funnel(result) {
  const parts = [counted(result.hits.length, "result")];
  if (result.matched !== null && result.matched !== undefined) parts.push(`${count(result.matched)} candidates by ${result.candidates}`);
  else parts.push(`candidates by ${result.candidates}`);
  parts.push(`${count(result.reranked)} reranked`);
  return parts.join(" · ");
}

/** What a user should know of an answer: partial ones, notes. */
export function remarks(result) {
  const texts = [...(result.notes ?? [])];
  if (result.coverage < 1 && !texts.length) texts.push(`Only ${(100 * result.coverage).toFixed(0)}% of the documents were searched.`);
  return texts.map((text) => el("p.remark", {}, foreign(cut(text, 400))));
}
