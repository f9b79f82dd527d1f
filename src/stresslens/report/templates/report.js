"use strict";

// Tables: column heads become buttons that sort.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...[...head.childNodes].filter((node) => !node.classList?.contains("note")));
    head.prepend(button);
    const key = (row) => {
      const cell = row.cells[column];
      const text = cell.dataset.v ?? cell.textContent.trim();
      return text === "" || isNaN(text) ? text : Number(text);
    };
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => (up ? 1 : -1) * order(key(a), key(b))));
    });
  });
}

// Charts: the pointer, or the arrow keys, show values.
const short = (value) => String(Number(value.toPrecision(4))).replace("-", "−");
const atPointer = (svg, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());

function stopsOfLines(svg) {
  const [left, top, inside, tall] = svg.dataset.box.split(" ").map(Number);
  const [x0, x1, xLog, y0, y1, yLog] = svg.dataset.ends.split(" ").map(Number);
  const whole = (value, range) => (Math.abs(value - Math.round(value)) < range / 300 ? Math.round(value) : value);
  const between = (low, high, log, share) => (log ? low * (high / low) ** share : low + (high - low) * share);
  const lines = [...svg.querySelectorAll("path.line")].map((path) => ({
    name: path.querySelector("title").textContent,
    points: path.getAttribute("d").slice(1).split("L").map((point) => point.split(" ").map(Number)),
  }));
  const [unit, of] = [svg.querySelector(".unit").textContent, svg.querySelectorAll("text.mid")];
  const said = of[of.length - 1].textContent;
  const at = (x) => lines.flatMap((line) => line.points.filter((point) => point[0] === x).map((point) => [line.name, point[1]]));
  const byHeight = (there, height) => there.sort((a, b) => Math.abs(a[1] - height) - Math.abs(b[1] - height));
  return [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b).map((x) => ({
    x,
    nearest: (height) => byHeight(at(x), height)[0][0],
    say: (height) => {
      const there = at(x);
      if (height !== undefined) byHeight(there, height);
      const values = there.slice(0, 6).map(([name, y]) => `${lines.length > 1 ? name + " " : ""}${short(between(y0, y1, yLog, 1 - (y - top) / tall))}${unit.endsWith("%") ? " %" : ""}`);
      return `${said.replace(/, %$/, "")} ${short(whole(between(x0, x1, xLog, (x - left) / inside), x1 - x0))}${said.endsWith("%") ? " %" : ""}: ${values.join(" · ")}${there.length > 6 ? ` · ${there.length - 6} more` : ""}`;
    },
  }));
}

const stopsOfMarks = (svg) => [...svg.querySelectorAll(".mark")].map((mark) => ({ x: Number(mark.dataset.x), mark, say: () => mark.querySelector("title").textContent }));

for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector("svg:not(.key)");
  const stops = svg.dataset.box ? stopsOfLines(svg) : stopsOfMarks(svg);
  if (stops.length < 2) continue;
  const title = figure.querySelector("figcaption").textContent;
  const text = Object.assign(document.createElement("p"), { className: "readout", dir: "auto" });
  if (matchMedia("(hover: none)").matches) text.textContent = "Touch the chart to read its values.";
  svg.after(text);
  for (const [name, value] of [["tabindex", 0], ["role", "application"], ["aria-roledescription", "chart"], ["aria-label", `${title}: the arrow keys read the values`]]) svg.setAttribute(name, value);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  let place = -1;
  const show = (next, height) => {
    place = Math.max(0, Math.min(stops.length - 1, next));
    const stop = stops[place];
    text.setAttribute("aria-live", height === undefined ? "polite" : "off");
    text.textContent = stop.say(height);
    stops.forEach((other) => other.mark?.classList.toggle("now", other === stop));
    if (!stop.mark) cursor.setAttribute("d", `M${stop.x} 34V${svg.viewBox.baseVal.height - 44}`);
    if (stop.nearest) pick(figure, height === undefined ? null : stop.nearest(height));
  };
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && show(Math.max(0, place)));
  svg.addEventListener("keydown", (event) => {
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: stops.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
  svg.addEventListener("pointermove", (event) => {
    const { x, y } = atPointer(svg, event);
    show(stops.reduce((best, stop, at) => (Math.abs(stop.x - x) < Math.abs(stops[best].x - x) ? at : best), 0), y);
  });
  svg.addEventListener("pointerleave", () => pick(figure, null));
}

// Charts of many lines: the one under the pointer, or whose name is under it or has the focus, stands out.
function pick(root, name) {
  for (const svg of root.querySelectorAll("figure.chart svg:not(.key)")) pickLine(svg, name);
  if (root.matches("figure.chart")) pickLine(root.querySelector("svg:not(.key)"), name);
}
function pickLine(svg, name) {
  const lines = [...svg.querySelectorAll("path.line")];
  const now = lines.find((line) => line.querySelector("title").textContent === name);
  svg.classList.toggle("picked", lines.length > 3 && now !== undefined);
  const style = now?.getAttribute("class").replace(/^line| now$/g, "").trim();
  for (const part of svg.querySelectorAll(".line, .band, .dot, .ring")) {
    part.classList.toggle("now", part.matches(".line") ? part === now : style !== undefined && part.matches("." + style.split(" ").join(".")));
  }
}
for (const legend of document.querySelectorAll(".legend")) {
  const root = legend.closest("figure.chart") ?? legend.parentElement;
  const names = [...legend.children];
  if (names.length < 4) continue;
  for (const item of names) {
    item.tabIndex = 0;
    for (const kind of ["pointerenter", "focus"]) item.addEventListener(kind, () => pick(root, item.textContent));
    for (const kind of ["pointerleave", "blur"]) item.addEventListener(kind, () => pick(root, null));
  }
}

// Tables that are wider than the page say how many columns are out of sight.
for (const box of document.querySelectorAll(".scroll")) {
  const hint = Object.assign(document.createElement("p"), { className: "more", hidden: true });
  box.after(hint);
  const update = () => {
    const right = box.getBoundingClientRect().right;
    const beyond = [...(box.querySelector("tr")?.cells ?? [])].filter((cell) => cell.getBoundingClientRect().right > right + 4).length;
    const wide = box.scrollWidth > box.clientWidth + 4;
    hint.hidden = !wide;
    hint.classList.toggle("end", !beyond && wide);
    hint.textContent = `${beyond || 1} more column${beyond > 1 ? "s" : ""}: scroll to the right →`;
    if (wide) box.tabIndex = 0;
  };
  box.addEventListener("scroll", update, { passive: true });
  new ResizeObserver(update).observe(box);
}

// Notes: the text of a note beside its reference, under the pointer or with the focus.
const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
tip.setAttribute("role", "tooltip");
document.body.append(tip);
for (const note of document.querySelectorAll("a.note")) {
  const show = () => {
    tip.textContent = document.getElementById(note.hash.slice(1)).textContent;
    tip.hidden = false;
    const { left, bottom, top } = note.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 16))}px`;
    tip.style.top = `${bottom + 6 + tip.offsetHeight < innerHeight ? bottom + 6 : top - 6 - tip.offsetHeight}px`;
  };
  for (const kind of ["pointerenter", "focus"]) note.addEventListener(kind, show);
  for (const kind of ["pointerleave", "blur"]) note.addEventListener(kind, () => (tip.hidden = true));
  note.addEventListener("keydown", (event) => event.key === "Escape" && (tip.hidden = true));
}
addEventListener("scroll", () => (tip.hidden = true), { passive: true });

// Phone: each section folds behind its heading; a link into a folded section opens it.
const narrow = matchMedia("(max-width: 40rem)");
const sections = [...document.querySelectorAll("main > section")].filter((section) => section.querySelector(":scope > h2:not(.unseen)"));
const unfold = (section, open) => {
  section.classList.toggle("folded", !open);
  section.querySelector(":scope > h2 > button")?.setAttribute("aria-expanded", open);
};
const reveal = (hash) => {
  const section = document.getElementById(decodeURIComponent(hash.slice(1)))?.closest("section.folded");
  if (section) unfold(section, true);
};
const fold = () => {
  for (const section of sections) {
    const head = section.querySelector(":scope > h2");
    let button = head.querySelector("button");
    if (narrow.matches && !button) {
      button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => unfold(section, section.classList.contains("folded")));
      unfold(section, ["ablation", "results", "scores", "pictures"].includes(section.id));
    } else if (!narrow.matches && button) {
      head.append(...button.childNodes);
      button.remove();
      unfold(section, true);
    }
  }
};
narrow.addEventListener("change", fold);
fold();
reveal(location.hash);
addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (link) reveal(link.hash);
});

// Contents: the section in sight is marked.
const entries = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const inSight = new IntersectionObserver(
  (changes) => {
    const now = changes.find((change) => change.isIntersecting && entries.has(change.target.id));
    if (now) for (const [id, link] of entries) id === now.target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  },
  { rootMargin: "-8% 0px -80% 0px" },
);
for (const section of document.querySelectorAll("main > section")) inSight.observe(section);

// Confusion: a click on a cell shows only its images.
const status = document.querySelector(".shown");
if (status) {
  const pictures = [...document.querySelector("#mistakes ~ .pictures").children];
  const links = [...document.querySelectorAll("[data-pair]")];
  const further = pictures.some((picture) => "further" in picture.dataset);
  const offer = (label, act) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    button.addEventListener("click", act);
    status.append(button);
  };
  const filter = (pair, all = false) => {
    pictures.forEach((picture) => (picture.hidden = pair ? picture.dataset.of !== pair : !all && "further" in picture.dataset));
    links.forEach((link) => link.setAttribute("aria-pressed", link.dataset.pair === pair));
    const shown = pictures.filter((picture) => !picture.hidden);
    const of = shown[0].querySelectorAll("p:first-of-type bdi");
    status.textContent = pair ? `${shown.length} shown: ${of[0].textContent} predicted as ${of[1].textContent}.` : further ? `${shown.length} of ${pictures.length} images shown.` : "";
    if (pair || (further && all)) offer(further ? "Show the most confident only" : "Show all", () => filter(null));
    if (further && (pair || !all)) offer(`Show all ${pictures.length}`, () => filter(null, true));
  };
  for (const link of links) {
    link.setAttribute("role", "button");
    const act = (event) => {
      event.preventDefault();
      filter(link.getAttribute("aria-pressed") === "true" ? null : link.dataset.pair);
      reveal("#pictures");
      document.querySelector("#pictures").scrollIntoView({ block: "start" });
    };
    link.addEventListener("click", act);
    link.addEventListener("keydown", (event) => event.key === " " && act(event));
  }
  filter(null);
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => (details.open = true)));
