// The address after the #, from which every view follows, and the head of the page: filters and what is drawn.
"use strict";

const FIELDS = ["name", "part", "camera", "size", "classes", "kinds", "objects", "draws", "fault"];
const TABS = {images: "Images", draws: "As the model gets them", findings: "Findings"};
const FILTERS = ["search", "part", "camera", "class", "finding"];
const ELSEWHERE = {page: null, view: null, draw: null};

const named = row => Object.fromEntries(FIELDS.map((field, k) => [field, row[k]]));
const images = index.images.map((row, number) => ({number, ...named(row)}));
const main = document.getElementById("main");

// --- the address ---

const address = () => new URLSearchParams(location.hash.slice(1));

function href(changes) {
  const next = address();
  for (const [name, value] of Object.entries(changes)) {
    if (value == null || value === "") next.delete(name);
    else next.set(name, value);
  }
  return `#${next}`;
}

function go(changes) {
  location.hash = href(changes);
}

function chosen(query) {
  const text = (query.get("search") ?? "").toLowerCase();
  const is = (name, value) => !query.has(name) || value === Number(query.get(name));
  const has = (name, values) => !query.has(name) || values.includes(Number(query.get(name)));
  const isDrawn = image => query.get("tab") !== "draws" || image.draws > 0;
  return images.filter(image => is("part", image.part) && is("camera", image.camera) && has("class", image.classes)
    && has("finding", image.kinds) && isDrawn(image) && image.name.toLowerCase().includes(text));
}

// --- filters ---

function filters() {
  const option = (name, amount) => (each, k) => [k, `${name(each)} (${amount(each, k)})`, amount(each, k)];
  const options = (entries, name, amount) => entries.map(option(name, amount));
  const holding = field => (each, k) => images.filter(image => image[field] === k).length;
  const parts = [
    searchField(),
    select("part", "Part", options(index.parts, part => part, holding("part")), 2),
    select("camera", "Camera", options(index.cameras, camera => camera, holding("camera")), 2),
    select("class", "Class", options(index.classes, each => each.name, each => each.images), 1),
    select("finding", "Finding", options(index.kinds, kind => kind.name, kind => kind.images), 1),
    make("button", {type: "button", id: "clear", onclick: clear}, "Clear"),
    make("output", {id: "amount", "aria-live": "polite"}),
  ];
  const form = document.getElementById("filters");
  form.append(...parts.filter(Boolean));
  form.addEventListener("submit", event => event.preventDefault());
}

function searchField() {
  const search = event => location.replace(href({search: event.target.value, ...ELSEWHERE})); // no history of letters
  const field = {type: "search", name: "search", placeholder: "file name", spellcheck: "false", oninput: search};
  return make("label", {class: "wide"}, make("span", {}, "Search"), make("input", field));
}

function select(name, about, options, least) {
  const used = options.filter(([, , amount]) => amount > 0);
  if (used.length < least) return null;
  const change = event => go({[name]: event.target.value, ...ELSEWHERE});
  const entries = [["", "all"], ...used].map(([value, text]) => make("option", {value}, text));
  return make("label", {}, make("span", {}, about), make("select", {name, onchange: change}, ...entries));
}

function clear() {
  go({...Object.fromEntries(FILTERS.map(name => [name, null])), ...ELSEWHERE});
}

// --- what is drawn ---

function legend() {
  const kinds = [["boxes", "Boxes"], ["names", "Names"], ...(index.outlines ? [["outlines", "Outlines"]] : [])];
  const kind = ([name, text]) => toggle({"data-shows": name}, () => flip(name), text);
  const classes = [...index.classes.keys()].filter(label => index.classes[label].objects);
  const quiet = (text, away) => make("button", {type: "button", class: "quiet", onclick: () => hideAll(away)}, text);
  document.getElementById("legend").append(
    make("span", {class: "group"}, ...kinds.map(kind)),
    make("span", {class: "group classes"}, ...classes.map(classToggle)),
    make("span", {class: "group"}, ...(classes.length > 1 ? [quiet("all", false), quiet("none", true)] : [])),
  );
}

function toggle(attributes, act, ...children) {
  const button = {type: "button", class: "toggle", "aria-pressed": "true", onclick: act};
  return make("button", {...button, ...attributes}, ...children);
}

function classToggle(label) {
  const {name, objects, images} = index.classes[label];
  const title = `${name}: ${count(objects, "object")} on ${count(images, "image")}`;
  return toggle({"data-class": label, title}, () => hide(label), swatch(label), make("span", {}, name));
}

function flip(name) {
  shows[name] = !shows[name];
  redraw();
}

function hide(label) {
  if (!shows.hidden.delete(label)) shows.hidden.add(label);
  redraw();
}

function hideAll(away) {
  shows.hidden = new Set(away ? index.classes.keys() : []);
  redraw();
}

function redraw() {
  for (const button of document.querySelectorAll("#legend .toggle")) {
    const {shows: kind, class: label} = button.dataset;
    button.setAttribute("aria-pressed", String(kind ? shows[kind] : !shows.hidden.has(Number(label))));
  }
  for (const svg of document.querySelectorAll("svg.small")) svg.draw();
  stage?.draw();
}

// --- the head follows the address ---

function follow(query, found) {
  for (const field of document.querySelectorAll("#filters [name]")) {
    if (field !== document.activeElement || field.type !== "search") field.value = query.get(field.name) ?? "";
  }
  document.getElementById("tabs").replaceChildren(...tabs(query.get("tab") ?? "images"));
  const filtered = FILTERS.some(name => query.has(name));
  document.getElementById("clear").hidden = !filtered;
  const all = count(images.length, "image");
  document.getElementById("amount").textContent = filtered ? `${found.length.toLocaleString("en")} of ${all}`
    : count(found.length, "image");
}

function tabs(current) {
  const amounts = {images: 1, draws: index.draws, findings: index.kinds.length};
  const link = name => {
    const to = href({tab: name === "images" ? null : name, ...ELSEWHERE});
    return make("a", {href: to, "aria-current": name === current ? "page" : null}, TABS[name]);
  };
  return Object.keys(TABS).filter(name => amounts[name]).map(link);
}
