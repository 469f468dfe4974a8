// What is shown, the keys, light and dark.
"use strict";

let visit = 0; // what comes late for an older view is dropped
let stage = null; // of the image that is open

function show() {
  visit += 1;
  const query = address();
  const found = chosen(query);
  follow(query, found);
  document.body.dataset.shows = query.has("view") ? "one" : query.get("tab") ?? "images";
  if (query.has("view")) return one(query, found);
  const left = stage?.number;
  stage = null;
  ({draws, findings}[query.get("tab")] ?? grid)(query, found);
  if (left !== undefined) [...main.querySelectorAll(".tile")].find(each => each.hash.includes(`view=${left}`))?.focus();
}

// --- keys ---

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("keys").open) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = (address().has("view") ? ON_ONE : ON_MANY)[event.key] ?? ALWAYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
}

const ask = () => document.getElementById("keys").showModal();
const press = selector => document.querySelector(selector)?.click();

const ALWAYS = {
  "/": () => document.querySelector("[name=search]").focus(), "?": ask,
  b: () => flip("boxes"), n: () => flip("names"), o: () => flip("outlines"), t: turn,
};
const ON_ONE = {
  ArrowLeft: () => press(".steps [rel=prev]"), ArrowRight: () => press(".steps [rel=next]"),
  Escape: () => press("#back"), d: nextDraw,
  "+": () => stage?.enlarge(1.5), "=": () => stage?.enlarge(1.5), "-": () => stage?.enlarge(1 / 1.5),
  0: () => stage?.enlarge(0),
};
const ON_MANY = {
  "[": () => press("[aria-label='page before']"), "]": () => press("[aria-label='next page']"),
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => jump(-1), ArrowDown: () => jump(1),
};

function step(by) {
  const tiles = [...main.querySelectorAll(".tile")];
  const place = tiles.indexOf(document.activeElement);
  tiles[place < 0 ? 0 : Math.min(tiles.length - 1, Math.max(0, place + by))]?.focus();
}

// To the nearest tile of the next row.
function jump(direction) {
  const now = document.activeElement;
  if (!now.matches("main .tile")) return step(1);
  const from = now.getBoundingClientRect();
  const far = to => Math.abs(to.top - from.top) * 10 + Math.abs(to.left + to.width / 2 - from.left - from.width / 2);
  const others = [...main.querySelectorAll(".tile")].map(tile => [tile, tile.getBoundingClientRect()])
    .filter(([, to]) => (to.top - from.top) * direction > 8);
  return others.sort((a, b) => far(a[1]) - far(b[1]))[0]?.[0].focus();
}

async function nextDraw() {
  const query = address();
  const {draws} = await detailsOf(Number(query.get("view")));
  const next = query.has("draw") ? Number(query.get("draw")) + 1 : 0;
  go({draw: next < draws.length ? next : null});
}

// --- light and dark ---

const dark = matchMedia("(prefers-color-scheme: dark)");
const own = () => dark.matches ? "dark" : "light";

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

function turn() {
  paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  try { localStorage.setItem("gallery-theme", document.documentElement.dataset.theme); } catch { /* no memory here */ }
}

function remembered() {
  try { return localStorage.getItem("gallery-theme"); } catch { return null; }
}

// --- begin ---

document.title = `${index.title}: gallery`;
document.getElementById("title").textContent = index.title;
filters();
legend();
paint(remembered() ?? own());
dark.addEventListener("change", () => paint(remembered() ?? own()));
document.getElementById("theme").addEventListener("click", turn);
document.getElementById("help").addEventListener("click", ask);
document.getElementById("skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
document.addEventListener("keydown", key);
window.addEventListener("hashchange", show);
const head = document.querySelector("header");
const measure = () => document.documentElement.style.setProperty("--head", `${head.offsetHeight}px`);
new ResizeObserver(measure).observe(head);
show();
