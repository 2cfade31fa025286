// The view of one search: controls, stages, hits.

import { api, key } from "./api.js";
import { announce, button, el, foreign, replace } from "./dom.js";
import { blank } from "./notices.js";
import { resultList } from "./results.js";
import { funnel, remarks, stagesView } from "./stages.js";
import { PAGE_SIZE } from "./state.js";
import { counted } from "./text.js";
import { parts, withChosen, chosen } from "./where.js";

const MOST = 100;
const COPIED_MS = 1600;

/** What a search of this state sends. */
export function searchBody(state, index, more = {}) {
  const body = { query: state.q, index, k: state.k, candidates: state.candidates, ...more };
  if (state.group) body.group = true;
  if (Object.keys(state.where).length) body.where = state.where;
  return body;
}

export class SearchView {
  /** open(hit): the heat map. */
  constructor(place, store, open) {
    Object.assign(this, { place, store, open, hits: new Map() });
  }

  /** What a new answer depends on. */
  static key({ view, q, index, candidates, where, k, group }) {
    return JSON.stringify([view, q.trim(), index, candidates, where, k, group]);
  }

  clear() {
    this.hits.clear();
    replace(this.place);
  }

  async show(state, index, info, signal) {
    if (!state.q.trim()) {
      this.welcome(info);
      return;
    }
    const begin = performance.now();
    const result = await api.search(searchBody(state, index, { explain: true }), signal);
    this.draw(state, info, result, performance.now() - begin);
  }

  welcome(info) {
    this.hits.clear();
    const facts = [["Documents", info.documents], ["Passages", info.passages]].filter(([, value]) => Number.isFinite(value));
    const list = el("dl.facts", {}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value.toLocaleString("en-US")))));
    replace(this.place, blank("Search by meaning, and see why",
      "Each word of the query is compared with each word of a passage. Words that match are shaded by their similarity; a result opens the whole comparison as a heat map.",
      el("p.hints", {}, el("span", {}, el("kbd", {}, "/"), " to type"), el("span", {}, el("kbd", {}, "↓"), " to the results"), el("span", {}, el("kbd", {}, "Enter"), " for the heat map"), el("span", {}, el("kbd", {}, "?"), " for all keys")),
      facts.length ? list : null));
  }

  draw(state, info, result, ms) {
    this.hits = new Map(result.hits.map((hit) => [hit.passage_id, hit]));
    const on = { open: this.open, filter: (name, value) => this.filterBy(info, name, value) };
    const controls = this.controls(state, info);
    if (!result.hits.length) {
      const filtered = Object.keys(state.where).length > 0;
      const text = filtered ? "No passage fits both the query and the filters." : "No passage fits this query. Other candidates may find some.";
      const actions = filtered ? el("div.row", {}, button("Clear the filters", () => this.store.change({ where: {} }))) : null;
      replace(this.place, controls, this.filterLine(state), blank("Nothing found", text, actions, remarks(result)));
      announce("Nothing found");
      return;
    }
    const several = new Set(result.hits.map((hit) => hit.index)).size > 1;
    const more = result.hits.length >= state.k && state.k < MOST
      ? el("p.more", {}, button("More results", () => this.store.change({ k: Math.min(state.k + PAGE_SIZE, MOST) }, { push: false }))) : null;
    const list = resultList(result, on, several);
    list.classList.add("stale");
    replace(this.place, controls, this.filterLine(state), el("p.summary", {}, funnel(result)), remarks(result), stagesView(result, ms), list, more);
    announce(counted(result.hits.length, "result"));
  }

  controls(state, info) {
    const names = ["auto", ...(info.candidates ?? [])];
    const options = names.map((name) => el("option", { value: name, selected: name === state.candidates }, name));
    const select = el("select", { onchange: () => this.store.change({ candidates: select.value, k: PAGE_SIZE }) }, options);
    const group = el("input", { type: "checkbox", onchange: () => this.store.change({ group: group.checked }) });
    group.checked = state.group;
    return el("div.controls", {}, el("label", {}, "Candidates", select), el("label", {}, group, "One passage a document"),
      el("span.end", {}, copyButton("Copy link", () => location.href), copyButton("Copy as curl", () => curl(searchBody(state, info.name)))));
  }

  filterLine(state) {
    const all = parts(state.where);
    if (!all.length) return null;
    return el("div.active-filters", { role: "group", "aria-label": "Filters of this search" }, all.map(([text, without]) =>
      el("button", { type: "button", title: "Remove this filter", onclick: () => this.store.change({ where: without }) }, foreign(text.slice(0, 120)), el("span.x", { "aria-hidden": "true" }, "×"), el("span.unseen", {}, "remove"))));
  }

  filterBy(info, name, value) {
    if (!(name in (info.fields ?? {}))) return;
    const { where } = this.store.state;
    const values = chosen(where, name);
    if (!values.includes(value)) this.store.change({ where: withChosen(where, name, [...values, value]) });
  }
}

function copyButton(label, text) {
  const node = button(label, async () => {
    try {
      await navigator.clipboard.writeText(text());
      node.textContent = "Copied";
    } catch {
      node.textContent = "Not allowed here";
    }
    announce(node.textContent);
    setTimeout(() => { node.textContent = label; }, COPIED_MS);
  }, "button.link");
  return node;
}

/** The same search for a shell; a key stays out of it. */
export function curl(body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const url = new URL("v1/search", document.baseURI).href;
  const header = key.get() ? ' -H "Authorization: Bearer $COLBERT_VESPA_KEY"' : "";
  return `curl -s ${quoted(url)} -H 'Content-Type: application/json'${header} -d ${quoted(JSON.stringify(body))}`;
}

