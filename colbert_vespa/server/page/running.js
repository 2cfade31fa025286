// Runs what the page asks: one at a time, with its waiting, its errors, and asking again after those that pass.

import { ApiError } from "./api.js";
import { announce, replace } from "./dom.js";
import { Latest } from "./latest.js";
import { againAfter, errorNotice, notice } from "./notices.js";

export class Runner {
  /** askKey: opens the dialog for an API key. */
  constructor(waiting, place, askKey) {
    Object.assign(this, { waiting, place, askKey });
    this.latest = new Latest();
    this.again = 0;
  }

  cancel() {
    clearTimeout(this.again);
    this.latest.cancel();
    this.waiting.stop();
  }

  /** `task(signal)`; on an error `failed()` first, then the notice. */
  async run(task, failed) {
    this.cancel();
    const signal = this.latest.next();
    const repeat = () => this.run(task, failed);
    this.waiting.start(() => this.stopped(repeat));
    try {
      await task(signal);
      if (signal.aborted) return;
      this.waiting.stop();
      replace(this.place);
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      this.waiting.stop();
      if (!(error instanceof ApiError)) throw error;
      failed();
      this.show(error, repeat);
    }
  }

  show(error, repeat) {
    const actions = ["key", "forbidden"].includes(error.kind) ? [["Enter an API key", this.askKey]] : [["Try again", repeat]];
    replace(this.place, errorNotice(error, actions));
    const seconds = againAfter(error);
    if (seconds) this.again = setTimeout(repeat, 1000 * seconds);
  }

  stopped(repeat) {
    this.cancel();
    replace(this.place, notice("warn", "Stopped", [], [["Search again", repeat]]));
    announce("Search stopped");
  }
}
