// Elements, the details of images as they are asked for, and boxes over pictures. Texts are texts, never HTML.
"use strict";

const index = window.galleryIndex;
const shows = {boxes: true, names: true, outlines: false, hidden: new Set()}; // hidden: classes

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "g", "rect"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child != null));
  return element;
}

const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

// --- details: one file for each hundred images, read when the first of them is shown ---

const chunks = new Map();
const waiting = new Map();

window.galleryChunk = (key, entries) => waiting.get(key)(entries);

async function detailsOf(number) {
  const key = Math.floor(number / index.chunk);
  if (!chunks.has(key)) {
    chunks.set(key, new Promise((resolve, reject) => {
      waiting.set(key, resolve);
      document.head.append(make("script", {src: `data/${key}.js`, onerror: () => reject(new Error(`data/${key}.js`))}));
    }));
  }
  return (await chunks.get(key))[number - key * index.chunk];
}

// --- boxes: [class, x, y, width, height, id, crowd] in pixels of the stored picture ---

const rectangle = ([, x, y, width, height]) => `M${x} ${y}h${width}v${height}h${-width}z`;
const ring = points => `M${points.join(" ")}z`;

function isShown(object) {
  return object[1] !== null && shows.boxes && !shows.hidden.has(object[0]);
}

function overlay(size) {
  return make("svg", {viewBox: `0 0 ${size[0]} ${size[1]}`, preserveAspectRatio: "xMidYMid meet", "aria-hidden": true});
}

// One path a class: light enough for a page full of crowded pictures.
function smallBoxes(svg, objects) {
  const shown = objects.filter(isShown);
  const paths = Map.groupBy ? Map.groupBy(shown, object => object[0]) : grouped(shown);
  svg.replaceChildren(make("path", {class: "rim", d: shown.map(rectangle).join("")}));
  for (const [label, own] of paths) {
    svg.append(make("path", {class: "box", d: own.map(rectangle).join(""), stroke: index.classes[label].colour}));
  }
}

function grouped(objects) {
  const groups = new Map();
  for (const object of objects) groups.set(object[0], [...(groups.get(object[0]) ?? []), object]);
  return groups;
}

function largeBoxes(svg, objects, outlines, hover) {
  svg.replaceChildren();
  const order = [...objects.keys()].sort((a, b) => objects[b][3] * objects[b][4] - objects[a][3] * objects[a][4]);
  for (const row of order.filter(row => isShown(objects[row]))) {
    const [label, , , , , , crowd] = objects[row];
    const box = rectangle(objects[row]);
    const colour = index.classes[label].colour;
    const pointer = {onpointerenter: () => hover(row), onpointerleave: () => hover(null)};
    const group = make("g", {"data-row": row, class: crowd ? "crowd" : null, ...pointer});
    group.append(make("path", {class: "rim", d: box}), make("path", {class: "box", d: box, stroke: colour}));
    if (shows.outlines && outlines?.[row]) {
      group.append(make("path", {class: "outline", d: outlines[row].map(ring).join(""), stroke: colour, fill: colour}));
    }
    svg.append(group);
  }
}

// Names at their boxes, the smallest first; one that would cover another is left out, its colour tells the class.
function nameChips(layer, objects, size) {
  layer.replaceChildren();
  const scale = layer.clientWidth / size[0];
  const taken = [];
  const order = [...objects.keys()].sort((a, b) => objects[a][3] * objects[a][4] - objects[b][3] * objects[b][4]);
  for (const row of order.filter(row => shows.names && isShown(objects[row]))) {
    const [label, x, y] = objects[row];
    const chip = chipOf(label);
    chip.dataset.row = row;
    layer.append(chip);
    const spot = [x * scale, Math.max(0, y * scale - chip.offsetHeight), chip.offsetWidth, chip.offsetHeight];
    spot[0] = Math.max(0, Math.min(spot[0], layer.clientWidth - spot[2]));
    chip.style.left = `${spot[0]}px`;
    chip.style.top = `${spot[1]}px`;
    if (taken.some(other => meets(spot, other))) chip.classList.add("covered");
    else taken.push(spot);
  }
}

const meets = (a, b) => a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];

function chipOf(label) {
  const {name, colour, ink} = index.classes[label];
  const chip = make("span", {class: "chip"}, name);
  chip.style.background = colour;
  chip.style.color = ink;
  return chip;
}

function swatch(label) {
  const dot = make("span", {class: "swatch", "aria-hidden": true});
  dot.style.background = index.classes[label].colour;
  return dot;
}
