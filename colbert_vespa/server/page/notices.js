// What is said when there are no results to show: errors, slowness, nothing found.

import { button, el, foreign, replace } from "./dom.js";
import { cut } from "./text.js";

const TITLES = {
  offline: "The server does not answer",
  key: "An API key is needed",
  forbidden: "This is not allowed",
  busy: "The server is busy",
  gone: "The index is not there",
  missing: "The passage is not in the index any more",
  down: "The index cannot be reached",
  timeout: "The search took too long",
  usage: "The search was not accepted",
  failed: "The server could not answer",
};

const HINTS = {
  offline: "It may be starting again, or the connection is down. The search is asked again by itself.",
  busy: "It takes more requests in a moment. The search is asked again by itself.",
  gone: "It was renamed or removed, or this server does not serve it.",
  down: "The server runs, but what it searches does not. The search is asked again by itself.",
  timeout: "A narrower filter, or other candidates, may be answered in time.",
};

/** Kinds that pass by themselves, and the seconds after which to ask again. */
const AGAIN_S = { offline: 3, busy: 1, down: 5 };

export const againAfter = (error) => (error.kind in AGAIN_S ? Math.max(error.retryAfter || 0, AGAIN_S[error.kind]) : 0);

/** actions: `[label, what to do]`. */
export function notice(kind, title, texts, actions = []) {
  return el(
    `div.notice.${kind}`,
    { role: kind === "error" ? "alert" : null },
    el("div", {}, title ? el("h2", {}, title) : null, texts.filter(Boolean).map((text) => el("p", {}, foreign(cut(text, 600))))),
    actions.length ? el("div.row", {}, actions.map(([label, act]) => button(label, act))) : null,
  );
}

export function errorNotice(error, actions) {
  const request = error.requestId ? `Request ${error.requestId}` : "";
  const said = error.kind === "offline" ? "" : error.message;
  return notice("error", TITLES[error.kind] ?? TITLES.failed, [said, HINTS[error.kind], request], actions);
}

export function blank(title, text, ...more) {
  return el("section.blank", {}, el("h2", {}, title), text ? el("p", {}, text) : null, more);
}

/** Shows that something is under way: a bar at once, words and a way out when it takes long. */
export class Waiting {
  constructor(bar, place, main, { barMs = 250, wordsMs = 2500 } = {}) {
    Object.assign(this, { bar, place, main, barMs, wordsMs, timers: [] });
  }

  start(cancel) {
    this.stop();
    this.main.setAttribute("aria-busy", "true");
    this.timers = [
      setTimeout(() => this.bar.classList.add("on"), this.barMs),
      setTimeout(() => this.words(cancel), this.wordsMs),
    ];
  }

  get busy() {
    return this.timers.length > 0;
  }

  words(cancel) {
    const texts = ["The server is still at work."];
    replace(this.place, notice("slow", "Still searching", texts, [["Stop", cancel]]));
  }

  stop() {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers = [];
    this.bar.classList.remove("on");
    this.main.setAttribute("aria-busy", "false");
    this.place.querySelector(".slow")?.remove();
  }
}
