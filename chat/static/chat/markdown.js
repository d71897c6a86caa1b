/** Markdown to DOM: always sanitised, only the blocks that changed, code with a copy button. */

import { Marked } from "./vendor/marked.js";
import "./vendor/purify.js";

const { DOMPurify } = globalThis;
const HARMLESS_HTML = /^<\/?(?:b|br|del|em|i|kbd|p|s|strong|sub|sup|u)\s*\/?>$/i;
// Pictures would be fetched from other hosts; a link leaves that to the reader. HTML beyond the harmless is shown as
// the text it is, so that the browser is not even asked to look at its handlers.
const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    image({ href, text }) {
      const link = document.createElement("a");
      link.href = href;
      link.textContent = text || href;
      return link.outerHTML;
    },
    html({ text }) {
      if (HARMLESS_HTML.test(text.trim())) return text;
      const shown = document.createElement("span");
      shown.textContent = text;
      return shown.innerHTML;
    },
  },
});
const ALLOWED = {
  ALLOWED_TAGS: [
    "p", "br", "strong", "em", "del", "code", "pre", "blockquote", "hr", "ul", "ol", "li", "a",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "input",
    "b", "i", "kbd", "s", "sub", "sup", "u",
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align", "class", "type", "checked", "disabled"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#|\/(?!\/))/i,
  // The pattern for addresses would otherwise be asked about these too.
  ADD_URI_SAFE_ATTR: ["align", "checked", "disabled", "start", "type"],
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const sources = new WeakMap();

/** Brings `container` in line with `text`; blocks that did not change keep their elements. */
export function renderMarkdown(container, text, { afresh = false } = {}) {
  const tokens = marked.lexer(text);
  const blocks = tokens.filter(({ type }) => type !== "space" && type !== "def");
  blocks.forEach((token, position) => {
    const present = container.children[position];
    if (!afresh && present && sources.get(present) === token.raw) return;
    const element = document.createElement("div");
    element.className = "block";
    element.append(toFragment(token, tokens.links));
    sources.set(element, token.raw);
    if (present) present.replaceWith(element);
    else container.append(element);
  });
  while (container.children.length > blocks.length) container.lastElementChild.remove();
}

function toFragment(token, links) {
  const html = marked.parser(Object.assign([token], { links }));
  const fragment = DOMPurify.sanitize(html, ALLOWED);
  fragment.querySelectorAll("[class]").forEach((element) => {
    if (!element.className.startsWith("language-")) element.removeAttribute("class");
  });
  fragment.querySelectorAll("a").forEach((link) => {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  });
  fragment.querySelectorAll("input").forEach((input) => {
    if (input.type !== "checkbox") input.remove();
    else input.disabled = true;
  });
  fragment.querySelectorAll("table").forEach((table) => {
    const frame = document.createElement("div");
    frame.className = "table-frame";
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  });
  fragment.querySelectorAll("pre").forEach((pre) => pre.replaceWith(codeFrame(pre)));
  return fragment;
}

function codeFrame(pre) {
  const language = pre.querySelector("code")?.className.match(/language-([\w+#-]+)/)?.[1] ?? "text";
  const figure = document.createElement("figure");
  figure.className = "code-frame";
  const caption = document.createElement("figcaption");
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "button";
  copy.dataset.copyCode = "";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", `Copy the ${language} code`);
  caption.append(language, copy);
  const scrollable = document.createElement("pre");
  scrollable.tabIndex = 0;
  scrollable.append(...pre.childNodes);
  figure.append(caption, scrollable);
  return figure;
}
