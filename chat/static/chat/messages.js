/** Shows the messages of one thread and keeps the newest in sight, unless the reader scrolled away. */

import { element, icon, iconButton } from "./elements.js";
import { renderMarkdown } from "./markdown.js";
import { renderToolCalls } from "./tool-calls.js";

const NEAR_END_PIXELS = 80;
const NOTES = { sending: "Sending", waiting: "Waiting to be sent; kept in this browser", refused: "Not sent" };

export class Conversation {
  #list = document.querySelector("[data-messages]");
  #scroller = document.querySelector("[data-scroller]");
  #toLatest = document.querySelector("[data-to-latest]");
  #views = new Map();
  #changed = new Set();
  #frame = 0;
  #following = true;

  /** `onRetry(reply)` is called when somebody asks to try an answer again. */
  constructor({ onRetry }) {
    this.#list.addEventListener("click", (event) => this.#clicked(event, onRetry));
    this.#scroller.addEventListener("scroll", () => this.#noticeScroll(), { passive: true });
    this.#toLatest.addEventListener("click", () => this.follow());
    new ResizeObserver(() => this.#following && this.#scrollToEnd()).observe(this.#list);
  }

  show(messages) {
    this.#views.clear();
    this.#list.replaceChildren();
    this.#list.hidden = false;
    messages.forEach((message) => this.add(message));
    this.follow();
  }

  hide() {
    this.#views.clear();
    this.#list.replaceChildren();
    this.#list.hidden = true;
    this.#toLatest.hidden = true;
  }

  add(message) {
    const view = message.role === "user" ? userView() : replyView();
    this.#views.set(message, view);
    this.#list.append(view.root);
    view.render(message);
  }

  remove(message) {
    this.#views.get(message)?.root.remove();
    this.#views.delete(message);
  }

  /** Draws a changed message with the next frame, however many changes come until then. */
  update(message) {
    if (!this.#views.has(message)) return;
    this.#changed.add(message);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      for (const each of this.#changed) this.#views.get(each)?.render(each);
      this.#changed.clear();
      if (this.#following) this.#scrollToEnd();
    });
  }

  follow() {
    this.#following = true;
    this.#scrollToEnd();
    this.#toLatest.hidden = true;
  }

  #scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #noticeScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR_END_PIXELS;
    this.#toLatest.hidden = this.#following || this.#list.hidden;
  }

  #clicked(event, onRetry) {
    const button = event.target.closest("button");
    if (!button) return;
    const root = button.closest(".message");
    const [message] = [...this.#views].find(([, view]) => view.root === root) ?? [];
    if (button.dataset.retry !== undefined && message) onRetry(message);
    if (button.dataset.copyReply !== undefined && message) copy(message.content, button);
    if (button.dataset.copyCode !== undefined) {
      copy(button.closest("figure").querySelector("pre").textContent, button);
    }
  }
}

function userView() {
  const bubble = element("div", { class: "bubble" });
  const note = element("p", { class: "message-note" });
  const root = element(
    "article",
    { class: "message", "aria-label": "You", dataset: { role: "user" } },
    bubble,
    note,
  );
  return {
    root,
    render({ content, status, error }) {
      root.dataset.status = status;
      bubble.textContent = content;
      const words = error ?? NOTES[status];
      note.hidden = !words;
      note.textContent = words ?? "";
    },
  };
}

function replyView() {
  const tools = element("div", { class: "tool-calls" });
  const prose = element("div", { class: "prose" });
  const working = element("p", { class: "message-note thinking", text: "Thinking" });
  const end = element("div", { class: "message-end" });
  const mark = document.querySelector(".wordmark .mark").cloneNode(true);
  const root = element(
    "article",
    { class: "message", "aria-label": "Assistant", dataset: { role: "assistant" } },
    mark,
    tools,
    prose,
    working,
    end,
  );
  let drawnEnd = null;
  return {
    root,
    render({ content, status, error, tool_calls: calls = [], quiet = false, hidden = false }) {
      root.hidden = hidden;
      const finished = status !== "streaming";
      const changed = root.dataset.status !== status;
      root.dataset.status = status;
      root.setAttribute("aria-busy", String(!finished));
      renderToolCalls(tools, calls);
      renderMarkdown(prose, content, { afresh: finished && changed });
      working.hidden = finished || (content !== "" && !quiet);
      working.textContent = content === "" ? "Thinking" : "Still working";
      const source = JSON.stringify([status, error, content !== ""]);
      if (source === drawnEnd) return;
      drawnEnd = source;
      end.replaceChildren(...ending(status, error, content));
      end.hidden = !end.firstChild;
    },
  };
}

function ending(status, error, content) {
  if (status === "complete" && content) {
    return [iconButton("copy", "Copy the answer", { class: "icon-button copy-reply", dataset: { copyReply: "" } })];
  }
  if (status !== "interrupted" && status !== "failed") return [];
  const words = status === "failed" ? error || "The assistant could not finish." : "This answer was interrupted.";
  return [
    element("span", { text: words }),
    element("button", { type: "button", class: "button button-small", dataset: { retry: "" } }, icon("again"), "Try again"),
  ];
}

async function copy(text, button) {
  const label = button.querySelector("svg") ? null : button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS there is no clipboard object; a selection can still be copied.
    const area = element("textarea", { class: "visually-hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  if (label) button.textContent = "Copied";
  else button.replaceChildren(icon("check"));
  setTimeout(() => (label ? (button.textContent = label) : button.replaceChildren(icon("copy"))), 1600);
}
