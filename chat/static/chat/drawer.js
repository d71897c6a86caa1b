/** In narrow windows the list of conversations is a drawer over the page. */

const sidebar = document.querySelector("#sidebar");
const main = document.querySelector("#main");
const veil = document.querySelector("[data-veil]");
const opener = document.querySelector("[data-drawer-open]");
const closer = document.querySelector("[data-drawer-close]");

opener.addEventListener("click", () => setOpen(true));
closer.addEventListener("click", () => closeDrawer({ giveFocus: true }));
veil.addEventListener("click", () => closeDrawer({ giveFocus: true }));
sidebar.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !isOpen()) return;
  event.stopPropagation();
  closeDrawer({ giveFocus: true });
});
window.matchMedia("(min-width: 52.01rem)").addEventListener("change", () => closeDrawer());

export function closeDrawer({ giveFocus = false } = {}) {
  if (!isOpen()) return;
  setOpen(false);
  if (giveFocus) opener.focus();
}

function isOpen() {
  return sidebar.dataset.open === "true";
}

function setOpen(open) {
  sidebar.dataset.open = String(open);
  opener.setAttribute("aria-expanded", String(open));
  veil.hidden = !open;
  main.inert = open;
  if (open) closer.focus();
}
