// The indexes that the server has, and what it says of them.

import { api } from "./api.js";

const FRESH_MS = 30000;

export class Catalog {
  constructor() {
    this.forget();
  }

  forget() {
    this.all = null;
    this.infos = new Map();
  }

  async indexes(signal) {
    this.all ??= await api.indexes(signal);
    return this.all;
  }

  /** The index of that name, or the first one. */
  async named(name, signal) {
    const all = await this.indexes(signal);
    return name || all[0]?.name || "";
  }

  async info(name, signal, { fresh = false } = {}) {
    const known = this.infos.get(name);
    if (known && !fresh && performance.now() - known.at < FRESH_MS) return known.info;
    const info = await api.index(name, signal);
    this.infos.set(name, { info, at: performance.now() });
    return info;
  }
}
