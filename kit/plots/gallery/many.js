// Many images: tiles, images with their draws, and the table of findings.
"use strict";

const PAGE = 48;
const ROWS = 12; // of images with their draws

const short = name => name.split("/").pop();
const lazy = source => make("img", {src: source, alt: "", loading: "lazy", decoding: "async"});

function picture(image, folder) {
  return image.fault ? make("span", {class: "fault"}, image.fault) : lazy(`${folder}/${image.number}.jpg`);
}

function fill(...children) {
  main.replaceChildren(...children.filter(Boolean));
}

function nothing() {
  return make("p", {class: "nothing"}, "No image fits. ", make("a", {href: "#"}, "Show all"));
}

// --- pages ---

function pager(page, pages) {
  if (pages < 2) return null;
  const text = `Page ${(page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
  return make("nav", {class: "pager", "aria-label": "Pages"}, turner(page > 0, page - 1, "‹", "page before"),
    make("span", {}, text), turner(page < pages - 1, page + 1, "›", "next page"));
}

function turner(there, page, text, about) {
  if (!there) return make("span", {class: "off", "aria-hidden": "true"}, text);
  return make("a", {href: href({page: page || null}), "aria-label": about}, text);
}

function pageOf(query, found, length) {
  const pages = Math.max(1, Math.ceil(found.length / length));
  const page = Math.min(pages - 1, Math.max(0, Number(query.get("page")) || 0));
  return [found.slice(page * length, (page + 1) * length), pager(page, pages)];
}

// --- tiles ---

function grid(query, found) {
  const [shown, pages] = pageOf(query, found, PAGE);
  if (!found.length) return fill(nothing());
  return fill(make("div", {class: "grid"}, ...shown.map(tile)), pages);
}

function tile(image) {
  const aspect = Math.min(4, Math.max(0.4, image.size[0] / image.size[1]));
  const boxes = image.fault ? null : small(image, image.size);
  const frame = make("span", {class: "frame"}, picture(image, "thumbnails"), boxes);
  const about = make("span", {class: "about"}, make("span", {class: "name"}, short(image.name)), badge(image.kinds),
    make("span", {class: "quiet"}, count(image.objects, "object")));
  const link = make("a", {class: "tile", href: href({view: image.number}), title: image.name}, frame, about);
  link.style.flex = `${aspect} 1 ${aspect * 190}px`; // rows of one height
  frame.style.aspectRatio = aspect;
  return link;
}

function badge(kinds) {
  if (!kinds.length) return null;
  const title = kinds.map(kind => index.kinds[kind].name).join(", ");
  return make("span", {class: "badge", title}, count(kinds.length, "finding"));
}

function small(image, size, objects) {
  const svg = overlay(size);
  svg.classList.add("small");
  svg.draw = async () => smallBoxes(svg, objects ?? (await detailsOf(image.number)).objects);
  svg.draw();
  return svg;
}

// --- images with their draws ---

async function draws(query, found) {
  const mine = visit;
  const [shown, pages] = pageOf(query, found, ROWS);
  const details = await Promise.all(shown.map(image => detailsOf(image.number)));
  if (mine !== visit) return;
  const section = (image, k) => make("section", {class: "draws"},
    make("h2", {}, make("a", {href: href({view: image.number})}, image.name)), strip(image, details[k]));
  if (found.length) fill(make("p", {class: "lead"}, index.drawn), ...shown.map(section), pages);
  else fill(nothing());
}

function strip(image, details, current) {
  const stored = {size: image.size, about: "as stored", objects: details.objects};
  const tileOf = (draw, k) => drawTile(image, k, draw, lazy(draw.src), k === current);
  return make("div", {class: "strip"}, drawTile(image, null, stored, picture(image, "thumbnails"), current === null),
    ...details.draws.map(tileOf));
}

function drawTile(image, draw, {size, about, objects}, shown, isCurrent) {
  const frame = make("span", {class: "frame"}, shown, small(image, size, objects));
  frame.style.aspectRatio = size[0] / size[1];
  const to = href({view: image.number, draw});
  return make("a", {class: "tile", href: to, title: about, "aria-current": isCurrent ? "true" : null}, frame,
    make("span", {class: "about quiet"}, about));
}

// --- findings ---

function findings() {
  const headings = [["Finding"], [""], ["How often", "number"], ["Images", "number"], ["What to do"]];
  const head = make("tr", {}, ...headings.map(([text, kind]) => make("th", {scope: "col", class: kind}, text)));
  const {kinds} = index;
  const first = (a, b) => kinds[b].problem - kinds[a].problem || kinds[b].count - kinds[a].count;
  const rows = [...kinds.keys()].sort(first).map(findingRow);
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  fill(make("div", {class: "scroll"}, table), loose());
}

function findingRow(number) {
  const {name, problem, count, images, mend} = index.kinds[number];
  const link = images ? make("a", {href: `#finding=${number}`}, name) : name;
  const weight = problem ? make("span", {class: "badge"}, "problem") : make("span", {class: "quiet"}, "to know");
  const amount = value => make("td", {class: "number"}, value.toLocaleString("en"));
  const text = (...children) => make("td", {}, ...children);
  return make("tr", {}, text(link), text(weight), amount(count), amount(images), text(mend));
}

function loose() {
  if (!index.loose.length) return null;
  const list = texts => make("ul", {}, ...texts.map(text => make("li", {}, text)));
  const kind = ([name, texts]) => make("details", {}, make("summary", {}, `${name} (${texts.length})`), list(texts));
  return make("section", {class: "loose"}, make("h2", {}, "Of no image that is shown here"), ...index.loose.map(kind));
}
