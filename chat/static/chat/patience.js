/** Waiting out a passing failure: one calm banner with a countdown, shared by everybody who waits. */

import { announce } from "./elements.js";

const LONGEST_SECONDS = 30;
const GOOD_NEWS_SECONDS = 2.5;

const banner = document.querySelector("[data-banner]");
const title = document.querySelector("[data-banner-title]");
const text = document.querySelector("[data-banner-text]");
const now = document.querySelector("[data-banner-now]");
const sign = banner.querySelector("use");

let waiters = new Set();
let ends = 0;
let ticking = 0;
let shownFor = null;
let hiding = 0;

now.addEventListener("click", () => goOn());
window.addEventListener("online", () => goOn());

/** Resolves when it is time to try again; rejects when `signal` aborts first. */
export function waitOut(error, { attempt = 1, signal, keepsText = false } = {}) {
  const guess = Math.min(2 ** (attempt - 1), LONGEST_SECONDS / 2);
  const seconds = Math.min(Math.max(error.retryAfter ?? guess, 1), LONGEST_SECONDS);
  return new Promise((resolve, reject) => {
    const waiter = { resolve };
    waiters.add(waiter);
    signal?.addEventListener("abort", () => {
      waiters.delete(waiter);
      if (!waiters.size) hide();
      reject(signal.reason);
    });
    show(error, seconds, keepsText);
  });
}

/** Called after a success: if the banner was up, it says so and goes. */
export function recovered() {
  if (shownFor === null || waiters.size) return;
  clearInterval(ticking);
  shownFor = null;
  banner.dataset.mood = "good";
  sign.setAttribute("href", "#icon-check");
  title.textContent = "All is well again";
  text.textContent = "Nothing was lost.";
  now.hidden = true;
  announce("All is well again. Nothing was lost.");
  hiding = setTimeout(hide, GOOD_NEWS_SECONDS * 1000);
}

/** Repeats `work` until it succeeds or fails in a way that waiting does not mend. */
export async function persistently(work, { signal, keepsText } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const outcome = await work();
      recovered();
      return outcome;
    } catch (error) {
      if (!error.passing) throw error;
      await waitOut(error, { attempt, signal, keepsText });
    }
  }
}

function show(error, seconds, keepsText) {
  const [heading, explanation] = words(error.status, keepsText);
  clearTimeout(hiding);
  banner.dataset.mood = "waiting";
  sign.setAttribute("href", "#icon-clock");
  title.textContent = heading;
  text.textContent = explanation;
  now.hidden = false;
  banner.hidden = false;
  if (shownFor !== error.status) announce(`${heading}. ${explanation}`);
  shownFor = error.status;
  ends = performance.now() + seconds * 1000;
  clearInterval(ticking);
  ticking = setInterval(tick, 250);
  tick();
}

function words(status, keepsText) {
  const safe = keepsText ? "Your message is kept in this browser and is sent again by itself." : "The page goes on by itself.";
  if (status === 429) return ["That was a little fast", safe];
  if (status === 0) return ["The server cannot be reached", safe];
  return ["The database is away for a moment", safe];
}

function tick() {
  const left = Math.ceil((ends - performance.now()) / 1000);
  if (left <= 0) goOn();
  else now.textContent = `Try now (${left})`;
}

function goOn() {
  clearInterval(ticking);
  if (!waiters.size) return;
  now.textContent = "Trying …";
  const released = waiters;
  waiters = new Set();
  for (const { resolve } of released) resolve();
}

function hide() {
  clearInterval(ticking);
  shownFor = null;
  banner.hidden = true;
}
