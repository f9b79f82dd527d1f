"use strict";

// Tables: column heads become buttons that sort.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
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

// Charts: a slider and the pointer show values.
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
  return [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b).map((x) => ({
    x,
    say: (height) => {
      const there = lines.flatMap((line) => line.points.filter((point) => point[0] === x).map((point) => [line.name, point[1]]));
      if (height !== undefined) there.sort((a, b) => Math.abs(a[1] - height) - Math.abs(b[1] - height));
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
  const row = document.createElement("div");
  row.className = "readout";
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: stops.length - 1, value: 0 });
  slider.setAttribute("aria-label", `Read values: ${figure.querySelector("figcaption").textContent}`);
  const text = document.createElement("bdi");
  row.append(slider, text);
  svg.after(row);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  const show = (place, height) => {
    const stop = stops[place];
    text.textContent = stop.say(height);
    slider.setAttribute("aria-valuetext", text.textContent);
    stops.forEach((other) => other.mark?.classList.toggle("now", other === stop));
    if (!stop.mark) cursor.setAttribute("d", `M${stop.x} 34V${svg.viewBox.baseVal.height - 44}`);
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  svg.addEventListener("pointermove", (event) => {
    const { x, y } = atPointer(svg, event);
    const nearest = stops.reduce((best, stop, place) => (Math.abs(stop.x - x) < Math.abs(stops[best].x - x) ? place : best), 0);
    slider.value = nearest;
    show(nearest, y);
  });
}

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
      document.querySelector("#pictures").scrollIntoView({ block: "start" });
    };
    link.addEventListener("click", act);
    link.addEventListener("keydown", (event) => event.key === " " && act(event));
  }
  filter(null);
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => (details.open = true)));
