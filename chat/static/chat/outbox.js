/**
 * Messages on their way: written down before they are sent, forgotten when they are answered.
 *
 * The key written beside the text goes with every attempt, so the server knows a repeated message from a second one,
 * also after a reload, a log-in or a crash of the browser.
 */

import { ApiError } from "./api.js";
import { persistently, recovered } from "./patience.js";
import { streamEvents } from "./stream.js";

const PLACE = `chat.outbox.${document.body.dataset.userId}`;

function read() {
  try {
    return JSON.parse(localStorage.getItem(PLACE)) ?? [];
  } catch {
    return [];
  }
}

function write(entries) {
  if (entries.length) localStorage.setItem(PLACE, JSON.stringify(entries));
  else localStorage.removeItem(PLACE);
}

export function entries() {
  return read();
}

export function add({ text, thread, key = newKey() }) {
  const entry = { key, text, thread };
  write([...read().filter((each) => each.key !== key), entry]);
  return entry;
}

export function forget(key) {
  write(read().filter((each) => each.key !== key));
}

/** Remembers what became of a message (`{thread, message, reply}`, ids), so that a reload shows it in its place. */
export function settle(key, place) {
  write(read().map((each) => (each.key === key ? { ...each, place } : each)));
}

/** `crypto.randomUUID` exists only over HTTPS and on this machine; the chat also runs in plain networks. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/**
 * Sends until answered: true, or false when another tab had the answer meanwhile.
 *
 * `onEvent({name, data})` sees every event of every attempt; `onAttempt()` begins one, `onWait()` follows one that
 * failed for the moment. Throws what waiting does not mend.
 */
export function deliver(entry, handlers) {
  const body = entry.thread ? { message: entry.text, thread: entry.thread } : { message: entry.text };
  const request = { body, headers: { "Idempotency-Key": entry.key } };
  return alone(entry.key, handlers.signal, async () => {
    if (!read().some(({ key }) => key === entry.key)) return false;
    return follow("/api/chat", request, handlers);
  });
}

/** Runs an interrupted or failed answer again, in its place. */
export function deliverAgain(replyId, handlers) {
  return follow(`/api/messages/${replyId}/retry`, {}, handlers);
}

function follow(path, request, { signal, onAttempt, onEvent, onWait }) {
  const attempt = async () => {
    onAttempt();
    try {
      for await (const event of streamEvents(path, { ...request, signal })) {
        if (event.name === "error") throw new ApiError(event.data);
        recovered();
        onEvent(event);
        if (event.name === "done") return true;
      }
      throw new ApiError({ status: 0, title: "The connection to the server broke off." });
    } catch (error) {
      if (error.passing) onWait(error);
      throw error;
    }
  };
  return persistently(attempt, { signal, keepsText: true });
}

/** Two tabs with the same outbox take turns per message; without locks the key alone prevents doubles. */
function alone(key, signal, work) {
  return navigator.locks ? navigator.locks.request(`${PLACE}.${key}`, { signal }, work) : work();
}
