// The heat map of a hit: words of the query against words of the passage.

import { ApiError, api } from "./api.js";
import { announce, button, byId, el, foreign, icon, replace } from "./dom.js";
import { Latest } from "./latest.js";
import { strength } from "./marked.js";
import { errorNotice } from "./notices.js";
import { SCORES } from "./stages.js";
import { CodePoints, count, cut, cutMiddle, score, similarity } from "./text.js";

const MOST_PASSAGES = 100; // of a document, that the passage is looked for among
const MOST_WORDS = 400; // of a passage that are shown; those of the matches always
const CELL = 20; // pixels, as in heatmap.css
const LABEL = [48, 120]; // pixels of a query word, at least and at most
const LETTER = 7.5; // pixels
const ROW_WORD = 14; // characters of a query word beside its row
const WORD = 22; // characters of a word in a label
const CLOSE = "M3.5 3.5l9 9M12.5 3.5l-9 9";
const MOVES = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

/** Opens over the page; `onclose` is called however it closes. */
export class HeatMap {
  constructor(onclose) {
    this.dialog = byId("heatmap-dialog");
    this.latest = new Latest();
    this.dialog.addEventListener("close", () => {
      this.latest.cancel();
      this.sizes?.disconnect();
      replace(this.dialog);
      onclose();
    });
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.close());
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  /** hit: at least `{id, passage_id}`; what is missing is asked for. question: `{query, index}`. */
  async open(hit, question) {
    const heading = el("h2", { id: "heatmap-title", dir: "auto", tabindex: "-1" }, cut(hit.title?.trim() || hit.passage_id, 160));
    const id = el("p.where.mono", {}, foreign(cutMiddle(hit.passage_id, 90)));
    const close = el("button.tool", { type: "button", "aria-label": "Close", title: "Close (Escape)", onclick: () => this.close() }, icon(CLOSE));
    this.body = el("div.sheet-body");
    replace(this.dialog, el("header.sheet-head", {}, el("div", {}, heading, id), close), this.body);
    if (!this.dialog.open) this.dialog.showModal();
    heading.focus();
    if (hit.explanation?.similarities) this.draw(hit.explanation, hit);
    else await this.load(hit, question, heading);
  }

  async load(hit, question, heading) {
    replace(this.body, el("p.loading.soft", { role: "status" }, "Comparing words…"));
    try {
      const { hits } = await api.explain({ ...question, ids: [hit.id], k: MOST_PASSAGES }, this.latest.next());
      const found = hits.find((one) => one.passage_id === hit.passage_id);
      if (!found) throw new ApiError("missing", "");
      if (found.title.trim()) heading.textContent = cut(found.title, 160);
      this.draw(found.explanation, { ...found, ...hit });
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      replace(this.body, errorNotice(error, [["Try again", () => this.load(hit, question, heading)]]));
    }
  }

  draw(explanation, hit) {
    if (!explanation?.matches?.length) {
      replace(this.body, el("p.soft", {}, "There are no words to compare: the query or the passage has none."));
      return;
    }
    this.table = new Table(explanation);
    this.chosen = -1; // a query word, -1 for all
    const legend = el("p.legend", {}, el("span.number", {}, "≤ 0.2"), el("i", { "aria-hidden": "true" }), el("span.number", {}, "≥ 0.9"), el("span", {}, "cosine similarity"));
    this.passage = el("p.passage", { dir: "auto" });
    this.bands = el("div.bands");
    this.readout = el("p.readout", { role: "status" }, "Point at a cell, or move among them with the arrow keys.");
    const rest = this.table.hidden ? el("p.soft.small", {}, `${count(this.table.hidden)} more words of the passage are not shown.`) : null;
    replace(this.body,
      el("section.words", { "aria-label": "Query words" }, el("h3", {}, "Query words"), this.wordList(hit)),
      el("section.against", { "aria-label": "Words against words" }, el("h3", {}, "Passage"), this.passage, el("div.bands-head", {}, el("h3", {}, "Word by word"), legend), this.bands, rest, this.readout));
    this.shade();
    this.columns = 0;
    this.sizes?.disconnect();
    this.sizes = new ResizeObserver(() => this.layOut());
    this.sizes.observe(this.bands);
    announce("Heat map is open");
  }

  wordList(hit) {
    this.choices = this.table.matches.map((match, row) => {
      const choose = button([], () => this.choose(row), "button.word", { "aria-pressed": "false" });
      choose.append(el("b", {}, foreign(cut(match.query_word, WORD))), el("span.to", { "aria-hidden": "true" }, "→"), el("span.best", {}, foreign(cut(match.passage_word, WORD))),
        el("span.number", {}, similarity(match.similarity)), el("i.bar", { vars: { share: strength(match.similarity).toFixed(2) }, "aria-hidden": "true" }));
      return choose;
    });
    const facts = [];
    if (hit && Number.isFinite(hit.score)) facts.push(["Score", score(hit.score)]);
    for (const [name, value] of Object.entries(hit?.stages ?? {})) if (Number.isFinite(value)) facts.push([SCORES[name] ?? name, score(value)]);
    if (hit?.rows?.length) facts.push(["Query rows", count(hit.rows.length)]);
    return [
      el("ul.word-list", {}, this.choices.map((choice) => el("li", {}, choice))),
      facts.length ? el("dl.word-facts", {}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd.number", {}, value)))) : null,
      el("p.soft.small", {}, "MaxSim adds up what each row of the query finds in the passage. Rows of markers and of the expansion count, too, and are not shown."),
    ];
  }

  choose(row) {
    this.chosen = this.chosen === row ? -1 : row;
    this.choices.forEach((choice, place) => choice.setAttribute("aria-pressed", String(place === this.chosen)));
    this.shade();
    for (const line of this.bands.querySelectorAll("tr[data-row]")) line.classList.toggle("dim", this.chosen >= 0 && Number(line.dataset.row) !== this.chosen);
  }

  /** The passage with each word shaded by its best similarity, or by that with the chosen word. */
  shade() {
    replace(this.passage, this.table.runs().map(([text, column]) => {
      if (column < 0) return text;
      const value = this.chosen < 0 ? this.table.best(column) : this.table.value(this.chosen, column);
      return el("mark", { vars: { s: strength(value).toFixed(2) }, title: similarity(value) }, text);
    }));
  }

  /** Tables of as many columns as fit beside each other; the rest goes on below, as a text does. */
  layOut() {
    const letters = Math.max(...this.table.matches.map((match) => Math.min(match.query_word.length, ROW_WORD)));
    const label = Math.min(Math.max(LETTER * letters + 12, LABEL[0]), LABEL[1]);
    this.bands.style.setProperty("--label", `${label}px`);
    const columns = Math.max(4, Math.floor((this.bands.clientWidth - label) / CELL));
    if (columns === this.columns) return;
    this.columns = columns;
    const all = this.table.shown;
    const bands = [];
    for (let from = 0; from < all.length; from += columns) bands.push(this.band(all.slice(from, from + columns), from === 0));
    replace(this.bands, bands);
  }

  band(columns, first) {
    const label = (column) => el("th", { scope: "col" }, el("span", { dir: "auto" }, cut(this.table.word(column), WORD)));
    const head = el("thead", {}, el("tr", {}, el("td"), columns.map(label)));
    const rows = this.table.matches.map((match, row) => {
      const cells = columns.map((column, place) => this.cell(row, column, first && row === 0 && place === 0));
      return el("tr", { data: { row: String(row) } }, el("th", { scope: "row" }, foreign(cut(match.query_word, ROW_WORD))), cells);
    });
    const listeners = { onpointerover: (event) => this.read(event.target), onfocusin: (event) => this.read(event.target), onkeydown: (event) => this.move(event) };
    return el("table.matrix", { role: "grid", "aria-label": "Similarities", ...listeners }, head, el("tbody", {}, rows));
  }

  cell(row, column, first) {
    const value = this.table.value(row, column);
    const best = this.table.bestColumn(row) === column;
    const cell = el(`td${best ? ".best" : ""}`, { tabindex: first ? "0" : "-1", "aria-label": similarity(value), vars: { s: strength(value).toFixed(2) } });
    cell.place = [row, column];
    return cell;
  }

  read(cell) {
    if (!cell.place) return;
    const [row, column] = cell.place;
    const words = [this.table.matches[row].query_word, this.table.word(column)].map((word) => foreign(cut(word, 60), "bdi.told"));
    replace(this.readout, words[0], " × ", words[1], " ", el("b.number", {}, similarity(this.table.value(row, column))));
  }

  move(event) {
    const step = MOVES[event.key];
    if (!step || !event.target.place) return;
    event.preventDefault();
    const [row, column] = event.target.place;
    const cells = [...this.bands.querySelectorAll("td")].filter((cell) => cell.place);
    const order = this.table.shown;
    const next = [row + step[0], order[order.indexOf(column) + step[1]]];
    const target = cells.find((cell) => cell.place[0] === next[0] && cell.place[1] === next[1]);
    if (!target) return;
    event.target.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
    target.scrollIntoView({ block: "nearest" });
  }
}

/** Similarities `[query words, passage words]` and the words themselves. */
class Table {
  constructor({ text, matches, words, similarities }) {
    Object.assign(this, { matches, spans: words, values: similarities, points: new CodePoints(text) });
    this.bests = similarities.map((row) => row.reduce((best, value, column) => (value > row[best] ? column : best), 0));
    const kept = new Set([...words.keys()].slice(0, MOST_WORDS).concat(this.bests));
    this.shown = [...kept].sort((a, b) => words[a][0] - words[b][0]);
    this.hidden = words.length - this.shown.length;
  }

  value(row, column) {
    return this.values[row][column] ?? Number.NaN;
  }

  bestColumn(row) {
    return this.bests[row];
  }

  best(column) {
    return Math.max(...this.values.map((row) => row[column] ?? -1));
  }

  word(column) {
    return this.points.slice(...this.spans[column]);
  }

  /** The text in pieces: `[text, column]`, -1 for what is between words; what is not shown is an ellipsis. */
  runs() {
    const out = [];
    let at = 0;
    let before = -1;
    for (const column of this.shown) {
      const [start, end] = this.spans[column];
      if (start < at) continue;
      if (column > before + 1 && before >= 0) out.push([" … ", -1]);
      else if (start > at) out.push([this.points.slice(at, start), -1]);
      out.push([cut(this.points.slice(start, end), 200), column]);
      [at, before] = [end, column];
    }
    out.push([before === this.spans.length - 1 ? cut(this.points.slice(at), 200) : " …", -1]);
    return out;
  }
}
