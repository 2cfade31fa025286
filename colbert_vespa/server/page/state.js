// What the page shows, kept in the address: a link to it shows the same. Only what differs from the defaults is written.

export const VIEWS = ["search", "compare", "index"];
export const PAGE_SIZE = 10;
const MOST = 100;

export const DEFAULTS = Object.freeze({
  view: "search",
  q: "",
  index: "",
  candidates: "auto",
  where: Object.freeze({}),
  k: PAGE_SIZE,
  group: false,
  hit: "", // the passage whose heat map is open, and its document
  doc: "",
});

/** The state in a query string; what makes no sense there is left out. */
export function parse(search) {
  const given = new URLSearchParams(search);
  const state = { ...DEFAULTS };
  for (const name of ["q", "index", "candidates", "hit", "doc"]) if (given.get(name)) state[name] = given.get(name);
  if (VIEWS.includes(given.get("view"))) state.view = given.get("view");
  const k = Number(given.get("k"));
  if (Number.isInteger(k) && k >= 1) state.k = Math.min(k, MOST);
  state.group = given.get("group") === "1";
  state.where = parseWhere(given.get("where"));
  return state;
}

function parseWhere(text) {
  try {
    const where = JSON.parse(text ?? "{}");
    return where && typeof where === "object" && !Array.isArray(where) ? where : {};
  } catch {
    return {};
  }
}

export function format(state) {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(DEFAULTS)) {
    const own = state[name];
    if (name === "where") {
      if (Object.keys(own).length) out.set(name, JSON.stringify(own));
    } else if (own !== value && own !== "") {
      out.set(name, own === true ? "1" : String(own));
    }
  }
  const text = out.toString();
  return text ? `?${text}` : location.pathname;
}

/** The one state. `change` tells those who listen what is new; typing replaces the entry of the history, the rest adds one. */
export class Store {
  constructor(start) {
    this.state = start;
    this.listeners = [];
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  change(changes, { push = true } = {}) {
    const before = this.state;
    const state = { ...before, ...changes };
    if (format(state) === format(before)) return;
    this.state = state;
    if (push) history.pushState(null, "", format(state));
    else history.replaceState(null, "", format(state));
    this.tell(before);
  }

  /** After the browser's back and forward. */
  restore() {
    const before = this.state;
    this.state = parse(location.search);
    this.tell(before);
  }

  tell(before) {
    for (const listener of this.listeners) listener(this.state, before);
  }
}
