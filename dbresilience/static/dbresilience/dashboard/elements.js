// Elements without innerHTML: what comes from the server is text.

export function element(name, attributes = {}, children = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Replaces what is shown only if it has changed, so that a selection or a focus in it stays.
export function renew(place, children) {
  const draft = place.cloneNode(false);
  draft.append(...children);
  if (draft.innerHTML !== place.innerHTML) place.replaceChildren(...draft.childNodes);
}

// Rows are arrays of texts or elements; the first cell heads its row.
export function fill(table, headings, rows, empty) {
  const cell = (content, index) => element(index ? "td" : "th", index ? {} : { scope: "row" }, [content].flat());
  const body = rows.length
    ? rows.map((row) => element("tr", row.attributes ?? {}, row.map(cell)))
    : [element("tr", {}, [element("td", { colspan: headings.length }, [empty])])];
  renew(table, [
    element("thead", {}, [element("tr", {}, headings.map((text) => element("th", { scope: "col" }, [text])))]),
    element("tbody", {}, body),
  ]);
}
