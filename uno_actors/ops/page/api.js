// Questions to the API, and streams of its answers.

import { h } from "./dom.js";

const BASE = "api/";

function query(given = {}) {
  const pairs = Object.entries(given).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
}

async function answered(answer) {
  if (answer.status === 401) {
    location.assign("login");
    throw new Error("not logged in");
  }
  const found = await answer.json().catch(() => ({ detail: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(found.detail);
  return found;
}

export async function get(what, given) {
  return answered(await fetch(BASE + what + query(given)));
}

export async function post(what, given) {
  return answered(await fetch(BASE + what, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Uno-Actors": "page" },
    body: JSON.stringify(given),
  }));
}

// Whether answers arrive: "live", "waiting" or "ended"; the header shows it.
export const connection = { state: "waiting", changed: () => {} };

function connected(state) {
  if (connection.state !== state) {
    connection.state = state;
    connection.changed();
  }
}

// Call `show` with each new answer, until the returned function is called.
// A page that is not seen follows nothing: a browser has six connections to a server, for all pages of it, also for those
// that it keeps to go back to.
export function follow(what, given, show, failed) {
  let source, timer, isOver = false;
  const open = () => {
    if (document.hidden) return;
    source = new EventSource(`${BASE}${what}/events${query(given)}`);
    source.onmessage = (event) => { connected("live"); show(JSON.parse(event.data)); };
    source.addEventListener("problem", (event) => { failed?.(new Error(JSON.parse(event.data).detail)); });
    source.addEventListener("end", () => { connected("ended"); again(3000); });
    source.onerror = async () => {
      connected("waiting");
      again(2000);
      try { await get(what, { ...given, ...(what === "now" ? { last: 1 } : {}) }); } catch (error) { if (!isOver) failed?.(error); }
    };
  };
  const close = () => { clearTimeout(timer); source?.close(); };
  const again = (milliseconds) => {
    close();
    if (!isOver) timer = setTimeout(open, milliseconds);
  };
  const seen = () => { close(); open(); };
  document.addEventListener("visibilitychange", seen);
  open();
  return () => { isOver = true; document.removeEventListener("visibilitychange", seen); close(); };
}

// A line that says what was done, or why not.
export function note(text, kind = "good") {
  const place = document.getElementById("notes");
  const line = h("p", { class: `note ${kind}` }, text);
  place.append(line);
  setTimeout(() => line.remove(), kind === "bad" ? 12000 : 5000);
}

export async function attempt(work, done) {
  try {
    const found = await work();
    if (done) note(typeof done === "function" ? done(found) : done);
    return found;
  } catch (error) {
    note(error.message, "bad");
    return undefined;
  }
}
