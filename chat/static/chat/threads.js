/** The list of conversations: by day, newest first; rename in place, delete after a question. */

import { readJson, readPage } from "./api.js";
import { announce, element, iconButton } from "./elements.js";
import { persistently } from "./patience.js";

const DAY_MS = 24 * 60 * 60 * 1000;
const TITLE_LENGTH = 200;

export class ThreadList {
  #root = document.querySelector("[data-threads]");
  #dialog = document.querySelector("dialog[data-delete]");
  #threads = new Map();
  #next = "/api/threads";
  #loaded = false;
  #current = null;
  #live = new Set();
  #renaming = null;
  #on;

  /** `onOpen(id)`, `onDeleted(id)`, `onRenamed(thread)`. */
  constructor(on) {
    this.#on = on;
    this.#root.addEventListener("click", (event) => this.#clicked(event));
  }

  async load() {
    const { results, next } = await persistently(() => readPage(this.#next));
    results.forEach((thread) => this.#threads.set(thread.id, thread));
    this.#next = next;
    this.#loaded = true;
    this.#draw();
  }

  /** Reads the newest page again: titles are made in the background. */
  async refresh() {
    const { results } = await readPage("/api/threads");
    results.forEach((thread) => this.#threads.set(thread.id, thread));
    if (!this.#renaming) this.#draw();
  }

  title(id) {
    return this.#threads.get(id)?.title;
  }

  /** Puts a thread on top. */
  touch(id, title) {
    this.#threads.set(id, { ...this.#threads.get(id), id, title, updated_at: new Date().toISOString() });
    if (!this.#renaming) this.#draw();
  }

  mark({ current = this.#current, live = this.#live }) {
    const same = current === this.#current && [...live].join() === [...this.#live].join();
    this.#current = current;
    this.#live = live;
    if (this.#loaded && !same && !this.#renaming) this.#draw();
  }

  #draw() {
    const focus = document.activeElement;
    const focused = this.#root.contains(focus) && {
      id: focus.closest("[data-thread]")?.dataset.thread,
      action: focus.dataset.action,
    };
    const threads = [...this.#threads.values()].sort((one, other) => (one.updated_at < other.updated_at ? 1 : -1));
    const children = [];
    let heading = null;
    let list;
    for (const thread of threads) {
      if (daysAgo(thread.updated_at) !== heading) {
        heading = daysAgo(thread.updated_at);
        list = element("ul", { "aria-label": heading });
        children.push(element("h3", { text: heading }), list);
      }
      list.append(this.#row(thread));
    }
    if (!threads.length) {
      children.push(element("p", { class: "threads-empty", text: "Your conversations will be listed here." }));
    }
    if (this.#next) {
      children.push(
        element("button", { type: "button", class: "button button-small threads-more", dataset: { action: "more" }, text: "Show older ones" }),
      );
    }
    this.#root.replaceChildren(...children);
    if (focused) this.#find(focused.id, focused.action)?.focus();
  }

  #row({ id, title }) {
    const current = id === this.#current;
    const name = title || "New conversation";
    return element(
      "li",
      { class: "thread", dataset: { thread: id, current } },
      element("a", { href: `/?thread=${id}`, text: name, title: name, "aria-current": current ? "page" : null, dataset: { action: "open" } }),
      ...(this.#live.has(id) ? [element("span", { class: "thread-live", role: "img", "aria-label": "Answering" })] : []),
      element(
        "span",
        { class: "thread-actions" },
        iconButton("rename", `Rename “${name}”`, { dataset: { action: "rename" } }),
        iconButton("delete", `Delete “${name}”`, { dataset: { action: "delete" } }),
      ),
    );
  }

  #find(id, action = "open") {
    return this.#root.querySelector(`[data-thread="${id}"] [data-action="${action}"]`);
  }

  #clicked(event) {
    const target = event.target.closest("[data-action]");
    if (!target || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const id = target.closest("[data-thread]")?.dataset.thread;
    const { action } = target.dataset;
    if (action === "more") this.load();
    if (action === "open") this.#on.onOpen(id);
    if (action === "rename") this.#rename(id);
    if (action === "delete") this.#delete(id);
  }

  #rename(id) {
    const thread = this.#threads.get(id);
    const field = element("input", { type: "text", maxlength: TITLE_LENGTH, "aria-label": "New name of the conversation" });
    field.value = thread.title;
    this.#renaming = id;
    this.#find(id).closest("li").replaceChildren(field);
    field.select();
    field.focus();
    const finish = async (save) => {
      if (this.#renaming !== id) return;
      this.#renaming = null;
      const title = field.value.trim();
      const hadFocus = document.activeElement === field;
      if (save && title && title !== thread.title) await this.#saveTitle(thread, title);
      this.#draw();
      if (hadFocus) this.#find(id, "rename")?.focus();
    };
    field.addEventListener("blur", () => finish(true));
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" && !event.isComposing) finish(true);
      if (event.key === "Escape") finish(false);
    });
  }

  async #saveTitle(thread, title) {
    this.#threads.set(thread.id, { ...thread, title });
    try {
      await persistently(() => readJson(`/api/threads/${thread.id}`, { method: "PATCH", body: { title } }));
      announce(`Renamed to ${title}.`);
      this.#on.onRenamed({ ...thread, title });
    } catch (error) {
      this.#threads.set(thread.id, thread);
      announce(`Not renamed. ${error.message}`);
    }
  }

  #delete(id) {
    this.#dialog.querySelector("[data-delete-name]").textContent = this.title(id);
    this.#dialog.returnValue = "keep";
    this.#dialog.showModal();
    this.#dialog.addEventListener("close", () => this.#dialog.returnValue === "delete" && this.#deleteNow(id), { once: true });
  }

  async #deleteNow(id) {
    try {
      await persistently(() => readJson(`/api/threads/${id}`, { method: "DELETE" }));
    } catch (error) {
      if (error.status !== 404) {
        announce(`Not deleted. ${error.message}`);
        return;
      }
    }
    this.#threads.delete(id);
    this.#draw();
    announce("Conversation deleted.");
    this.#on.onDeleted(id);
  }
}

function daysAgo(moment) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const time = new Date(moment).getTime();
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY_MS) return "Yesterday";
  if (time >= midnight - 7 * DAY_MS) return "The last seven days";
  return "Earlier";
}
