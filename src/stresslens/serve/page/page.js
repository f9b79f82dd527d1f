"use strict";
const $ = id => document.getElementById(id);
const runs = new Map();
const severities = {};
let picture = null;      // {body} or {of, image}, and what it is called
let looking = null, attacking = null, timer = 0;
let page = 0, stream = null;
const looks = new Map(); // by run: what was said of the picture

// --- asking the server ---------------------------------------------------------------------

class Trouble extends Error {}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("stresslens-token");
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  let answer;
  try {
    answer = await fetch(path, {...options, headers: {...headers, ...options.headers}});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The server does not answer. Does it still run?");
  }
  if (answer.status === 401) {
    sessionStorage.removeItem("stresslens-token");
    $("gate").hidden = false;
    $("main").hidden = true;
    $("served").textContent = token ? "That is not its token." : "";
    $("token").focus();
    throw new DOMException("no token", "AbortError");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Trouble(said.error || `The server answers with ${answer.status}.`);
  }
  return answer;
}

async function* lines(path, options) {
  const reader = (await ask(path, options)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    const parts = (rest + (value || "")).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      const values = JSON.parse(part);
      if (values.error) throw new Trouble(values.error);
      yield values;
    }
    if (done) return;
  }
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
  if (text) $("trouble").scrollIntoView({block: "nearest"});
}

const quietly = work => work.catch(error => {
  if (error.name !== "AbortError") trouble(error instanceof Trouble ? error.message : `${error}`);
});

// --- making elements -----------------------------------------------------------------------

function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(values)) {
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

const options = (select, named, chosen) => select.replaceChildren(...named.map(([value, text]) =>
  make("option", {value, textContent: text, selected: value === chosen})));
const percent = p => p >= 0.9995 && p < 1 ? "> 99.9 %" : p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`;
const figure = (src, alt, ...caption) =>
  make("figure", {}, make("img", {src, alt}), make("figcaption", {}, ...caption));
const withCode = text => text.split("`").map((part, k) => k % 2 ? make("code", {textContent: part}) : part);
const shownRuns = () => [...runs.keys()].filter(name =>
  runs.size === 1 || $("runs").querySelector(`input[value="${CSS.escape(name)}"]`).checked);

// --- the picture ---------------------------------------------------------------------------

function query() {
  const given = new URLSearchParams();
  shownRuns().forEach(name => given.append("run", name));
  for (const [name, severity] of Object.entries(severities)) if (severity) given.append("corruption", `${name}:${severity}`);
  if (picture.of) { given.set("of", picture.of); given.set("image", picture.image); }
  const own = $("own-captions").value.split("\n").map(line => line.trim()).filter(Boolean);
  if (!$("captions").hidden && own.length > 1) own.forEach(line => given.append("caption", line));
  return given;
}

const sent = signal => ({method: "POST", body: picture.body, signal,
  headers: picture.body ? {"Content-Type": "application/octet-stream"} : {}});

function give(given, address, said) {
  picture = given;
  $("chosen-picture").hidden = !address;
  if (address) $("preview").src = address;
  $("preview-said").textContent = said || "";
  ask_again();
}

function ask_again() {
  attacking?.abort();
  $("go").disabled = !picture;
  $("attacks").replaceChildren();
  clearTimeout(timer);
  if (picture) timer = setTimeout(() => quietly(look()), 60);
}

async function giveFile(file) {
  if (!file) return;
  const address = URL.createObjectURL(file);
  choose("file");
  give({body: file}, address, file.name);
}

// --- the answer ----------------------------------------------------------------------------

async function look() {
  looking?.abort();
  const control = looking = new AbortController();
  const names = shownRuns();
  trouble("");
  for (const [name, card] of cards(names)) card.classList.add("old");
  $("answers-title").classList.add("busy");
  const given = query();
  given.set("explainer", $("explainer").value);
  try {
    for await (const part of lines(`/page/look?${given}`, sent(control.signal))) {
      if (part.kind === "look") looks.set(part.run, part);
      const card = $("cards").querySelector(`[data-run="${CSS.escape(part.run)}"]`);
      if (!card) continue;
      if (part.kind === "look") { card.classList.remove("old"); showLook(card, part); }
      if (part.kind === "look" && part.run === names[names.length - 1]) tell(names);
      if (part.kind === "map") showMap(card, part);
      if (part.kind === "nearest") showNearest(card, part);
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      $("cards").replaceChildren(make("p", {className: "quiet empty", textContent: "There is no answer."}));
      $("said").textContent = error.message;
      $("go").disabled = true;
    }
    throw error;
  } finally {
    if (looking === control) $("answers-title").classList.remove("busy");
  }
}

function cards(names) {
  const known = new Map([...$("cards").querySelectorAll(".card")].map(card => [card.dataset.run, card]));
  const wanted = names.map(name => {
    const card = known.get(name) || make("article", {className: "card"}, ...(runs.size > 1 ? [make("h3", {textContent: name})] : []),
      ...["look", "map", "nearest"].map(part => make("div", {className: `part-${part}`})));
    card.dataset.run = name;
    return [name, card];
  });
  $("cards").replaceChildren(...wanted.map(([, card]) => card));
  return wanted;
}

function tell(names) {
  const said = names.map(name => {
    const found = looks.get(name), first = found.classes[0];
    const answer = first ? `${first[0]}, ${percent(first[1])}` : found.no_answer;
    return `${names.length > 1 ? `${name}: ` : ""}${answer}${found.unlike ? ", unlike the training images" : ""}.`;
  });
  $("said").textContent = said.join(" ");
}

function showLook(card, found) {
  const first = found.classes[0], parts = [];
  if (!first) parts.push(make("p", {className: "verdict"}, found.no_answer));
  else parts.push(make("p", {className: "verdict"}, first[0], " ", make("small", {textContent: percent(first[1])})));
  if (found.truth !== null && first)
    parts.push(make("span", {className: `mark ${found.truth === first[0] ? "good" : "warn"}`,
      textContent: found.truth === first[0] ? "right" : `wrong: it is ${found.truth}`}));
  if (found.unlike !== null)
    parts.push(make("span", {className: `mark ${found.unlike ? "warn" : "good"}`,
      textContent: found.unlike ? "unlike the training images" : "like the training images"}));
  const inside = found.sets.length ? found.sets[+$("coverage").value] : null;
  parts.push(make("ul", {className: "bars"}, ...found.classes.slice(0, 10).map(([name, p]) => {
    const bar = make("span");
    bar.style.width = `${100 * p}%`;
    return make("li", {className: inside && !inside.classes.includes(name) ? "out" : ""},
      make("b", {textContent: name, title: name}), make("i", {}, bar), make("span", {className: "p", textContent: percent(p)}));
  })), make("p", {className: "small", textContent: found.calibration}));
  parts.push(make("h4", {textContent: inside ? `The set at ${100 * inside.coverage} %` : "Sets of classes"}));
  if (inside) {
    const names = inside.classes.slice(0, 20), more = inside.classes.length - names.length;
    parts.push(make("p", {}, ...names.map(name => make("span", {className: "set", textContent: name})),
      names.length ? "" : "Empty: no class is probable enough.", more ? `and ${more} more` : ""));
    parts.push(make("p", {className: "small", textContent: inside.said}),
      make("details", {hidden: !inside.more}, make("summary", {textContent: "How exactly"}), make("p", {className: "small", textContent: inside.more})));
  } else parts.push(make("p", {className: "small"}, ...withCode(found.no_sets)));
  parts.push(make("h4", {textContent: "Unlike the training images?"}), make("p", {className: "small", textContent: found.likeness}));
  const open = [...card.querySelectorAll(".part-look details")].map(each => each.open);
  card.querySelector(".part-look").replaceChildren(...parts);
  card.querySelectorAll(".part-look details").forEach((each, k) => { each.open = open[k] || false; });
  const two = card.querySelector(".part-map .two");
  const seen = figure(found.seen.picture, "What the network sees", make("b", {textContent: "What it sees: "}), found.seen.said);
  if (two) two.firstChild.replaceWith(seen);
  else card.querySelector(".part-map").replaceChildren(make("div", {className: "two"}, seen));
}

function showMap(card, found) {
  const part = card.querySelector(".part-map"), name = found.explainer.replaceAll("_", " ");
  const seen = part.querySelector("figure");
  const limit = Number(found.limit.toPrecision(2));
  part.replaceChildren(
    make("div", {className: "two"}, seen, figure(found.picture, `Map by ${name}`,
      make("b", {textContent: `Why ${found.about}? `}), `${name}: ${found.unit}.`)),
    make("div", {className: `scale ${found.signed ? "signed" : ""}`}, found.signed ? `against, −${limit}` : "0", make("i"), found.signed ? `for, ${limit}` : `${limit}`),
    make("p", {className: `small ${found.good ? "" : "warn"}`}, ...withCode(found.trust)),
    ...found.notes.map(note => make("p", {className: "small", textContent: note})));
}

function showNearest(card, found) {
  card.querySelector(".part-nearest").replaceChildren(
    make("h4", {textContent: "The nearest training images"}),
    make("div", {className: "strip"}, ...found.images.map(each => {
      const shown = figure(each.picture, `labelled ${each.label}, at distance ${each.distance.toFixed(3)}`, each.label);
      shown.className = each.same ? "" : "other";
      shown.title = `distance ${each.distance.toFixed(3)}`;
      return shown;
    })),
    make("p", {}, ...withCode(found.said)), make("p", {className: "small", textContent: found.how}));
}

// --- the attack ----------------------------------------------------------------------------

function radius() {
  const k = +$("radius").value;
  if ($("norm").value === "linf") return Math.min(1, 2 ** (k / 3) / 2 / 255);
  const [c, h, w] = [...runs.values()][0].shape;
  return Math.sqrt(c * h * w) / 3 * 2 ** ((k - 24) / 3);
}

function sayRadius() {
  const r = radius(), levels = 255 * r;
  $("radius-said").textContent = $("norm").value === "linf"
    ? `${levels.toFixed(levels < 10 ? 1 : 0)} of 255 grey levels` : r.toFixed(2);
  $("radius").setAttribute("aria-valuetext", $("radius-said").textContent);
}

async function attack() {
  if (!picture) return;
  attacking?.abort();
  const control = attacking = new AbortController(), names = shownRuns();
  const given = query();
  given.set("norm", $("norm").value);
  given.set("radius", radius());
  given.set("target", $("target").value);
  $("attack-title").classList.add("busy");
  const places = new Map(names.map(name => [name, make("article", {className: "card"},
    ...(names.length > 1 ? [make("h3", {textContent: name})] : []), make("p", {className: "quiet", textContent: "Looking …"}))]));
  $("attacks").replaceChildren(...places.values());
  try {
    for await (const part of lines(`/page/attack?${given}`, sent(control.signal))) showAttack(places.get(part.run), part, names.length > 1);
  } finally {
    if (attacking === control) $("attack-title").classList.remove("busy");
  }
}

function showAttack(card, found, named) {
  const parts = [];
  if (found.found) {
    const times = 1 / (2 * found.largest);
    const told = classes => classes.length ? [make("b", {textContent: classes[0][0]}), ` ${percent(classes[0][1])}`] : ["no answer"];
    parts.push(make("p", {className: "verdict"}, `${found.before[0][0]} → ${(found.after[0] || ["no answer"])[0]}`, " ",
      make("small", {textContent: `with ${$("norm").value} ${found.size.toPrecision(3)}`})));
    parts.push(make("div", {className: "three"},
      figure(found.original, "The picture before", ...told(found.before)),
      figure(found.change, "The change, enlarged", `the change, × ${times < 10 ? times.toFixed(1) : Math.round(times)}`),
      figure(found.attacked, "The picture after", ...told(found.after))));
    parts.push(make("div", {className: `scale ${found.coloured ? "signed" : ""}`, hidden: !found.coloured},
      `darker, −${found.largest.toPrecision(2)}`, make("i"), `brighter, ${found.largest.toPrecision(2)}`));
    if (found.unlike) parts.push(make("span", {className: "mark warn", textContent: "the changed picture is unlike the training images"}));
  }
  parts.push(make("p", {className: found.done ? "" : "quiet",
    textContent: found.done ? found.said : found.found ? "Looking for a smaller one …" : "Looking …"}));
  const title = card.querySelector("h3");
  card.replaceChildren(...(named ? [title] : []), ...parts);
  if (found.done) $("said").textContent = found.found ? `${named ? `${title.textContent}: ` : ""}${found.before[0][0]} → ${(found.after[0] || ["no answer"])[0]}, with a change of ${found.size.toPrecision(3)}.` : found.said;
}

// --- drawing -------------------------------------------------------------------------------

const sheet = {height: 28, width: 28, ink: null, x: 14, y: 14, erase: false, light: true};

function newSheet(run) {
  [, sheet.height, sheet.width] = run.shape;
  sheet.light = run.ink === "white";
  sheet.ink = new Float32Array(sheet.height * sheet.width);
  [sheet.x, sheet.y] = [sheet.width >> 1, sheet.height >> 1];
  Object.assign($("canvas"), {width: sheet.width, height: sheet.height});
  $("sheet").style.aspectRatio = `${sheet.width} / ${sheet.height}`;
  paint();
}

function paint() {
  const image = new ImageData(sheet.width, sheet.height);
  sheet.ink.forEach((ink, k) => {
    const value = Math.round(255 * (sheet.light ? ink : 1 - ink));
    image.data.set([value, value, value, 255], 4 * k);
  });
  $("canvas").getContext("2d").putImageData(image, 0, 0);
}

function stroke(x, y) {
  const thick = Math.max(0.55, Math.min(sheet.width, sheet.height) / 28 * 1.05);
  for (let row = 0; row < sheet.height; row++) for (let column = 0; column < sheet.width; column++) {
    const far = Math.hypot(column + .5 - x, row + .5 - y), k = row * sheet.width + column;
    const ink = Math.max(0, Math.min(1, thick + .5 - far));
    sheet.ink[k] = sheet.erase ? Math.min(sheet.ink[k], 1 - ink) : Math.max(sheet.ink[k], ink);
  }
}

function line(from, to) {
  const steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])));
  for (let k = 0; k <= steps; k++) stroke(from[0] + (to[0] - from[0]) * k / steps, from[1] + (to[1] - from[1]) * k / steps);
  paint();
}

function drawn() {
  const bytes = atob($("canvas").toDataURL("image/png").split(",")[1]); // toBlob waits until the page is idle
  give({body: new Blob([Uint8Array.from(bytes, byte => byte.charCodeAt(0))])}, "");
}

function clear() {
  sheet.ink.fill(0);
  paint();
  looking?.abort();
  picture = null;
  ask_again();
  looks.clear();
  $("cards").replaceChildren(make("p", {className: "quiet empty", textContent: "Give a picture, and the answer is here."}));
  $("said").textContent = "The sheet is empty.";
}

function showCursor() {
  const box = $("canvas"), [w, h] = [box.clientWidth / sheet.width, box.clientHeight / sheet.height];
  Object.assign($("cursor").style, {left: `${1 + sheet.x * w}px`, top: `${1 + sheet.y * h}px`, width: `${w}px`, height: `${h}px`});
  $("cursor").hidden = false;
}

function setUpDrawing() {
  const canvas = $("canvas");
  let last = null;
  const place = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * sheet.width, (event.clientY - box.top) / box.height * sheet.height];
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    $("cursor").hidden = true;
    last = place(event);
    line(last, last);
  });
  canvas.addEventListener("pointermove", event => {
    if (!last) return;
    for (const each of event.getCoalescedEvents?.().concat(event) || [event]) { const to = place(each); line(last, to); last = to; }
    drawn();
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { if (last) drawn(); last = null; });
  canvas.addEventListener("keydown", event => {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (event.key === "Delete" || event.key === "Backspace") clear();
    else if (event.key === " ") { line([sheet.x + .5, sheet.y + .5], [sheet.x + .5, sheet.y + .5]); drawn(); }
    else if (step) {
      const from = [sheet.x + .5, sheet.y + .5];
      sheet.x = Math.max(0, Math.min(sheet.width - 1, sheet.x + step[0]));
      sheet.y = Math.max(0, Math.min(sheet.height - 1, sheet.y + step[1]));
      if (event.shiftKey) { line(from, [sheet.x + .5, sheet.y + .5]); drawn(); }
    } else return;
    event.preventDefault();
    showCursor();
  });
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) showCursor(); });
  canvas.addEventListener("blur", () => { $("cursor").hidden = true; });
  $("clear").onclick = clear;
  $("pen").onclick = () => $("pen").setAttribute("aria-pressed", sheet.erase = !sheet.erase);
}

// --- tabs, camera, test images -------------------------------------------------------------

const tabs = ["draw", "file", "camera", "own"];

function choose(chosen) {
  for (const name of tabs) {
    $(name).hidden = name !== chosen;
    $(`tab-${name}`).setAttribute("aria-selected", name === chosen);
    $(`tab-${name}`).tabIndex = name === chosen ? 0 : -1;
  }
  if (chosen !== "camera") stopCamera();
  if (chosen === "draw") $("chosen-picture").hidden = true;
  if (chosen === "own" && !$("thumbs").children.length) quietly(showImages());
}

function setUpTabs() {
  for (const name of tabs) {
    $(`tab-${name}`).onclick = () => choose(name);
    $(`tab-${name}`).onkeydown = event => {
      const there = tabs.filter(each => !$(`tab-${each}`).hidden), k = there.indexOf(name);
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!step) return;
      const next = there[(k + step + there.length) % there.length];
      choose(next);
      $(`tab-${next}`).focus();
    };
  }
}

function stopCamera() {
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
  $("video").hidden = $("shoot").hidden = $("stop").hidden = true;
  $("start").hidden = false;
}

async function startCamera() {
  if (!navigator.mediaDevices) throw new Trouble("The browser lends its camera to https and to this machine's own pages only.");
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  } catch (error) {
    throw new Trouble(`The camera cannot be used: ${error.message}`);
  }
  $("video").srcObject = stream;
  await $("video").play();
  $("video").hidden = $("shoot").hidden = $("stop").hidden = false;
  $("start").hidden = true;
}

function shoot() {
  const video = $("video"), canvas = make("canvas", {width: video.videoWidth, height: video.videoHeight});
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(body => give({body}, URL.createObjectURL(body), "from the camera"), "image/jpeg", .95);
}

async function showImages() {
  const given = new URLSearchParams({run: $("of").value, which: $("which").value, class: $("class").value, page});
  const box = $("thumbs");
  let found;
  try {
    found = await (await ask(`/page/images?${given}`)).json();
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    box.replaceChildren();
    $("place").textContent = error.message;
    $("before").hidden = $("next").hidden = true;
    return;
  }
  $("before").hidden = $("next").hidden = false;
  const pages = Math.max(1, Math.ceil(found.total / 24));
  box.replaceChildren(...found.images.map(each => {
    const name = `${found.split} image ${each.position}: ${each.truth}${each.right ? "" : `, answered ${each.answer}`}`;
    const button = make("button", {className: each.right ? "" : "wrong", title: name, "aria-label": name, "aria-pressed": "false"},
      make("img", {src: each.picture, alt: ""}), make("small", {textContent: each.right ? each.truth : `${each.truth} → ${each.answer}`}));
    button.onclick = () => {
      box.querySelectorAll("button").forEach(other => other.setAttribute("aria-pressed", other === button));
      give({of: $("of").value, image: each.position}, "");
    };
    return button;
  }));
  $("place").textContent = `${found.total.toLocaleString("en")} images, page ${page + 1} of ${pages}`;
  $("before").disabled = page === 0;
  $("next").disabled = page >= pages - 1;
}

// --- the beginning -------------------------------------------------------------------------

async function open() {
  const found = await (await ask("/page/runs")).json();
  found.runs.forEach(run => runs.set(run.name, run));
  const first = found.runs[0], many = found.runs.length > 1;
  $("served").textContent = found.runs.map(run => run.name).join(" · ");
  $("gate").hidden = true;
  $("main").hidden = false;
  options($("explainer"), [...new Set(found.runs.flatMap(run => run.explainers))].map(name => [name, name.replaceAll("_", " ")]));
  options($("of"), found.runs.map(run => [run.name, run.name]));
  $("of-label").hidden = !many;
  classesOf(first);
  options($("target"), [["", "anything else"], ...first.classes.map(name => [name, name])]);
  const sheetRun = found.runs.filter(run => run.drawable).sort((a, b) => b.shape[1] - a.shape[1])[0];
  if (sheetRun) newSheet(sheetRun); else { $("tab-draw").hidden = true; choose("file"); }
  $("captions").hidden = !found.runs.some(run => run.text);
  $("shown-runs").hidden = !many;
  if (many) $("runs").append(...found.runs.map(run => make("label", {},
    make("input", {type: "checkbox", value: run.name, checked: true, onchange: showRuns}), ` ${run.name}`)));
  sayRuns();
  $("corruptions").replaceChildren(...found.corruptions.map(name => {
    const out = make("output", {textContent: "0"});
    const range = make("input", {type: "range", min: 0, max: 5, step: 1, value: 0});
    range.oninput = () => { severities[name] = +range.value; out.textContent = range.value; sayCorruptions(); ask_again(); };
    return make("label", {}, name, range, out);
  }));
  sayRadius();
}

const classesOf = run => options($("class"), [["", "all"], ...run.classes.map(name => [name, name])]);

function sayCorruptions() {
  const named = Object.entries(severities).filter(([, severity]) => severity);
  $("spoilt").textContent = named.map(([name, severity]) => `${name} ${severity}`).join(", ") || "none";
}

function sayRuns() {
  $("runs-said").textContent = `${shownRuns().length} of ${runs.size} shown`;
}

function showRuns(event) {
  if (!shownRuns().length) event.target.checked = true;
  sayRuns();
  ask_again();
}

function setUp() {
  setUpDrawing();
  setUpTabs();
  $("chosen").onchange = () => { quietly(giveFile($("chosen").files[0])); $("chosen").value = ""; };
  addEventListener("paste", event => quietly(giveFile(event.clipboardData.files[0])));
  addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  addEventListener("drop", event => {
    event.preventDefault();
    document.body.classList.remove("over");
    quietly(giveFile(event.dataTransfer.files[0]));
  });
  $("start").onclick = () => quietly(startCamera());
  $("shoot").onclick = shoot;
  $("stop").onclick = stopCamera;
  const again = () => { page = 0; quietly(showImages()); };
  $("which").onchange = $("class").onchange = again;
  $("of").onchange = () => { classesOf(runs.get($("of").value)); again(); };
  $("before").onclick = () => { page -= 1; quietly(showImages()); };
  $("next").onclick = () => { page += 1; quietly(showImages()); };
  $("unspoil").onclick = () => {
    $("corruptions").querySelectorAll("input").forEach(range => { range.value = 0; range.nextSibling.textContent = "0"; });
    for (const name of Object.keys(severities)) delete severities[name];
    sayCorruptions();
    ask_again();
  };
  $("coverage").onchange = () => $("cards").querySelectorAll(".card").forEach(card => {
    if (looks.has(card.dataset.run)) showLook(card, looks.get(card.dataset.run));
  });
  $("explainer").onchange = $("own-captions").onchange = ask_again;
  let waits = 0;
  $("radius").oninput = () => { sayRadius(); clearTimeout(waits); waits = setTimeout(() => quietly(attack()), 150); };
  $("norm").onchange = () => { sayRadius(); quietly(attack()); };
  $("target").onchange = () => quietly(attack());
  $("go").onclick = () => quietly(attack());
  $("gate").onsubmit = event => {
    event.preventDefault();
    sessionStorage.setItem("stresslens-token", $("token").value);
    $("token").value = "";
    $("served").textContent = "Opening the runs …";
    quietly(open());
  };
}

setUp();
quietly(open());
