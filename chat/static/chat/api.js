/** Talks to the JSON API of this site: session and CSRF, problem details as one kind of error. */

const RELOADED = "chat.reloaded-after-refusal";

export class ApiError extends Error {
  constructor({ status = 0, title = "", detail = "", retry_after: retryAfter = null } = {}) {
    super(detail || title || `The server answered ${status}.`);
    this.status = status;
    this.retryAfter = retryAfter;
    /** True when the page is about to be loaded again because of this error. */
    this.renewing = false;
  }

  /** True when the same request may well succeed a little later. */
  get passing() {
    return this.status === 0 || this.status === 429 || [502, 503, 504].includes(this.status);
  }
}

function csrfToken() {
  const cookie = document.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/);
  return cookie ? decodeURIComponent(cookie[1]) : document.body.dataset.csrfToken;
}

/** Sends one request; answers the response when it is a good one, else throws an ApiError. */
export async function send(path, { method = "GET", body, headers = {}, signal, accept = "application/json" } = {}) {
  const all = { Accept: accept, ...headers };
  if (body !== undefined) all["Content-Type"] = "application/json";
  if (method !== "GET") all["X-CSRFToken"] = csrfToken();
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError({ status: 0, title: "The server cannot be reached." });
  }
  if (response.ok) {
    sessionStorage.removeItem(RELOADED);
    return response;
  }
  throw await problemIn(response);
}

async function problemIn(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy in between may answer with a page of its own.
  }
  const header = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const error = new ApiError({
    ...problem,
    status: response.status,
    retry_after: problem.retry_after ?? (Number.isNaN(header) ? null : header),
  });
  error.renewing = (error.status === 401 || error.status === 403) && renewSession();
  return error;
}

/** Logged out, or the CSRF token changed in another tab: a reload mends both, unless it just failed to. */
function renewSession() {
  if (sessionStorage.getItem(RELOADED)) return false;
  sessionStorage.setItem(RELOADED, "1");
  window.location.reload();
  return true;
}

export async function readJson(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

/** One page of a cursor-paginated list: its results and the path of the next page, or null. */
export async function readPage(path, options) {
  const { results, next } = await readJson(path, options);
  return { results, next: next ? path.split("?")[0] + new URL(next, window.location.href).search : null };
}
