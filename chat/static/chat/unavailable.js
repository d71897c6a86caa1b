/** The page shown while the database is away: counts down, looks quietly, and returns when there is something to return to. */

const card = document.querySelector("[data-retry-after]");
const words = document.querySelector("[data-countdown]");
const returns = card.dataset.reload === "true";

document.querySelector("[data-again]")?.addEventListener("click", (event) => {
  event.preventDefault();
  window.location.reload();
});
document.querySelector("[data-back]")?.addEventListener("click", () => window.history.back());

countDown(Number(card.dataset.retryAfter));

function countDown(seconds) {
  const ends = performance.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((ends - performance.now()) / 1000);
    if (left > 0) {
      words.textContent = returns ? `Looking again in ${left} s` : `Best tried again in ${left} s`;
      return;
    }
    clearInterval(ticking);
    words.textContent = returns ? "Looking …" : "Now is a good time";
    if (returns) look(seconds);
  };
  const ticking = setInterval(tick, 250);
  tick();
}

/** Asks for the headers alone, so that the page does not flicker while the database is still away. */
async function look(seconds) {
  try {
    const response = await fetch(window.location.href, { method: "HEAD", headers: { Accept: "text/html" } });
    if (response.status !== 503) {
      window.location.reload();
      return;
    }
    countDown(Number(response.headers.get("Retry-After")) || seconds);
  } catch {
    countDown(seconds);
  }
}
