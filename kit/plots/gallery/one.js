// One image: the picture with its boxes, and beside it what is known and found of it.
"use strict";

async function one(query, found) {
  const mine = visit;
  const image = images[Number(query.get("view"))];
  if (!image) return fill(nothing());
  const details = await detailsOf(image.number);
  if (mine !== visit) return;
  const number = query.has("draw") ? Number(query.get("draw")) : null;
  const draw = details.draws[number ?? -1];
  const asked = query.has("finding") ? Number(query.get("finding")) : null;
  const marks = draw ? [] : details.findings.filter(([kind]) => asked === null || kind === asked);
  stage = new Stage(image, details, draw, marks, stage?.zoom ?? 1);
  fill(steps(image, found, query), make("div", {class: "one"}, stage.whole, side(image, details, number, asked)));
  stage.draw();
}

function steps(image, found, query) {
  const place = found.indexOf(image);
  const page = Math.floor(Math.max(0, place) / PAGE) || null;
  const back = href({view: null, draw: null, page: query.has("tab") ? query.get("page") : page});
  const link = (to, text, rel, about) => to
    ? make("a", {href: href({view: to.number, draw: null}), "aria-label": about, rel}, text)
    : make("span", {class: "off", "aria-hidden": "true"}, text);
  const where = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${found.length.toLocaleString("en")}`;
  return make("nav", {class: "steps", "aria-label": "Images"}, make("a", {id: "back", href: back}, "‹ All images"),
    make("span", {class: "pager"}, link(found[place - 1], "‹", "prev", "image before"), make("span", {}, where),
      link(place < 0 ? null : found[place + 1], "›", "next", "next image")));
}

// The picture, large, with its boxes; it can be enlarged.
class Stage {
  constructor(image, details, draw, marks, zoom) {
    this.number = image.number;
    this.objects = draw?.objects ?? details.objects;
    this.outlines = draw ? null : details.outlines;
    this.marks = marks;
    this.size = draw?.size ?? image.size;
    this.zoom = zoom;
    this.svg = overlay(this.size);
    this.names = make("span", {class: "names", "aria-hidden": "true"});
    const shown = draw ? lazy(draw.src) : picture(image, "pictures");
    if (shown.tagName === "IMG") shown.alt = draw ? `${image.name}, ${draw.about}` : image.name;
    this.frame = make("div", {class: "frame large"}, shown, this.svg, this.names);
    this.frame.style.aspectRatio = this.size[0] / this.size[1];
    this.frame.style.setProperty("--aspect", this.size[0] / this.size[1]);
    this.scroller = make("div", {class: "scroller", tabindex: "0", role: "group", "aria-label": "picture"}, this.frame);
    this.whole = make("div", {class: "stage"}, this.scroller, this.buttons());
    new ResizeObserver(() => nameChips(this.names, this.objects, this.size)).observe(this.frame);
  }

  buttons() {
    const button = ([text, about, factor]) => make("button",
      {type: "button", title: about, "aria-label": about, onclick: () => this.enlarge(factor)}, text);
    const all = [["−", "smaller", 1 / 1.5], ["whole", "whole image", 0], ["+", "larger", 1.5]];
    return make("div", {class: "zoom"}, ...all.map(button));
  }

  draw() {
    this.frame.style.setProperty("--zoom", this.zoom);
    largeBoxes(this.svg, this.objects, this.outlines, row => this.point(row === null ? [] : [row]));
    const boxes = this.marks.map(([, , , box]) => box).filter(Boolean);
    this.svg.append(...boxes.map(box => make("path", {class: "mark", d: rectangle([0, ...box])})));
    nameChips(this.names, this.objects, this.size);
  }

  // factor: 0 for the whole image. What is in the middle stays there.
  enlarge(factor) {
    const {scrollLeft, scrollTop, clientWidth, clientHeight} = this.scroller;
    const before = this.zoom;
    this.zoom = factor ? Math.min(12, Math.max(1, this.zoom * factor)) : 1;
    this.frame.style.setProperty("--zoom", this.zoom);
    const moved = (start, length) => (start + length / 2) * this.zoom / before - length / 2;
    this.scroller.scrollTo(moved(scrollLeft, clientWidth), moved(scrollTop, clientHeight));
  }

  // At these objects, in the picture and in the list.
  point(rows) {
    for (const each of document.querySelectorAll(".one [data-row]")) {
      each.classList.toggle("pointed", rows.includes(Number(each.dataset.row)));
    }
    this.svg.classList.toggle("pointing", rows.length > 0);
  }
}

// --- beside it ---

function side(image, details, number, asked) {
  const draw = details.draws[number ?? -1];
  const facts = [["Part", index.parts[image.part]], ["Camera", index.cameras[image.camera]],
    ["Size", `${image.size[0]} × ${image.size[1]} px`], ["Image id", String(details.id)], ["Shown", draw?.about]];
  const line = ([name, value]) => value == null ? [] : [make("dt", {}, name), make("dd", {}, value)];
  return make("aside", {"aria-label": "About this image"}, make("h2", {class: "file"}, image.name),
    make("dl", {class: "facts"}, ...facts.flatMap(line)), findingList(details, asked), drawList(image, details, number),
    objectList(draw?.objects ?? details.objects));
}

function findingList(details, asked) {
  if (!details.findings.length) return null;
  return make("section", {}, make("h3", {}, count(details.findings.length, "finding")),
    make("ul", {class: "findings"}, ...details.findings.map(finding => findingItem(finding, details.objects, asked))));
}

function findingItem([kind, detail, ids], objects, asked) {
  const {name, mend, problem} = index.kinds[kind];
  const point = () => stage.point([...objects.keys()].filter(row => ids.includes(objects[row][5])));
  const leave = () => stage.point([]);
  const look = [problem ? "problem" : "", kind === asked ? "asked" : ""].join(" ");
  const quiet = text => text ? make("span", {class: "quiet"}, text) : null;
  const hover = {onpointerenter: point, onpointerleave: leave, onfocus: point, onblur: leave};
  return make("li", {tabindex: "0", class: look, ...hover},
    make("strong", {}, name), detail ? make("span", {}, detail) : null,
    quiet(ids.length ? `annotation ${ids.join(", ")}` : ""), quiet(mend));
}

function drawList(image, details, number) {
  if (!details.draws.length) return null;
  return make("section", {}, make("h3", {}, "As the model gets it"), strip(image, details, number));
}

function objectList(objects) {
  return make("section", {}, make("h3", {}, count(objects.length, "object")),
    make("ul", {class: "objects"}, ...objects.map(objectItem)));
}

function objectItem([label, x, y, width, height, , crowd], row) {
  const place = [width, height, x, y].map(Math.round);
  const text = x === null ? "no box" : `${place[0]} × ${place[1]} px at ${place[2]}, ${place[3]}`;
  const name = index.classes[label].name + (crowd ? " (crowd)" : "");
  const hover = {onpointerenter: () => stage.point([row]), onpointerleave: () => stage.point([])};
  return make("li", {"data-row": row, ...hover}, swatch(label), make("span", {}, name),
    make("span", {class: "quiet number"}, text));
}
