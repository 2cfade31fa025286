// The panel of filters: what the metadata schema has, with the values that occur.

import { api } from "./api.js";
import { add, button, el, foreign, replace } from "./dom.js";
import { count, cut } from "./text.js";
import { chosen, rangeOf, withChosen, withRange } from "./where.js";

const SHOWN = 6; // values of a field, before "more"
const ASKED = 20;
const FEW = 8; // different numbers that are offered as choices
const OPEN = 4; // fields whose values are shown from the start
const HIDDEN = ["metadata_json"]; // what no field can hold, as JSON

const element = (type) => type.replace(/^array<(.*)>$/, "$1");
const isNumber = (type) => ["int", "long", "float", "double"].includes(element(type));
const isTime = (type) => element(type) === "timestamp";
const filterable = ([name, type]) => !HIDDEN.includes(name) && element(type) !== "position";

export class Filters {
  constructor(root, store) {
    this.root = root;
    this.store = store;
    this.fields = [];
    this.index = null;
    this.asked = new AbortController();
  }

  /** Shows the fields of an index; its values are asked for when a field is opened. */
  show(index, schema) {
    const key = JSON.stringify([index, schema]);
    if (key === this.index) return;
    this.index = key;
    this.asked.abort();
    this.asked = new AbortController();
    const names = Object.entries(schema).filter(filterable);
    this.fields = names.map(([name, type], place) => {
      const make = isNumber(type) || isTime(type) ? RangeField : ChoiceField;
      return new make(this, index, name, type, place < OPEN);
    });
    this.custom = new CustomFilter(this);
    const head = el("div.filters-head", {}, el("h2", {}, "Filters"), (this.clear = button("Clear", () => this.change({}), "button.link")));
    const none = names.length ? null : el("p.soft", {}, "The documents have no metadata.");
    replace(this.root, head, none, this.fields.map((field) => field.node), this.custom.node);
    this.update(this.store.state.where);
  }

  update(where) {
    if (!this.custom) return;
    this.clear.hidden = Object.keys(where).length === 0;
    for (const field of this.fields) field.update(where);
    this.custom.update(where);
  }

  change(where) {
    this.store.change({ where, hit: "" });
  }
}

class Field {
  constructor(panel, index, name, type, open) {
    Object.assign(this, { panel, index, name, type, loaded: false });
    this.body = el("div.field-body");
    const shownType = element(type) === type ? type : `list of ${element(type)}`;
    const summary = el("summary", {}, foreign(cut(name, 60), "bdi.field-name"), el("span.field-type", {}, shownType));
    this.node = el("details.field", { ontoggle: () => this.node.open && this.load() }, summary, this.body);
    this.node.open = open;
    if (open) this.load();
  }

  async load() {
    if (this.loaded) return;
    this.loaded = true;
    try {
      this.values = await api.values(this.index, this.name, ASKED, this.panel.asked.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.loaded = false;
      this.values = [];
      replace(this.body, el("p.field-none", {}, "The values could not be read. "), button("Try again", () => this.load(), "button.link"));
      return;
    }
    this.draw();
    this.update(this.panel.store.state.where);
  }

  /** Checkboxes of the values, those that are chosen but do not occur among the first ones at the top. */
  choices() {
    const where = this.panel.store.state.where;
    const occurring = this.values.map((one) => one.value);
    const extra = chosen(where, this.name).filter((value) => !occurring.includes(value));
    const all = [...extra.map((value) => ({ value, count: null })), ...this.values];
    this.boxes = all.map(({ value, count: documents }) => {
      const box = el("input", { type: "checkbox", onchange: () => this.toggle(value, box.checked) });
      const text = foreign(cut(String(value), 80), "bdi.choice-text");
      const amount = documents === null ? null : el("span.choice-count.number", {}, count(documents));
      return { value, box, node: el("li", {}, el("label.choice", {}, box, text, amount)) };
    });
    const list = el("ul.choices", {}, this.boxes.map((one) => one.node));
    const rest = this.boxes.slice(SHOWN + extra.length);
    if (rest.length < 2) return [list];
    for (const one of rest) one.node.hidden = true;
    const more = button(`${rest.length} more`, () => {
      for (const one of rest) one.node.hidden = false;
      more.remove();
      rest[0].box.focus();
    }, "button.link");
    return [list, more];
  }

  toggle(value, on) {
    const { where } = this.panel.store.state;
    const others = chosen(where, this.name).filter((one) => one !== value);
    this.panel.change(withChosen(where, this.name, on ? [...others, value] : others));
  }

  update(where) {
    const values = chosen(where, this.name);
    if (values.length && !this.node.open) this.node.open = true;
    if (this.boxes && values.some((value) => !this.boxes.some((one) => one.value === value))) this.draw();
    for (const one of this.boxes ?? []) one.box.checked = values.includes(one.value);
  }
}

class ChoiceField extends Field {
  draw() {
    if (!this.values.length) replace(this.body, el("p.field-none", {}, "No document has a value."));
    else replace(this.body, this.choices());
  }
}

class RangeField extends Field {
  draw() {
    const kind = isTime(this.type) ? "date" : "number";
    const box = (label) => el("input", { type: kind, step: kind === "number" ? "any" : null, "aria-label": `${this.name}, ${label}`, placeholder: label, onchange: () => this.read() });
    this.least = box("from");
    this.most = box("to");
    const choices = isNumber(this.type) && this.values.length && this.values.length <= FEW ? this.choices() : null;
    replace(this.body, choices, el("div.range", {}, this.least, el("span", { "aria-hidden": "true" }, "–"), this.most));
  }

  read() {
    const value = (input, end) => {
      if (input.value === "") return null;
      return isTime(this.type) ? input.value + (end ? "T23:59:59.999Z" : "") : Number(input.value);
    };
    const { where } = this.panel.store.state;
    this.panel.change(withRange(where, this.name, { $gte: value(this.least, false), $lte: value(this.most, true) }));
  }

  update(where) {
    super.update(where);
    const { $gte: least, $lte: most } = rangeOf(where, this.name);
    if ((least ?? most) !== undefined && !this.node.open) this.node.open = true;
    if (!this.least) return;
    for (const [input, value] of [[this.least, least], [this.most, most]]) {
      if (input !== document.activeElement) input.value = value === undefined ? "" : isTime(this.type) ? String(value).slice(0, 10) : String(value);
    }
  }
}

/** The whole filter as JSON: what the fields above cannot say. */
class CustomFilter {
  constructor(panel) {
    this.panel = panel;
    this.error = el("p.field-error", { id: "where-error", role: "alert" });
    this.area = el("textarea", { rows: "5", spellcheck: "false", "aria-label": "Filter as JSON", "aria-describedby": "where-error" });
    this.area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.apply();
    });
    const body = el("div.field-body", {}, this.area, this.error, button("Apply", () => this.apply()));
    this.node = add(el("details.field"), [el("summary", {}, el("span.field-name", {}, "As JSON")), body]);
  }

  apply() {
    let where;
    try {
      where = JSON.parse(this.area.value.trim() || "{}");
    } catch (error) {
      this.error.textContent = `This is not JSON: ${error.message}`;
      return;
    }
    if (where === null || typeof where !== "object" || Array.isArray(where)) {
      this.error.textContent = 'A filter is an object, such as {"year": {"$gte": 2020}}.';
      return;
    }
    this.error.textContent = "";
    this.panel.change(where);
  }

  update(where) {
    if (this.area === document.activeElement) return;
    this.area.value = Object.keys(where).length ? JSON.stringify(where, null, 1) : "";
    this.error.textContent = "";
  }
}
