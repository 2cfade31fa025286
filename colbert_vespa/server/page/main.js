// Puts the page together: the address says what is shown, the views show it.

import { key } from "./api.js";
import { Catalog } from "./catalog.js";
import { CompareView } from "./compare.js";
import { byId, el, replace } from "./dom.js";
import { Filters } from "./filters.js";
import { HeatMap } from "./heatmap.js";
import { IndexView } from "./indexview.js";
import { listenToKeys } from "./keyboard.js";
import { debounced } from "./latest.js";
import { Waiting } from "./notices.js";
import { Runner } from "./running.js";
import { SearchView } from "./search.js";
import { PAGE_SIZE, Store, format, parse } from "./state.js";
import { cut } from "./text.js";

const TYPING_MS = 180;
const HEADINGS = { search: "Search", compare: "Side by side", index: "Index" };

const store = new Store(parse(location.search));
const catalog = new Catalog();
const main = byId("main");
const query = byId("query");
const waiting = new Waiting(byId("progress"), byId("notice"), main);
const runner = new Runner(waiting, byId("notice"), () => byId("key-button").click());
const filters = new Filters(byId("filters"), store);
const heatmap = new HeatMap(() => store.change({ hit: "", doc: "" }));
const open = (hit) => store.change({ hit: hit.passage_id, doc: hit.id });
const views = {
  search: new SearchView(byId("content"), store, open),
  compare: new CompareView(byId("content"), store, open),
  index: new IndexView(byId("content"), () => show()),
};

let shown = ""; // view

/** Asks for what the state needs and shows it. */
function show() {
  const state = store.state;
  const view = views[state.view];
  if (shown !== state.view) view.clear();
  shown = state.view;
  return runner.run(async (signal) => {
    const index = await catalog.named(state.index, signal);
    showIndexes(await catalog.indexes(signal), index);
    const info = await catalog.info(index, signal, { fresh: state.view === "index" });
    filters.show(index, info.fields ?? {});
    await view.show(state, index, info, signal);
    if (!signal.aborted) showHeatMap();
  }, () => {
    view.clear();
    catalog.forget();
  });
}

function showHeatMap() {
  const { hit, doc, q, view } = store.state;
  if (!hit || view === "index" || !q.trim()) {
    heatmap.close();
    return;
  }
  const known = views[view].hits.get(hit) ?? { passage_id: hit, id: doc || hit };
  const index = store.state.index || catalog.all?.[0]?.name;
  heatmap.open(known, { query: q, index: known.index && catalog.all?.some((one) => one.name === known.index) ? known.index : index });
}

function showIndexes(indexes, chosen) {
  const select = byId("index-select");
  byId("index-pick").hidden = indexes.length < 2;
  replace(select, indexes.map(({ name }) => el("option", { value: name, selected: name === chosen }, cut(name, 40))));
}

/** What does not wait for an answer. */
function frame(state) {
  if (query.value.trim() !== state.q.trim() || document.activeElement !== query) query.value = state.q;
  for (const link of document.querySelectorAll("[data-view]")) {
    link.setAttribute("href", format({ ...state, view: link.dataset.view, hit: "", doc: "" }));
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("heading").textContent = HEADINGS[state.view];
  byId("frame").classList.toggle("wide", state.view === "index");
  byId("frame").dataset.view = state.view;
  const active = Object.keys(state.where).length;
  byId("filters-toggle").textContent = active ? `Filters (${active})` : "Filters";
  byId("filters-toggle").hidden = state.view === "index";
  document.title = state.q.trim() ? `${cut(state.q.trim(), 60)} – colbert-vespa` : "colbert-vespa";
  filters.update(state.where);
}

store.listen((state, before) => {
  frame(state);
  if (SearchView.key(state) !== SearchView.key(before)) show();
  else showHeatMap();
});

const typed = debounced(() => store.change({ q: query.value, k: PAGE_SIZE, hit: "", doc: "" }, { push: false }), TYPING_MS);
query.addEventListener("input", (event) => {
  if (event.isComposing) return;
  if (store.state.view === "index") store.change({ view: "search", q: query.value });
  else typed();
});
query.addEventListener("compositionend", () => typed());
byId("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  typed.cancel();
  history.pushState(null, "", format(store.state));
  const view = store.state.view === "index" ? "search" : store.state.view;
  const before = store.state;
  store.change({ q: query.value, view, k: PAGE_SIZE, hit: "", doc: "" }, { push: false });
  if (store.state === before) show();
});

byId("index-select").addEventListener("change", (event) => store.change({ index: event.target.value, where: {}, candidates: "auto", hit: "", doc: "" }));
document.querySelector(".views").addEventListener("click", (event) => {
  const view = event.target.closest("[data-view]")?.dataset.view;
  if (!view || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  store.change({ view, hit: "", doc: "" });
});
byId("home").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  store.change({ view: "search", q: "", where: {}, k: PAGE_SIZE, hit: "", doc: "" });
  query.focus();
});
byId("filters-toggle").addEventListener("click", () => {
  const isOpen = byId("filters").classList.toggle("open");
  byId("filters-toggle").setAttribute("aria-expanded", String(isOpen));
});
byId("help-button").addEventListener("click", () => byId("help-dialog").showModal());
addEventListener("popstate", () => store.restore());

function listenToKey() {
  const [dialog, button, input] = [byId("key-dialog"), byId("key-button"), byId("key-input")];
  const mark = () => { button.dataset.set = String(key.get() !== ""); };
  const use = (text) => {
    key.set(text);
    mark();
    catalog.forget();
    show();
  };
  button.addEventListener("click", () => {
    input.value = key.get();
    dialog.showModal();
    input.select();
  });
  byId("key-form").addEventListener("submit", () => use(input.value.trim()));
  byId("key-forget").addEventListener("click", () => { dialog.close(); use(""); });
  mark();
}

listenToKey();
listenToKeys(store, () => waiting.busy && runner.stopped(show));
frame(store.state);
show();
