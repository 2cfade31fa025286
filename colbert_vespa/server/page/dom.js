// Makes elements. Every text becomes a text node: nothing here, or anywhere on the page, reads markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `el("p.note", {title: "x", onclick: f, data: {id: "7"}}, "text", child, [more])`. */
export function el(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) set(node, key, value);
  return add(node, children);
}

function set(node, key, value) {
  if (value === undefined || value === null || value === false) return;
  if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
  else if (key === "data") Object.assign(node.dataset, value);
  else if (key === "vars") for (const [name, one] of Object.entries(value)) node.style.setProperty(`--${name}`, String(one));
  else if (key in node && typeof value !== "string") node[key] = value;
  else node.setAttribute(key, value === true ? "" : String(value));
}

/** Appends texts and nodes; lists are flattened and null is left out. */
export function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

export function replace(node, ...children) {
  node.replaceChildren();
  return add(node, children);
}

export const byId = (id) => document.getElementById(id);

/** A text of somebody else's: its direction is its own and does not reach its neighbours. */
export const foreign = (text, name = "bdi") => el(name, { dir: "auto" }, text);

/** One of the icons of icons.svg's kind: paths on a grid of 16. */
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", width: "16", height: "16", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  svg.classList.add("icon");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

export function button(label, onclick, name = "button.button", attributes = {}) {
  return el(name, { type: "button", onclick, ...attributes }, label);
}

/** Says a thing to screen readers, once. */
export function announce(text) {
  const place = byId("announcer");
  if (place.textContent !== text) place.textContent = text;
}
