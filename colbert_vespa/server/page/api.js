// The server's API. Addresses are relative to the page, so that it works behind a proxy's prefix.

const KEY = "colbert-vespa-key";

/** What went wrong, in the words of the server where it said any. kind: a key of TITLES in notices.js. */
export class ApiError extends Error {
  constructor(kind, message, { status = 0, requestId = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { name: "ApiError", kind, status, requestId, retryAfter });
  }
}

const KINDS = { 401: "key", 403: "forbidden", 404: "gone", 410: "gone", 429: "busy", 502: "down", 503: "down", 504: "timeout" };

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

/** Raises ApiError; AbortError passes. */
async function call(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The server does not answer.");
  }
  const data = await read(answer);
  if (!answer.ok) throw problem(answer, data);
  return data;
}

async function read(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (!answer.ok) return {};
    throw new ApiError("failed", "The server's answer is not JSON.", { status: answer.status });
  }
}

function problem(answer, data) {
  const status = answer.status;
  const kind = KINDS[status] ?? (status < 500 ? "usage" : "failed");
  const text = typeof data.detail === "string" ? data.detail : (data.title ?? `The server answered with status ${status}.`);
  return new ApiError(kind, text, {
    status,
    requestId: data.request_id ?? answer.headers.get("X-Request-Id") ?? "",
    retryAfter: Number(answer.headers.get("Retry-After")) || 0,
  });
}

const named = (index) => encodeURIComponent(index);

export const api = {
  indexes: async (signal) => (await call("v1/indexes", { signal })).indexes,
  index: (name, signal) => call(`v1/indexes/${named(name)}`, { signal }),
  values: async (name, field, limit, signal) =>
    (await call(`v1/indexes/${named(name)}/values?${new URLSearchParams({ field, limit })}`, { signal })).values,
  search: async (body, signal) => (await call("v1/search", { method: "POST", body, signal })).results[0],
  explain: async (body, signal) => (await call("v1/explain", { method: "POST", body, signal })).results[0],
};
