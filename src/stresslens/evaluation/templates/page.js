(() => {
  const model = JSON.parse(document.getElementById("model").textContent);
  const run = engine.load(model.steps, document.getElementById("weights").textContent);
  const [channels, height, width] = model.shape, pixels = height * width;
  const find = id => document.getElementById(id);
  const paper = find("paper"), cursor = find("cursor"), seen = find("seen"), map = find("map");
  const zoom = Math.max(1, Math.ceil(280 / Math.max(height, width)));
  const pen = paper.getContext("2d", { willReadFrequently: true });
  const state = { image: null, exact: null, blank: true, inked: false, undo: [], cell: [height >> 1, width >> 1], turn: 0, answer: null, quickest: Infinity };

  // From pictures to images (C·H·W) in [0, 1]

  const grey = (r, g, b) => (299 * r + 587 * g + 114 * b) / 1000;

  // RGBA pixels over white, as planes of values from 0 to 255.
  function planes(data, count) {
    const n = data.length / 4, result = Array.from({ length: count }, () => new Float32Array(n));
    for (let i = 0; i < n; i++) {
      const alpha = data[4 * i + 3] / 255;
      const [r, g, b] = [0, 1, 2].map(c => Math.round(data[4 * i + c] * alpha + 255 * (1 - alpha)));
      if (count === 1) result[0][i] = Math.round(grey(r, g, b));
      else [result[0][i], result[1][i], result[2][i]] = [r, g, b];
    }
    return result;
  }

  function cubic(x) {
    x = Math.abs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  }

  // The weights of `count` pixels made of [from, to) of `n`: antialiased bicubic, as Pillow has it. Beyond the
  // edge nothing is, or, with `beyond`, paper.
  function weights(n, from, to, count, beyond) {
    const step = (to - from) / count, stretch = Math.max(step, 1), reach = 2 * stretch;
    return Array.from({ length: count }, (_, k) => {
      const centre = from + (k + 0.5) * step;
      let first = Math.trunc(centre - reach + 0.5), end = Math.trunc(centre + reach + 0.5);
      if (!beyond) [first, end] = [Math.max(first, 0), Math.min(end, n)];
      const found = [];
      for (let i = first; i < end; i++) found.push(cubic((i - centre + 0.5) / stretch));
      const sum = found.reduce((a, b) => a + b, 0);
      return [first, found.map(w => w / sum)];
    });
  }

  const byte = value => Math.min(255, Math.max(0, Math.round(value)));

  // A plane (h, w), its box [left, top, right, bottom] brought to (high, wide).
  function resized(plane, h, w, [left, top, right, bottom], high, wide, outside = null) {
    const along = weights(w, left, right, wide, outside !== null), down = weights(h, top, bottom, high, outside !== null);
    const shift = outside ?? 0, middle = new Float32Array(h * wide), result = new Float32Array(high * wide);
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < wide; x++) {
        const [first, ws] = along[x];
        let sum = shift;
        for (let k = 0; k < ws.length; k++) if (first + k >= 0 && first + k < w) sum += ws[k] * (plane[y * w + first + k] - shift);
        middle[y * wide + x] = byte(sum);
      }
    }
    for (let y = 0; y < high; y++) {
      const [first, ws] = down[y];
      for (let x = 0; x < wide; x++) {
        let sum = shift;
        for (let k = 0; k < ws.length; k++) if (first + k >= 0 && first + k < h) sum += ws[k] * (middle[(first + k) * wide + x] - shift);
        result[y * wide + x] = byte(sum);
      }
    }
    return result;
  }

  // Rounds halves to the even number, as Python does.
  const even = x => Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);

  // Planes (h, w) cropped, padded or stretched to the network's size, as `stresslens predict` does it.
  function fitted(given, h, w, fit = model.fit) {
    const image = new Float32Array(channels * pixels);
    let [high, wide, box] = [height, width, [0, 0, w, h]];
    if (fit === "crop" && w / h > width / height) box = [(w - width / height * h) / 2, 0, (w + width / height * h) / 2, h];
    else if (fit === "crop") box = [0, (h - w / (width / height)) / 2, w, (h + w / (width / height)) / 2];
    else if (fit === "pad" && w / h > width / height) high = Math.max(1, even(h / w * width));
    else if (fit === "pad") wide = Math.max(1, even(w / h * height));
    const top = even((height - high) / 2), left = even((width - wide) / 2);
    given.forEach((plane, c) => {
      const same = h === high && w === wide, part = same ? plane : resized(plane, h, w, box, high, wide);
      for (let y = 0; y < high; y++) {
        for (let x = 0; x < wide; x++) image[c * pixels + (y + top) * width + x + left] = part[y * wide + x] / 255;
      }
    });
    return image;
  }

  const paperValue = () => find("dark").checked ? 255 : 0;

  // The drawing at the network's size: the mean of each pixel's part, or centred.
  function drawn() {
    const h = paper.height, w = paper.width, given = planes(pen.getImageData(0, 0, w, h).data, channels);
    if (find("centre").checked && state.blank) {
      const box = centred(given, h, w);
      if (box) return Float32Array.from(given.flatMap(p => Array.from(resized(p, h, w, box, height, width, paperValue()), v => v / 255)));
    }
    const image = new Float32Array(channels * pixels);
    given.forEach((plane, c) => {
      for (let i = 0; i < plane.length; i++) {
        image[c * pixels + Math.floor(Math.floor(i / w) / zoom) * width + Math.floor(i % w / zoom)] += plane[i] / (255 * zoom * zoom);
      }
    });
    return image;
  }

  // The part of the drawing that is to fill the image: around the centre of mass of its ink.
  function centred(given, h, w) {
    const ground = paperValue();
    let [top, bottom, left, right, mass, across, down] = [h, -1, w, -1, 0, 0, 0];
    for (let y = 0, i = 0; y < h; y++) {
      for (let x = 0; x < w; x++, i++) {
        const ink = given.reduce((sum, plane) => sum + Math.abs(plane[i] - ground), 0);
        if (ink < 13 * channels) continue;
        [top, bottom, left, right] = [Math.min(top, y), y, Math.min(left, x), Math.max(right, x)];
        mass += ink;
        across += ink * (x + 0.5);
        down += ink * (y + 0.5);
      }
    }
    if (!mass) return null;
    const scale = Math.max((bottom + 1 - top) / height, (right + 1 - left) / width) / model.extent / 2;
    const [x, y] = [across / mass, down / mass];
    return [x - scale * width, y - scale * height, x + scale * width, y + scale * height];
  }

  // Shows an image (C·H·W) on a canvas, each pixel `k` times as high and wide.
  function show(canvas, image, k = 1) {
    canvas.width = width * k;
    canvas.height = height * k;
    const context = canvas.getContext("2d"), shown = context.createImageData(width * k, height * k);
    for (let i = 0; i < shown.data.length / 4; i++) {
      const at = Math.floor(Math.floor(i / (width * k)) / k) * width + Math.floor(i % (width * k) / k);
      for (let c = 0; c < 3; c++) shown.data[4 * i + c] = Math.round(255 * image[(channels === 1 ? 0 : c) * pixels + at]);
      shown.data[4 * i + 3] = 255;
    }
    context.putImageData(shown, 0, 0);
  }

  // Answers

  const share = p => p > 0 && p < 0.0005 ? "< 0.1 %" : p < 1 && p >= 0.9995 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`;
  const probabilities = image => engine.softmax(run(image), model.temperature);
  const highest = values => values.indexOf(Math.max(...values));

  function element(tag, text = "", name = "") {
    const made = document.createElement(tag);
    made.textContent = text;
    made.className = name;
    return made;
  }

  const longest = Math.max(...model.classes.map(name => name.length));

  function answer() {
    state.image = state.exact ?? drawn();
    const start = performance.now(), p = probabilities(state.image), took = performance.now() - start;
    state.answer = { p, best: highest(p) };
    state.quickest = Math.min(state.quickest, Math.max(took, 0.2));
    show(seen, state.image);
    const few = p.length <= 12, order = p.map((_, k) => k);
    if (!few) order.sort((a, b) => p[b] - p[a]);
    find("said").replaceChildren(element("bdi", model.classes[state.answer.best]), `, ${share(p[state.answer.best])}`);
    if (!state.inked) find("said").append(element("small", "This is the answer for empty paper. Draw something."));
    find("bars").classList.toggle("short", longest < 4);
    find("bars").classList.toggle("long", longest > 14);
    find("bars").replaceChildren(...order.slice(0, few ? 12 : 10).map(k => {
      const row = element("li", "", k === state.answer.best ? "top" : ""), bar = element("span", "", "bar"), fill = element("i");
      fill.style.width = `${100 * p[k]}%`;
      bar.append(fill);
      row.append(element("bdi", model.classes[k]), bar, element("b", share(p[k])));
      return row;
    }));
    find("time").textContent = `Computed in ${took < 10 ? took.toFixed(1) : Math.round(took)} ms${few ? "" : `; the ten likeliest of ${p.length} classes`}.`;
    tellSet();
    explain();
  }

  function tellSet() {
    if (!find("set")) return;
    const { threshold, said } = model.sets[find("coverage").value];
    const inside = model.classes.filter((_, k) => threshold === null || 1 - state.answer.p[k] <= threshold);
    find("set").replaceChildren("the set is ", element("bdi", inside.length ? inside.join(", ") : "empty", "set-names"), inside.length ? "." : ": no class is likely enough.");
    find("promise").textContent = said;
  }

  // Occlusion

  function patch(side, longer) {
    return longer <= 32 ? Math.min(side, 5) : Math.min(side, Math.max(5, Math.round(side * 5 / 28)));
  }

  // How much the probability of a class falls when each of the windows is covered; `each` is called after one.
  async function occlusion(image, k, stride, fill, goOn = () => true) {
    const longer = Math.max(height, width), before = probabilities(image)[k], falls = [];
    let since = performance.now();
    for (const window of engine.windows(height, width, stride, patch(height, longer), patch(width, longer))) {
      falls.push(before - probabilities(engine.covered(image, model.shape, window, fill))[k]);
      if (performance.now() - since > 30) {
        await new Promise(resume => setTimeout(resume));
        if (!goOn(falls.length)) return null;
        since = performance.now();
      }
    }
    return falls;
  }

  // The smallest stride with which the map takes about two seconds, at most the window's side.
  function strideFor(took) {
    const most = patch(Math.min(height, width), Math.max(height, width));
    let stride = 1;
    while (stride < most && Math.ceil(height / stride) * Math.ceil(width / stride) * took > 2000) stride++;
    return stride;
  }

  async function explain() {
    const turn = ++state.turn, { best } = state.answer, said = find("mapped");
    map.hidden = true;
    find("scale").hidden = true;
    if (!find("occlude").checked) return void (said.textContent = "");
    said.textContent = "Computing…";
    await new Promise(resume => setTimeout(resume, 150));
    if (turn !== state.turn) return;
    const stride = strideFor(state.quickest), columns = Math.ceil(width / stride), many = columns * Math.ceil(height / stride);
    const falls = await occlusion(state.image, best, stride, Number(find("fill").value), done => {
      if (turn === state.turn) said.textContent = `Computing… ${Math.round(100 * done / many)} %`;
      return turn === state.turn;
    });
    if (!falls || turn !== state.turn) return;
    const longer = Math.max(height, width), most = Math.max(...falls.map(Math.abs), 1e-9);
    paintMap(falls, stride, columns, most);
    const points = (100 * most).toFixed(most < 0.001 ? 3 : 1), [low, , high] = find("ramp").children;
    [low.textContent, high.textContent] = [`−${points}`, `+${points}`];
    find("scale").hidden = false;
    said.textContent = `Points that the probability of ${model.classes[best]} falls by when a window of ${patch(height, longer)}×${patch(width, longer)} pixels ` +
      `around the place is covered with ${find("fill").selectedOptions[0].text}; below 0 it rises. The window moved by ${stride} ${stride > 1 ? "pixels" : "pixel"}.`;
  }

  function paintMap(falls, stride, columns, most) {
    map.width = width;
    map.height = height;
    const context = map.getContext("2d"), style = getComputedStyle(document.documentElement);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const fall = falls[Math.floor(y / stride) * columns + Math.floor(x / stride)];
        context.fillStyle = style.getPropertyValue(fall > 0 ? "--c0" : "--c1");
        context.globalAlpha = 0.9 * Math.abs(fall) / most;
        context.fillRect(x, y, 1, 1);
      }
    }
    map.hidden = false;
  }

  // Drawing

  let asked = 0;
  function soon() {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(answer);
  }

  function remember() {
    const { exact, blank, inked } = state;
    state.undo.push({ shown: pen.getImageData(0, 0, paper.width, paper.height), exact, blank, inked });
    if (state.undo.length > 30) state.undo.shift();
    find("undo").disabled = false;
    [state.exact, state.inked] = [null, true];
    press(null);
  }

  function undo() {
    const last = state.undo.pop();
    if (!last) return;
    pen.putImageData(last.shown, 0, 0);
    [state.exact, state.blank, state.inked] = [last.exact, last.blank, last.inked];
    find("undo").disabled = !state.undo.length;
    press(null);
    soon();
  }

  const css = value => `rgb(${value}, ${value}, ${value})`;
  const ink = () => find("eraser").getAttribute("aria-pressed") === "true" ? css(paperValue()) : find("ink")?.value ?? css(255 - paperValue());

  function wipe() {
    pen.fillStyle = css(paperValue());
    pen.fillRect(0, 0, paper.width, paper.height);
    [state.exact, state.blank, state.inked] = [null, true, false];
  }

  function clear() {
    remember();
    wipe();
    soon();
  }

  function stroke([x, y], [toX, toY]) {
    pen.strokeStyle = ink();
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = find("brush").value * zoom;
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(toX, toY);
    pen.stroke();
    soon();
  }

  let last = null;
  const place = event => {
    const box = paper.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * paper.width, (event.clientY - box.top) / box.height * paper.height];
  };
  paper.addEventListener("pointerdown", event => {
    if (event.button) return;
    paper.setPointerCapture(event.pointerId);
    remember();
    last = place(event);
    stroke(last, last);
  });
  paper.addEventListener("pointermove", event => {
    if (!last) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const next = place(each);
      stroke(last, next);
      last = next;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) paper.addEventListener(end, () => { last = null; });

  // The keyboard draws whole pixels of the network.
  function pixel([row, column], on) {
    pen.fillStyle = on ? find("ink")?.value ?? css(255 - paperValue()) : css(paperValue());
    pen.fillRect(column * zoom, row * zoom, zoom, zoom);
    soon();
  }

  function isInk([row, column]) {
    const [r, g, b] = pen.getImageData((column + 0.5) * zoom, (row + 0.5) * zoom, 1, 1).data;
    return Math.max(...[r, g, b].map(value => Math.abs(value - paperValue()))) > 64;
  }

  function pointAt() {
    const context = cursor.getContext("2d"), [row, column] = state.cell;
    context.clearRect(0, 0, cursor.width, cursor.height);
    if (document.activeElement !== paper || !paper.matches(":focus-visible")) return;
    for (const [colour, wider] of [["white", 3], ["black", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = wider;
      context.strokeRect(column * zoom + 0.5, row * zoom + 0.5, zoom - 1, zoom - 1);
    }
    find("where").textContent = `Row ${row + 1}, column ${column + 1}: ${isInk(state.cell) ? "ink" : "paper"}`;
  }

  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  paper.addEventListener("keydown", event => {
    if (event.key in MOVES) {
      const [down, across] = MOVES[event.key], [row, column] = state.cell;
      state.cell = [Math.min(height - 1, Math.max(0, row + down)), Math.min(width - 1, Math.max(0, column + across))];
      if (event.shiftKey) {
        remember();
        pixel([row, column], true);
        pixel(state.cell, true);
      }
    } else if (event.key === " " || event.key === "Enter") {
      const on = !isInk(state.cell);
      remember();
      pixel(state.cell, on);
    } else return;
    event.preventDefault();
    pointAt();
  });
  for (const change of ["focus", "blur"]) paper.addEventListener(change, pointAt);

  document.addEventListener("keydown", event => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") {
      event.preventDefault();
      undo();
    }
  });

  // Pictures

  function take(image) {
    remember();
    [state.exact, state.blank] = [image, false];
    show(paper, image, zoom);
    soon();
  }

  async function open(file) {
    if (!file) return;
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      find("said").textContent = `${file.name} cannot be read as a picture by this browser.`;
      return;
    }
    const smaller = Math.min(1, 4096 / Math.max(picture.width, picture.height)), canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.width, picture.height].map(side => Math.max(1, Math.round(side * smaller)));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    take(fitted(planes(context.getImageData(0, 0, canvas.width, canvas.height).data, channels), canvas.height, canvas.width));
  }

  find("file").addEventListener("change", event => {
    open(event.target.files[0]);
    event.target.value = "";
  });
  document.addEventListener("paste", event => open(Array.from(event.clipboardData.files).find(file => file.type.startsWith("image/"))));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, event => {
      event.preventDefault();
      paper.parentElement.classList.toggle("over", kind === "dragover");
      if (kind === "drop") open(event.dataTransfer.files[0]);
    });
  }

  function tested() {
    if (!model.images) return [];
    const { content, scale, rows } = model.images, stored = engine.bytes(content), n = channels * pixels;
    return rows.map((row, k) => ({ ...row, image: Float32Array.from(stored.subarray(k * n, (k + 1) * n), value => value / scale) }));
  }

  function press(button) {
    for (const each of find("pictures").querySelectorAll("button")) each.setAttribute("aria-pressed", each === button);
  }

  function list(rows) {
    find("tested").hidden = !rows.length;
    find("pictures").replaceChildren(...rows.map(({ image, truth, predicted, kind }) => {
      const item = element("li"), button = element("button"), canvas = element("canvas");
      show(canvas, image);
      canvas.setAttribute("aria-hidden", "true");
      const told = predicted === truth ? kind : `answered ${model.classes[predicted]}`;
      button.append(canvas, element("bdi", model.classes[truth]), element("br"), element("span", told, predicted === truth ? "" : "wrong"));
      button.addEventListener("click", () => {
        take(image);
        press(button);
      });
      item.append(button);
      return item;
    }));
  }

  // The logits of the test images and of a pattern against those of the run.
  function check(rows) {
    const pattern = Float32Array.from({ length: channels * pixels }, (_, i) => i * 7919 % 256 / 255);
    let most = 0;
    for (const [image, expected] of [[pattern, model.pattern], ...rows.map(row => [row.image, row.logits])]) {
      const top = Math.max(...expected);
      run(image).forEach((logit, k) => {
        const apart = Math.abs(logit - expected[k]) / Math.max(1, Math.abs(top), Math.abs(expected[k]));
        most = apart <= most ? most : apart;
      });
    }
    const of = rows.length ? `${rows.length} test images and a pattern` : "a pattern", fine = most <= model.allowed;
    find("checked").textContent = `Logits of ${of} differ from the run's by at most ${most.toExponential(1)}${fine ? "." : `, more than ${model.allowed}: do not trust its answers here.`}`;
    find("checked").classList.toggle("bad", !fine);
  }

  // Beginning

  [paper.width, paper.height] = [cursor.width, cursor.height] = [width * zoom, height * zoom];
  find("brush").max = Math.max(2, Math.max(height, width) / 5);
  find("brush").value = Math.max(1, Math.max(height, width) * 0.085);
  find("dark").checked = model.light;
  find("centre").checked = model.centred;
  if (find("ink")) find("ink").value = model.light ? "#000000" : "#ffffff";
  find("clear").addEventListener("click", clear);
  find("undo").addEventListener("click", undo);
  find("eraser").addEventListener("click", event => {
    const button = event.currentTarget;
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  });
  find("dark").addEventListener("change", clear);
  find("centre").addEventListener("change", soon);
  find("coverage")?.addEventListener("change", tellSet);
  for (const id of ["occlude", "fill"]) find(id).addEventListener("change", explain);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", explain);
  wipe();
  const rows = tested();
  list(rows);
  check(rows);
  answer();
  globalThis.stresslens = { logits: image => Array.from(run(Float32Array.from(image))), occlusion, fitted, planes, model };
})();
