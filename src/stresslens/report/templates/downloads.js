
// Files: every chart as SVG and CSV, every table as CSV, tables of results as LaTeX; made here, without a request.
const FORMS = { svg: "image/svg+xml", csv: "text/csv", tex: "text/x-tex" };
const PROPERTIES = "fill fill-opacity stroke stroke-width stroke-dasharray stroke-linejoin paint-order font-family font-size text-anchor".split(" ");
const FIGURE = /^(–|[−+]?[\d.,\u202f]+(?:e[−+]?\d+)?)\s*%?(?:\s*\((?:at least )?([−+]?[\d.,]+(?:e[−+]?\d+)?)(?: to ([−+]?[\d.,]+(?:e[−+]?\d+)?))?.*\))?$/;

function offer(after, title, kinds) {
  const row = Object.assign(document.createElement("p"), { className: "files" });
  for (const [kind, name, make] of kinds) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.setAttribute("aria-label", `Save as ${name}: ${title}`);
    button.addEventListener("click", () => {
      const href = URL.createObjectURL(new Blob([make()], { type: FORMS[kind] }));
      const file = title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "table";
      Object.assign(document.createElement("a"), { href, download: `${file}.${kind}` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 1000);
    });
    row.append(button);
  }
  after.after(row);
}

const csv = (rows) => rows.map((row) => row.map((cell) => (/[",\n]/.test(cell ?? "") ? `"${String(cell).replaceAll('"', '""')}"` : cell ?? "")).join(",") + "\n").join("");

function numbersOf(figure) {
  const [keys, ...lines] = JSON.parse(figure.dataset.numbers);
  const columnsOf = ([, ...columns]) => columns.map((column, k) => column || lines[0][k + 1]);
  return [keys, ...lines.flatMap((line) => columnsOf(line)[0].map((_, k) => [line[0], ...columnsOf(line).map((column) => column[k])]))];
}

// The drawing in the light colours, with its style in attributes and its legend below it.
function drawingOf(figure) {
  const svg = figure.querySelector("svg:not(.key)");
  const light = [...document.styleSheets[0].cssRules[0].style].filter((name) => name.startsWith("--"));
  for (const name of light) figure.style.setProperty(name, document.styleSheets[0].cssRules[0].style.getPropertyValue(name));
  const copy = svg.cloneNode(true);
  const styled = (from, to) => {
    const style = getComputedStyle(from);
    for (const property of PROPERTIES) to.setAttribute(property, style.getPropertyValue(property));
  };
  const parts = [...svg.querySelectorAll("*")];
  [...copy.querySelectorAll("*")].forEach((part, k) => part.tagName !== "title" && styled(parts[k], part));
  const { width, height } = svg.viewBox.baseVal;
  let [x, y] = [2, height];
  const legend = figure.querySelector(".legend") ?? figure.closest(".charts")?.previousElementSibling?.closest(".legend");
  for (const item of legend?.children ?? []) {
    const name = item.textContent.trim();
    const needed = 50 + 6.4 * name.length;
    if (x > 2 && x + needed > width) [x, y] = [2, y + 18];
    const line = item.querySelector("path");
    const key = copy.appendChild(line.cloneNode());
    const text = copy.appendChild(document.createElementNS(svg.namespaceURI, "text"));
    figure.append(item.cloneNode(true));
    styled(figure.lastChild.querySelector("path"), key);
    figure.lastChild.remove();
    key.setAttribute("d", `M${x} ${y + 5}h28`);
    for (const [attribute, value] of Object.entries({ x: x + 34, y: y + 9, "font-size": 12, "font-family": "sans-serif", fill: "#5a616b" })) text.setAttribute(attribute, value);
    text.textContent = name;
    x += needed;
  }
  const high = legend ? y + 18 : height;
  const ground = document.createElementNS(svg.namespaceURI, "rect");
  for (const [attribute, value] of Object.entries({ width, height: high, fill: "white" })) ground.setAttribute(attribute, value);
  copy.prepend(ground);
  for (const [attribute, value] of Object.entries({ viewBox: `0 0 ${width} ${high}`, width, height: high })) copy.setAttribute(attribute, value);
  copy.querySelectorAll(".cursor").forEach((part) => part.remove());
  for (const name of light) figure.style.removeProperty(name);
  return new XMLSerializer().serializeToString(copy);
}

const wordsOf = (cell) => [...cell.childNodes].filter((node) => !node.classList?.contains("note") && !node.classList?.contains("plan")).map((node) => node.textContent).join("").trim().replace(/[ \t\n]+/g, " ");
const plain = (text) => (text === "–" || text === undefined ? "" : text.replace(/[\u202f,]|^\+/g, "").replaceAll("−", "-"));

// The cells of a table. A figure with its interval takes three columns: value, low and high.
function cellsOf(table) {
  const rows = [...table.rows].map((row) => [...row.cells].flatMap((cell) => [cell, ...Array(cell.colSpan - 1).fill(null)]));
  const [head, ...body] = rows;
  const parsed = body.map((row) => row.map((cell) => (cell ? FIGURE.exec(wordsOf(cell)) : null)));
  const wide = head.map((_, k) => parsed.some((row) => row[k]?.[2]));
  const written = (cell, figure, k) => {
    if (!cell) return wide[k] ? ["", "", ""] : [""];
    const text = wordsOf(cell);
    const value = figure ? plain(figure[1]) : text === "–" ? "" : cell.dataset.v && text.startsWith("<") ? cell.dataset.v : text;
    return wide[k] ? [value, plain(figure?.[2]), plain(figure?.[3])] : [value];
  };
  const names = head.flatMap((cell, k) => (wide[k] ? ["", " low", " high"] : [""]).map((end) => (cell ? wordsOf(cell) : "") + end));
  return [names, ...body.map((row, i) => row.flatMap((cell, k) => written(cell, parsed[i][k], k)))];
}

const SPECIAL = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "–": "--", "∞": "$\\infty$", "\u202f": "\\,", "\u00a0": "~", "<": "\\textless{}", ">": "\\textgreater{}" };
const tex = (text) => text.replace(/[&%$#_{}]/g, "\u0001$&").replace(/[\\~^−–∞\u202f\u00a0<>]/g, (c) => SPECIAL[c]).replaceAll("\u0001", "\\");

function latexOf(table) {
  const rows = [...table.rows].map((row) => [...row.cells].map((cell) => tex(wordsOf(cell))).join(" & ") + " \\\\");
  const columns = [...table.rows[0].cells].map((cell, k) => (k && !cell.classList.contains("text") ? "r" : "l")).join("");
  return ["\\begin{tabular}{" + columns + "}", "\\toprule", rows[0], "\\midrule", ...rows.slice(1), "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const numbers = figure.dataset.numbers ? [["csv", "CSV", () => csv(numbersOf(figure))]] : [];
  offer(figure.lastElementChild, figure.querySelector("figcaption").textContent, [["svg", "SVG", () => drawingOf(figure)], ...numbers]);
}
for (const table of document.querySelectorAll("table:not(.maps)")) {
  const results = table.querySelector(".interval") ? [["tex", "LaTeX", () => latexOf(table)]] : [];
  offer(table.closest(".scroll") ?? table, table.caption?.textContent.trim() || "Table", [["csv", "CSV", () => csv(cellsOf(table))], ...results]);
}
