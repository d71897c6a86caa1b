/** Turns under way: a message, the answer as it grows, and what the server says about both. */

import { announce } from "./elements.js";
import { deliver, deliverAgain, forget, settle } from "./outbox.js";
import { toolName } from "./tool-calls.js";

const QUIET_SECONDS = 4;
const ANNOUNCED_LENGTH = 600;
const CONFLICT_ATTEMPTS = 12;
const CONFLICT_PAUSE_SECONDS = 0.5;

/**
 * Listener of every turn, all called with it: `changed` (draw it), `accepted` (it has its thread and ids),
 * `ended` (answered, stopped or answered elsewhere), `refused` (with the error; it will not be sent again).
 */
export class Turns {
  #live = new Set();
  #listener;

  constructor(listener) {
    this.#listener = listener;
  }

  /** The turn whose thread this is; null asks for the one that begins a thread. */
  in(thread) {
    return [...this.#live].find((turn) => turn.thread === thread) ?? null;
  }

  get threads() {
    return new Set([...this.#live].map((turn) => turn.thread));
  }

  /** Sends what the outbox holds, now or after a reload. */
  begin(entry) {
    const turn = this.#add({
      key: entry.key,
      thread: entry.thread ?? entry.place?.thread ?? null,
      accepted: Boolean(entry.place),
      user: { id: entry.place?.message, role: "user", content: entry.text, status: "sending" },
      reply: { id: entry.place?.reply, role: "assistant", content: "", status: "streaming", tool_calls: [] },
    });
    if (turn.accepted) turn.user.status = "complete";
    this.#run(turn, (handlers) => deliver(entry, handlers));
    return turn;
  }

  /** Runs an interrupted or failed answer again, in its place. */
  again(thread, reply) {
    const turn = this.#add({ key: null, thread, accepted: true, user: null, reply });
    Object.assign(reply, { status: "streaming", error: null, quiet: true });
    this.#listener.changed(turn);
    this.#run(turn, async (handlers) => {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await deliverAgain(reply.id, handlers);
        } catch (error) {
          // The server may still be noticing that the answer was stopped; or another tab was quicker.
          if (error.status !== 409) throw error;
          if (attempt === CONFLICT_ATTEMPTS) return false;
          await pause(CONFLICT_PAUSE_SECONDS);
        }
      }
    });
    return turn;
  }

  stop(turn) {
    turn.controller.abort(new DOMException("Stopped", "AbortError"));
  }

  #add(turn) {
    const whole = { ...turn, title: "", began: turn.thread === null, fresh: false, controller: new AbortController() };
    this.#live.add(whole);
    return whole;
  }

  async #run(turn, start) {
    const { signal } = turn.controller;
    const changed = () => this.#listener.changed(turn);
    let outcome = { answered: true };
    try {
      const answered = await start({
        signal,
        onAttempt: () => {
          turn.fresh = true;
          turn.reply.hidden = false;
          if (!turn.accepted) turn.user.status = "sending";
          changed();
        },
        onWait: () => {
          if (!turn.accepted) {
            turn.user.status = "waiting";
            turn.reply.hidden = true;
          }
          changed();
        },
        onEvent: (event) => this.#apply(turn, event),
      });
      outcome = { answered };
    } catch (error) {
      if (error.renewing) return;
      if (signal.aborted) outcome = { stopped: true };
      else outcome = { error };
    }
    clearTimeout(turn.quietTimer);
    this.#live.delete(turn);
    if (turn.key) forget(turn.key);
    this.#finish(turn, outcome);
  }

  #finish(turn, { answered, stopped, error }) {
    if (error && !turn.accepted) {
      this.#listener.refused(turn, error);
      return;
    }
    if (error) Object.assign(turn.reply, { status: "failed", error: error.message });
    if (stopped) turn.reply.status = "interrupted";
    this.#listener.changed(turn);
    this.#listener.ended(turn, { answered, stopped });
    announce(words(turn.reply, stopped));
  }

  #apply(turn, { name, data }) {
    const { reply } = turn;
    this.#watchQuiet(turn);
    if (name === "turn") {
      this.#accept(turn, data);
      if (!turn.key) this.#refresh(turn);
    } else if (name === "delta") {
      this.#refresh(turn);
      reply.content += data.text;
    } else if (name === "tool_call") {
      this.#refresh(turn);
      reply.tool_calls = [...reply.tool_calls, { ...data, status: "running" }];
      announce(`Using the tool ${toolName(data.name)}.`);
    } else if (name === "tool_result") {
      reply.tool_calls = reply.tool_calls.map((call) => (call.id === data.id ? { ...call, ...data } : call));
    } else if (name === "done") {
      this.#accept(turn, data);
      Object.assign(reply, data.reply);
    }
    this.#listener.changed(turn);
  }

  /** A repeated attempt tells the whole answer again: what was shown gives way with its first word. */
  #refresh(turn) {
    if (!turn.fresh) return;
    turn.fresh = false;
    Object.assign(turn.reply, { content: "", tool_calls: [] });
  }

  #accept(turn, { thread, message, reply }) {
    turn.title = thread.title;
    turn.reply.id = reply.id;
    if (turn.user) Object.assign(turn.user, { id: message.id, content: message.content, status: "complete" });
    const first = !turn.accepted || turn.thread !== thread.id;
    turn.accepted = true;
    turn.thread = thread.id;
    if (turn.key) settle(turn.key, { thread: thread.id, message: message.id, reply: reply.id });
    if (first) announce("Message sent. The assistant is working.");
    this.#listener.accepted(turn);
  }

  #watchQuiet(turn) {
    clearTimeout(turn.quietTimer);
    turn.reply.quiet = false;
    turn.quietTimer = setTimeout(() => {
      turn.reply.quiet = true;
      this.#listener.changed(turn);
    }, QUIET_SECONDS * 1000);
  }
}

function words({ status, content, error }, stopped) {
  if (stopped) return "Stopped.";
  if (status === "failed") return `The answer failed. ${error ?? ""}`;
  if (status === "interrupted") return "The answer was interrupted. You can try again.";
  return `The assistant answered: ${content.slice(0, ANNOUNCED_LENGTH)}`;
}

function pause(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
