/** Puts the page together: which thread is shown, what is sent from it, what comes back. */

import { readJson, readPage } from "./api.js";
import { Composer } from "./composer.js";
import { closeDrawer } from "./drawer.js";
import { announce } from "./elements.js";
import { Conversation } from "./messages.js";
import * as outbox from "./outbox.js";
import { persistently } from "./patience.js";
import { ThreadList } from "./threads.js";
import { Turns } from "./turns.js";

const SITE = "dbresilience chat";
const WATCH_SECONDS = 2;
const TITLE_LOOKS_SECONDS = [1.5, 5, 12];

const welcome = document.querySelector("[data-welcome]");
const loading = document.querySelector("[data-loading]");
const heading = document.querySelector("[data-title]");

/** The thread on screen: its id (null before its first message) and its messages. */
let shown = { thread: null, messages: [] };

const conversation = new Conversation({ onRetry: retry });
const composer = new Composer({ onSend: submit, onStop: stop });
const threads = new ThreadList({
  onOpen: (id) => open(id),
  onDeleted: deleted,
  onRenamed: ({ id, title }) => id === shown.thread && setTitle(title),
});
const turns = new Turns({ changed, accepted, ended, refused });

function submit(text, key) {
  place(turns.begin(outbox.add({ text, thread: shown.thread, key })));
}

function retry(reply) {
  if (turns.in(shown.thread)) return;
  turns.again(shown.thread, reply);
  conversation.follow();
  mark();
  composer.focus();
}

function stop() {
  const turn = turns.in(shown.thread);
  if (turn) turns.stop(turn);
}

/** Shows the messages of a turn that begins in the thread on screen. */
function place({ user, reply }) {
  if (!shown.messages.length) conversation.show([]);
  welcome.hidden = true;
  shown.messages.push(user, reply);
  conversation.add(user);
  conversation.add(reply);
  conversation.follow();
  mark();
}

/** The stored messages with those of a living turn in their places. */
function joined(messages, turn) {
  const living = [turn?.user, turn?.reply].filter(Boolean);
  const stored = messages.map((each) => living.find(({ id }) => id === each.id) ?? each);
  return [...stored, ...living.filter((each) => !stored.includes(each))];
}

function changed(turn) {
  if (turn.user) conversation.update(turn.user);
  conversation.update(turn.reply);
}

function accepted(turn) {
  threads.touch(turn.thread, turn.title);
  if (shown.thread === null && shown.messages.includes(turn.reply)) {
    shown.thread = turn.thread;
    composer.settle(turn.thread);
    window.history.replaceState(null, "", `/?thread=${turn.thread}`);
    setTitle(turn.title);
  }
  if (shown.messages.includes(turn.reply)) dropDoubles(turn);
  mark();
}

/** After a reload the server's list may already hold what the outbox sends again. */
function dropDoubles({ user, reply }) {
  const ours = [user, reply];
  const doubles = shown.messages.filter((each) => !ours.includes(each) && ours.some((one) => one && one.id === each.id));
  shown.messages = shown.messages.filter((each) => !doubles.includes(each));
  doubles.forEach((each) => conversation.remove(each));
}

function ended(turn, { answered, stopped }) {
  mark();
  if (stopped && !turn.accepted) takeBack(turn);
  if (answered === false) {
    threads.refresh().catch(() => {});
    if (turn.thread === shown.thread) open(turn.thread, { push: false });
  }
  if (turn.began && turn.thread) lookForTitle(turn);
}

function refused(turn, error) {
  takeBack(turn);
  composer.showProblem(error.message);
  announce(`Not sent. ${error.message}`);
}

/** A message that never arrived leaves the conversation and returns to the field. */
function takeBack(turn) {
  mark();
  if (!shown.messages.includes(turn.user)) return;
  shown.messages = shown.messages.filter((each) => each !== turn.user && each !== turn.reply);
  conversation.remove(turn.user);
  conversation.remove(turn.reply);
  if (!shown.messages.length) showWelcome();
  composer.giveBack({ text: turn.user.content, key: turn.key });
}

function lookForTitle({ thread }) {
  for (const seconds of TITLE_LOOKS_SECONDS) {
    setTimeout(async () => {
      await threads.refresh().catch(() => {});
      if (thread === shown.thread) setTitle(threads.title(thread));
    }, seconds * 1000);
  }
}

function deleted(id) {
  const turn = turns.in(id);
  if (turn) turns.stop(turn);
  if (id === shown.thread) open(null);
}

function mark() {
  composer.busy = Boolean(turns.in(shown.thread));
  threads.mark({ current: shown.thread, live: turns.threads });
}

function setTitle(title) {
  heading.textContent = title || "New conversation";
  document.title = title ? `${title} · ${SITE}` : SITE;
}

function showWelcome() {
  conversation.hide();
  loading.hidden = true;
  welcome.hidden = false;
}

/** Goes to a thread; null is a new one. */
async function open(id, { push = true } = {}) {
  const view = { thread: id, messages: [] };
  shown = view;
  if (push) window.history.pushState(null, "", id ? `/?thread=${id}` : "/");
  closeDrawer();
  composer.move(id);
  mark();
  setTitle(id ? threads.title(id) : "");
  const turn = turns.in(id);
  if (id === null) {
    showWelcome();
    if (turn) place(turn);
  } else {
    conversation.hide();
    welcome.hidden = true;
    loading.hidden = false;
    await load(view);
  }
  if (window.matchMedia("(hover: hover)").matches && shown === view) composer.focus();
}

async function load(view) {
  try {
    if (!threads.title(view.thread)) {
      persistently(() => readJson(`/api/threads/${view.thread}`)).then(
        ({ title }) => shown === view && setTitle(title),
        () => {},
      );
    }
    for (let path = `/api/threads/${view.thread}/messages`; path; ) {
      view.lastPage = path;
      const { results, next } = await persistently(() => readPage(path));
      view.messages.push(...results);
      path = next;
    }
  } catch (error) {
    if (shown === view) missing(error);
    return;
  }
  if (shown !== view) return;
  loading.hidden = true;
  view.messages = joined(view.messages, turns.in(view.thread));
  conversation.show(view.messages);
  mark();
  watch(view);
}

function missing(error) {
  open(null);
  composer.showProblem(error.status === 404 ? "This conversation does not exist any more." : error.message);
}

/** An answer that another tab or device receives is read again until it is finished. */
function watch(view) {
  const elsewhere = ({ status, id }) => status === "streaming" && turns.in(view.thread)?.reply.id !== id;
  if (!view.messages.some(elsewhere)) return;
  setTimeout(async () => {
    if (shown !== view) return;
    const { results } = await persistently(() => readPage(view.lastPage));
    for (const message of view.messages.filter(elsewhere)) {
      Object.assign(message, results.find(({ id }) => id === message.id));
      conversation.update(message);
    }
    watch(view);
  }, WATCH_SECONDS * 1000);
}

function listen() {
  document.querySelectorAll("[data-new-thread]").forEach((link) =>
    link.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      open(null);
    }),
  );
  welcome.addEventListener("click", (event) => {
    const { send, fill } = event.target.closest("button")?.dataset ?? {};
    if (send) submit(send);
    if (fill) {
      composer.fill(fill);
      composer.focus();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
  });
  window.addEventListener("popstate", () => open(threadInAddress(), { push: false }));
}

function threadInAddress() {
  return new URLSearchParams(window.location.search).get("thread");
}

listen();
outbox.entries().forEach((entry) => turns.begin(entry));
threads.load().catch((error) => composer.showProblem(error.message));
open(document.body.dataset.thread || null, { push: false });
