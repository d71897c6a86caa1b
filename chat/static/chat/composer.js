/** The message field: Enter sends, the draft of each thread is kept while the tab is open. */

const WARN_SHARE = 0.9;

export class Composer {
  #form = document.querySelector("[data-composer]");
  #field = document.querySelector("#message-text");
  #submit = document.querySelector("[data-submit]");
  #stop = document.querySelector("[data-stop]");
  #count = document.querySelector("[data-count]");
  #problem = document.querySelector("[data-problem]");
  #limit = Number(this.#form.dataset.messageLength);
  #busy = false;
  #place = "";
  #kept = null;

  /** `onSend(text, key)` and `onStop()`; key is that of a message taken back unchanged, else undefined. */
  constructor({ onSend, onStop }) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#sendable) return;
      const text = this.#field.value.trim();
      const key = this.#kept?.text === text ? this.#kept.key : undefined;
      this.fill("");
      onSend(text, key);
    });
    this.#field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#field.addEventListener("input", () => this.#changed());
    this.#stop.addEventListener("click", () => {
      onStop();
      this.focus();
    });
  }

  get #sendable() {
    const length = [...this.#field.value.trim()].length;
    return !this.#busy && length > 0 && length <= this.#limit;
  }

  /** Goes to the draft of another thread; what was typed before the page was ready stays. */
  move(thread) {
    const early = this.#place ? "" : this.#field.value;
    this.#place = placeOf(thread);
    this.#kept = null;
    this.fill(early || (sessionStorage.getItem(this.#place) ?? ""));
  }

  /** The new thread on screen got its id: what is being typed belongs to it. */
  settle(thread) {
    sessionStorage.removeItem(this.#place);
    this.#place = placeOf(thread);
    this.#changed();
  }

  fill(text) {
    this.#field.value = text;
    this.#changed();
  }

  /** Gives a message back that was never answered; sent again unchanged, it is the same message. */
  giveBack({ text, key }) {
    if (this.#field.value.trim()) return;
    this.#kept = { text, key };
    this.fill(text);
  }

  set busy(busy) {
    if (busy === this.#busy) return;
    const hadFocus = document.activeElement === this.#stop || document.activeElement === this.#submit;
    this.#busy = busy;
    this.#stop.hidden = !busy;
    this.#submit.hidden = busy;
    this.#changed({ typed: false });
    if (hadFocus) this.focus();
  }

  showProblem(words) {
    this.#problem.textContent = words;
    this.#problem.hidden = !words;
  }

  focus() {
    this.#field.focus();
    this.#field.setSelectionRange(this.#field.value.length, this.#field.value.length);
  }

  #changed({ typed = true } = {}) {
    const text = this.#field.value;
    const length = [...text.trim()].length;
    const over = length > this.#limit;
    this.#submit.disabled = !this.#sendable;
    this.#field.setAttribute("aria-invalid", String(over));
    this.#count.dataset.over = String(over);
    this.#count.textContent =
      length > this.#limit * WARN_SHARE ? `${length.toLocaleString("en")} of ${this.#limit.toLocaleString("en")} characters` : "";
    if (!typed) return;
    this.showProblem("");
    if (text) sessionStorage.setItem(this.#place, text);
    else sessionStorage.removeItem(this.#place);
    if (!CSS.supports("field-sizing", "content")) {
      this.#field.style.height = "auto";
      this.#field.style.height = `${this.#field.scrollHeight}px`;
    }
  }
}

function placeOf(thread) {
  return `chat.draft.${thread ?? "new"}`;
}
