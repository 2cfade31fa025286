// Keys of the whole page. Dialogs have their own.

import { byId } from "./dom.js";
import { VIEWS } from "./state.js";

const isTyping = (node) => node.matches("input:not([type=checkbox]), textarea, select");

/** Whether keys of one character act: those who speak to their computer may have to switch them off. */
const singles = {
  name: "colbert-vespa-single-keys",
  on: true,
  start() {
    const box = byId("single-keys");
    try {
      this.on = localStorage.getItem(this.name) !== "off";
    } catch {
      // storage is blocked: they act
    }
    box.checked = this.on;
    box.addEventListener("change", () => this.set(box.checked));
  },
  set(on) {
    this.on = on;
    try {
      if (on) localStorage.removeItem(this.name);
      else localStorage.setItem(this.name, "off");
    } catch {
      // kept for this page alone
    }
  },
};

export function listenToKeys(store, escape) {
  singles.start();
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return;
    const act = isTyping(event.target) ? whileTyping(event, escape) : elsewhere(event, store, escape);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function whileTyping(event, escape) {
  if (event.key === "Escape") return () => { escape(); event.target.blur(); };
  const down = event.key === "ArrowDown" && event.target.id === "query" && items().length > 0;
  return down ? () => go(items()[0]) : null;
}

function elsewhere(event, store, escape) {
  if (event.key.length === 1 && !singles.on) return null;
  const views = { 1: VIEWS[0], 2: VIEWS[1], 3: VIEWS[2] };
  if (event.key === "/") return () => { byId("query").focus(); byId("query").select(); };
  if (event.key === "?") return () => byId("help-button").click();
  if (event.key === "Escape") return escape;
  if (event.key in views) return () => store.change({ view: views[event.key], hit: "", doc: "" });
  return move(event);
}

const items = () => [...document.querySelectorAll("#main [data-item]")];

function move({ key, target }) {
  const all = items();
  if (!all.length) return null;
  const here = target.closest("[data-item]") ?? target.closest("li")?.querySelector("[data-item]") ?? null;
  const column = here?.dataset.column;
  const inList = all.filter((item) => item.dataset.column === column);
  const place = inList.indexOf(here);
  if (key === "ArrowDown") return () => go(here ? inList[Math.min(place + 1, inList.length - 1)] : all[0]);
  if (key === "ArrowUp") return here ? () => (place > 0 ? go(inList[place - 1]) : byId("query").focus()) : null;
  if (key === "Home" && here) return () => go(inList[0]);
  if (key === "End" && here) return () => go(inList.at(-1));
  const side = { ArrowLeft: -1, ArrowRight: 1 }[key];
  return side && column ? () => go(beside(all, column, place, side)) : null;
}

function beside(all, column, place, side) {
  const columns = [...new Set(all.map((item) => item.dataset.column))];
  const next = columns[columns.indexOf(column) + side] ?? column;
  const list = all.filter((item) => item.dataset.column === next);
  return list[Math.min(place, list.length - 1)];
}

function go(item) {
  item.focus({ preventScroll: true });
  item.closest("li").scrollIntoView({ block: "nearest", inline: "nearest" });
}
