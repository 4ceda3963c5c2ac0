// Elements from values. No text ever becomes markup, and characters that hide or reorder text are shown as escapes.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "line", "circle", "rect", "g", "text", "polyline", "title"]);
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}\p{Zl}\p{Zp}]/gu;

// A text on one line, as `uno_actors.printable` writes it.
export function visible(text) {
  return String(text).replace(HIDDEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// A text of several lines, such as a traceback.
export function visibleLines(text) {
  return String(text).split("\n").map((line) => visible(line.replace(/\t/g, "    "))).join("\n");
}

// An element. Attributes: `on` has listeners by event, `style` properties by name, `key` tells siblings apart.
export function h(tag, attributes = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") listen(element, value);
    else if (name === "style") for (const [property, each] of Object.entries(value)) element.style.setProperty(property, each);
    else if (name === "key") element.dataset.key = String(value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "open" || name === "selected") {
      element[name] = value;
      if (value === true) element.setAttribute(name, "");
      else if (name === "value") element.setAttribute("value", value);
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
  const lines = tag === "pre";
  add(element, children, lines);
  return element;
}

function add(element, children, lines) {
  for (const child of children) {
    if (child === undefined || child === null || child === false) continue;
    if (Array.isArray(child)) add(element, child, lines);
    else if (child instanceof Node) element.append(child);
    else element.append(lines ? visibleLines(child) : visible(child));
  }
}

function listen(element, listeners) {
  element.listeners ??= {};
  for (const [type, listener] of Object.entries(listeners)) {
    if (!listener) continue;
    if (!(type in element.listeners)) element.addEventListener(type, dispatch);
    element.listeners[type] = listener;
  }
}

function dispatch(event) {
  event.currentTarget.listeners?.[event.type]?.(event);
}

// Make `old` what `wanted` is, and keep its elements where they are alike: focus, selection and scrolling stay.
export function morph(old, ...wanted) {
  const target = document.createDocumentFragment();
  add(target, wanted, false);
  children(old, target);
}

function children(old, wanted) {
  const keyed = new Map();
  for (const each of old.children) if (each.dataset?.key) keyed.set(each.dataset.key, each);
  let place = old.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = next.dataset?.key;
    const found = key ? keyed.get(key) : undefined;
    if (found && found !== place) {
      old.insertBefore(found, place);
      same(found, next);
    } else if (place && isLike(place, next)) {
      same(place, next);
      place = place.nextSibling;
    } else if (found) {
      same(found, next);
      place = found.nextSibling;
    } else old.insertBefore(next, place);
  }
  while (place) {
    const rest = place.nextSibling;
    place.remove();
    place = rest;
  }
}

function isLike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.dataset?.key ?? "") === (b.dataset?.key ?? "");
}

function same(old, wanted) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name, value } of wanted.attributes)
    if (name !== "style" && name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes])
    if (name !== "style" && name !== "open" && !wanted.hasAttribute(name)) old.removeAttribute(name);
  if (old.style && old.style.cssText !== wanted.style.cssText) old.style.cssText = wanted.style.cssText;
  if ("disabled" in old) old.disabled = wanted.disabled;
  if (old.type === "checkbox" || old.type === "radio") old.checked = wanted.checked;
  else if (old.tagName === "INPUT" && old !== document.activeElement && old.value !== wanted.value) old.value = wanted.value;
  if (wanted.listeners) listen(old, wanted.listeners);
  for (const type of Object.keys(old.listeners ?? {})) if (!wanted.listeners?.[type]) delete old.listeners[type];
  if (!old.dataset?.own) children(old, wanted); // an element with data-own cares for what is in it
}

// A dialog. It resolves to what `close` is called with; Escape resolves to undefined.
export function ask(title, fill) {
  return new Promise((resolve) => {
    let answer;
    const close = (value) => { answer = value; dialog.close(); };
    const dialog = h("dialog", { "aria-label": title, on: { close: () => { dialog.remove(); resolve(answer); } } },
      h("h2", {}, title), fill(close));
    document.body.append(dialog);
    dialog.showModal();
  });
}
