/** Small makers of elements, so that no module builds HTML from text. */

const SVG = "http://www.w3.org/2000/svg";

/** `element("p", { class: "note", text: "…" }, child, …)` */
export function element(tag, { text, dataset, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  Object.assign(made.dataset, dataset);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

export function icon(name, extra = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon ${extra}`.trim());
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

export function iconButton(name, label, { dataset, ...attributes } = {}) {
  return element(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, dataset, ...attributes },
    icon(name),
  );
}

const announcer = document.querySelector("[data-announcer]");

/** Tells a screen reader, politely; said again only when the words differ. */
export function announce(words) {
  announcer.textContent = words;
}
