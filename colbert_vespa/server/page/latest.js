// One request at a time: a newer one cancels the one before.

export class Latest {
  constructor() {
    this.controller = null;
  }

  /** A signal for the new one. */
  next() {
    this.cancel();
    this.controller = new AbortController();
    return this.controller.signal;
  }

  cancel() {
    this.controller?.abort();
    this.controller = null;
  }
}

/** Calls `act` when it was not asked for `ms` long. */
export function debounced(act, ms) {
  let timer = 0;
  const later = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}
