// Making elements. Whatever comes from the server becomes text, never markup: nothing here parses HTML, and the page's
// policy (trusted types) forbids it to everything else.

const SVG = "http://www.w3.org/2000/svg";

/** `attributes`: false and null leave one out, true sets it empty. `children`: nodes, texts, arrays of them, null. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** The same for SVG. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Number.POSITIVE_INFINITY)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** A name, owner or value from elsewhere: kept apart, so that it cannot turn the text around it. */
export const foreign = (text) => h("bdi", {}, text);

export const lockLink = (name) => h("a", { href: lockHref(name) }, foreign(name));

export const lockHref = (name) => `#/lock?name=${encodeURIComponent(name)}`;

/**
 * Makes the children of `root` like `nodes`, and changes only what differs: the focus and the scroll position stay.
 * Elements with a data-key are kept with their key, others with their place.
 */
export function render(root, nodes) {
  const wanted = nodes.flat(Number.POSITIVE_INFINITY).filter((node) => node !== null && node !== false);
  patchChildren(
    root,
    wanted.map((node) => (node instanceof Node ? node : document.createTextNode(String(node)))),
  );
}

const keyOf = (node) => node.dataset?.key;

function patchChildren(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (keyOf(child) !== undefined) keyed.set(keyOf(child), child);
  let place = parent.firstChild;
  for (const node of wanted) {
    const key = keyOf(node);
    const old = key === undefined ? place : keyed.get(key);
    if (old !== null && old !== undefined && keyOf(old) === key && alike(old, node)) {
      if (old === place) place = place.nextSibling;
      else parent.insertBefore(old, place);
      patch(old, node);
    } else parent.insertBefore(node, place);
  }
  while (place !== null) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName;

function patch(old, node) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of node.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  patchChildren(old, [...node.childNodes]);
}
