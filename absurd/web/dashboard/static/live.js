// Keeps a page as it would be if it were loaded now.  When something happens, the page is fetched again and what differs
// in its parts marked `data-live` is put in, element by element: focus, scrolling and what was typed stay as they are.
"use strict";

const EVENTS = "/api/v1/events";
const SHORTEST = 700; // ms between two fetches
const IDLE = 10000; // ms without any event after which ages are brought up to date
const POLL = 2500; // ms between fetches where there are no events

const button = document.getElementById("live");
let on = sessionStorage.getItem("live") !== "off";
let source = null;
let timer = 0;
let last = 0;
let busy = false;

const parts = () => document.querySelectorAll("[data-live]");

function morph(here, there) {
  if (here.isEqualNode(there)) return;
  if (here.nodeType !== there.nodeType || here.nodeName !== there.nodeName || (here.id || "") !== (there.id || "")) {
    here.replaceWith(there.cloneNode(true));
    return;
  }
  if (here.nodeType !== Node.ELEMENT_NODE) {
    if (here.data !== there.data) here.data = there.data;
    return;
  }
  for (const { name } of [...here.attributes]) {
    if (!there.hasAttribute(name) && !(name === "open" && here.nodeName === "DETAILS")) here.removeAttribute(name);
  }
  for (const { name, value } of there.attributes) if (here.getAttribute(name) !== value) here.setAttribute(name, value);
  const known = new Map([...here.children].filter((each) => each.id).map((each) => [each.id, each]));
  let place = here.firstChild;
  for (const next of there.childNodes) {
    const same = next.id && known.get(next.id);
    if (same && same !== place) here.insertBefore(same, place);
    else if (!place || (place.id && place.id !== next.id && [...there.children].some((each) => each.id === place.id))) {
      here.insertBefore(next.cloneNode(true), place);
      continue;
    }
    const current = same || place;
    place = current.nextSibling;
    morph(current, next);
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

async function refresh() {
  if (busy || !on || document.hidden) return;
  busy = true;
  last = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname === "/login") location.reload();
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts()) {
      const next = page.getElementById(part.id);
      if (next) morph(part, next);
    }
    for (const each of document.querySelectorAll(".log")) each.scrollTop = each.scrollHeight;
  } catch {
    // The server is away: the next round tries again.
  } finally {
    busy = false;
    plan(source && source.readyState === EventSource.OPEN ? IDLE : POLL);
  }
}

function plan(wait) {
  clearTimeout(timer);
  timer = setTimeout(refresh, Math.max(wait, SHORTEST - (Date.now() - last)));
}

function listen() {
  if (source) source.close();
  source = on ? new EventSource(EVENTS) : null;
  if (!source) return;
  const happened = () => plan(0);
  source.onmessage = happened;
  for (const topic of ["task", "workflow", "worker", "queue", "product", "reset"]) source.addEventListener(topic, happened);
  source.addEventListener("session", (event) => JSON.parse(event.data).state === "told" || happened()); // no page shows what is told
  plan(POLL);
}

function show() {
  button.hidden = false;
  button.setAttribute("aria-pressed", String(on));
}

if (button && parts().length) {
  button.addEventListener("click", () => {
    on = !on;
    sessionStorage.setItem("live", on ? "on" : "off");
    show();
    listen();
    if (on) refresh();
  });
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  addEventListener("pagehide", () => source && source.close());
  show();
  listen();
}
for (const each of document.querySelectorAll(".log")) each.scrollTop = each.scrollHeight;
const here = document.querySelector("nav [aria-current]"); // on a phone the menu is wider than the screen
if (here) here.closest("nav").scrollLeft = here.offsetLeft - here.closest("nav").offsetLeft - 24;
