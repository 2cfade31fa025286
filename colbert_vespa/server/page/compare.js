// The same query by several kinds of search, side by side, with what each found that the others did not.

import { ApiError, api } from "./api.js";
import { announce, el, foreign, replace } from "./dom.js";
import { blank, errorNotice } from "./notices.js";
import { searchBody } from "./search.js";
import { cut, cutMiddle, milliseconds, score } from "./text.js";

const K = 10;
const SNIPPET = 150;

const byScore = (hit) => hit.score;
const byFirstStage = (hit) => hit.stages.bm25 ?? hit.stages.candidates ?? hit.score;

/** Kinds of search that an index may have; `of` names the strategy, and those of a first stage alone are put into its order. */
const KINDS = [
  { id: "bm25", name: "BM25", told: "words in common", of: ["bm25"], order: byFirstStage },
  { id: "dense", name: "Dense", told: "one vector a passage", of: ["pooled"], order: byFirstStage },
  { id: "late", name: "Late interaction", told: "one vector a token, MaxSim", of: ["centroid", "token", "exhaustive"], order: byScore },
  { id: "hybrid", name: "Hybrid", told: "BM25 and MaxSim, fused", of: ["hybrid"], order: byScore },
];

export function kindsOf(strategies) {
  return KINDS.map((kind) => ({ ...kind, strategy: kind.of.find((name) => strategies.includes(name)) })).filter((kind) => kind.strategy);
}

export class CompareView {
  constructor(place, store, open) {
    Object.assign(this, { place, store, open, hits: new Map() });
  }

  clear() {
    this.hits.clear();
    replace(this.place);
  }

  async show(state, index, info, signal) {
    if (!state.q.trim()) {
      const names = kindsOf(info.candidates ?? []).map((kind) => kind.name).join(", ");
      replace(this.place, blank("One query, side by side", `Type a query to see what each kind of search finds: ${names}.`));
      return;
    }
    const kinds = kindsOf(info.candidates ?? []);
    const answers = await Promise.all(kinds.map((kind) => this.ask(kind, state, index, signal)));
    const failed = answers.filter((answer) => answer.error);
    if (failed.length === answers.length && failed.length) throw failed[0].error;
    this.draw(answers);
  }

  async ask(kind, state, index, signal) {
    const more = { k: K, candidates: kind.strategy, group: false };
    if (kind.order === byFirstStage) more.rerank = K; // the best of the first stage, and no others
    const begin = performance.now();
    try {
      const result = await api.search(searchBody({ ...state, group: false }, index, more), signal);
      const hits = [...result.hits].sort((a, b) => kind.order(b) - kind.order(a));
      return { kind, hits, ms: performance.now() - begin, notes: result.notes };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return { kind, hits: [], error };
    }
  }

  draw(answers) {
    const places = new Map(); // by passage: the lists that have it, and its rank there
    for (const { kind, hits } of answers) {
      hits.forEach((hit, at) => places.set(hit.passage_id, [...(places.get(hit.passage_id) ?? []), [kind, at + 1]]));
    }
    this.hits = new Map(answers.flatMap(({ hits }) => hits.map((hit) => [hit.passage_id, hit])));
    const answered = answers.filter((answer) => !answer.error).length;
    const shared = [...places.values()].filter((lists) => lists.length === answered).length;
    const table = el("div.compare.stale", { vars: { lists: answers.length }, onpointerover: (event) => this.light(event), onfocusin: (event) => this.light(event) },
      answers.map((answer) => this.list(answer, places, answered)));
    const text = `${places.size} passages in ${answered} lists of ${K}; ${shared} of them in every list.`;
    replace(this.place, el("p.summary", {}, text), table);
    announce(text);
  }

  list({ kind, hits, ms, error, notes }, places, answered) {
    const alone = hits.filter((hit) => places.get(hit.passage_id).length === 1).length;
    const head = el("header", {}, el("h2", { id: `list-${kind.id}` }, kind.name), el("p", {}, kind.told),
      error ? null : el("p.number", {}, answered > 1 ? el("b", {}, `${alone} only here`) : null, answered > 1 ? " · " : null, milliseconds(ms)));
    const body = error ? errorNotice(error, []) : hits.length ? el("ol", {}, hits.map((hit, at) => this.item(kind, hit, at + 1, places))) : el("p.none.soft", {}, "Nothing found");
    const remarks = (notes ?? []).map((note) => el("p.remark", {}, foreign(cut(note, 200))));
    return el("section.list", { "aria-labelledby": `list-${kind.id}` }, head, remarks, body);
  }

  item(kind, hit, rank, places) {
    const others = places.get(hit.passage_id).filter(([other]) => other.id !== kind.id);
    const where = others.length
      ? el("p.also", {}, others.map(([other, at]) => el("span", {}, `${other.name} `, el("b.number", {}, String(at)))))
      : el("p.also.alone", {}, "Only here");
    const title = el("button.title", { type: "button", dir: "auto", "aria-haspopup": "dialog", data: { item: "", column: kind.id }, onclick: () => this.open(hit) }, hit.title.trim() ? cut(hit.title, 120) : cutMiddle(hit.id, 60));
    return el(`li${others.length ? "" : ".alone"}`, { data: { passage: hit.passage_id } },
      el("span.rank.number", { "aria-hidden": "true" }, String(rank)),
      el("div", {}, el("h3", {}, title), el("p.snippet", { dir: "auto" }, cut(hit.text, SNIPPET)), where),
      el("span.score.number", {}, score(kind.order(hit))));
  }

  /** Marks one passage in all lists. */
  light(event) {
    const passage = event.target.closest?.("[data-passage]")?.dataset.passage;
    for (const node of this.place.querySelectorAll("[data-passage]")) node.classList.toggle("lit", passage !== undefined && node.dataset.passage === passage);
  }
}
