// The tab of the model that draws: an easel, requests to the server, and a player of the steps.
import {ask, bytes, complain, element, image, latest, paint, place, tooLarge} from "./shared.js";

const NEUTRAL = [70, 110, 190];  // what is not known on the easel

export function startDrawing(about) {
  const models = Object.fromEntries(about.models.map(model => [model.name, model]));
  element("no-models").hidden = about.models.length > 0;
  element("studio").hidden = about.models.length === 0;
  if (!about.models.length) return {shown() {}, left() {}, open: null};
  for (const {name} of about.models) element("model").add(new Option(name, name));

  const player = startPlayer(about.count);
  const easel = startEasel(() => request(false));
  const mode = () => document.querySelector("input[name=mode]:checked").value;
  const model = () => models[element("model").value];
  const loaded = new Set();
  let playNext = false, opened = false;

  // What is shown is dim until it is what was asked for.
  function stale(is) {
    element("drawings").classList.toggle("stale", is);
    element("drawings").setAttribute("aria-busy", is);
  }

  function request(play) {
    playNext = play;
    draw();
  }

  const draw = latest(async () => {
    const seed = element("seed"), {name, shape} = model(), completing = mode() === "complete";
    if (!seed.checkValidity() || seed.value === "") {
      complain("The seed must be a whole number from 0 to 2147483647.");
      return;
    }
    complain("");
    element("drawn").textContent = loaded.has(name + completing) ? "Drawing …" :
      `Loading ${name} … (some seconds, the first time)`;
    stale(true);
    let drawing;
    try {
      const query = new URLSearchParams({model: name, seed: seed.value});
      const response = completing
        ? await ask("complete?" + query, {method: "POST", body: easel.content()})
        : await ask("draw?" + query, {method: "POST"});
      drawing = await response.json();
    } catch (problem) {
      element("drawn").textContent = "";
      throw problem;
    }
    loaded.add(name + completing);
    stale(false);
    const [steps, count] = drawing.shape;
    const what = completing ? "completions of your drawing" : "drawings";
    element("drawn").textContent = `${count} ${what} in ${steps} steps, seed ${seed.value}.`;
    player.show({...drawing, frames: bytes(drawing.frames)}, playNext, what);
  });

  async function choose() {
    const {shape, steps, data} = model();
    element("model-text").textContent = `${shape[0]} × ${shape[1]} pixels, ${steps} steps` +
      (data && `, trained on ${data}`) + ".";
    await easel.resize(shape);
    request(true);
  }

  function another() {
    element("seed").value = Math.floor(Math.random() * 2 ** 31);
    request(true);
  }

  async function open(file) {
    complain("");
    if (file.size > about.maxBytes) return complain(tooLarge(file, about.maxBytes));
    const picture = await image("image", {method: "POST", body: file});
    document.querySelector("input[name=mode][value=complete]").checked = true;
    element("easel").hidden = false;
    easel.put(picture);
    request(false);
  }

  element("model").addEventListener("change", () => choose().catch(complain));
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => {
      element("easel").hidden = mode() !== "complete";
      request(mode() === "seed");
    });
  }
  element("put-file").addEventListener("change", event => {
    if (event.target.files.length) open(event.target.files[0]).catch(complain);
    event.target.value = "";
  });
  element("another-seed").addEventListener("click", another);
  element("go").addEventListener("click", () => request(true));
  element("seed").addEventListener("keydown", event => { if (event.key === "Enter") request(true); });
  return {
    shown() {
      if (!opened) choose().catch(complain);
      opened = true;
    },
    left: player.stop,
    open,
  };
}

// Where the person draws. `changed` is called when a stroke has ended.
function startEasel(changed) {
  const stage = element("paint-stage"), region = element("region");
  let height = 0, width = 0, channels = 1, pixels = null, painted = null, digit = 0;
  let pen = null, brush = [0, 0];

  function inRegion(y, x) {
    return {lower: y >= height / 2, upper: y < height / 2, left: x < width / 2,
      right: x >= width / 2, nothing: false}[region.value];
  }

  function known() {
    return painted.map((stroke, i) => {
      if (stroke) return 1;
      if (region.value === "blank") {
        return Number(pixels.subarray(i * channels, (i + 1) * channels).some(value => value > 0));
      }
      return Number(!inRegion(Math.floor(i / width), i % width));
    });
  }

  function show() {
    const mask = known(), shown = new Uint8Array(3 * height * width);
    for (let i = 0; i < height * width; i++) {
      for (let k = 0; k < 3; k++) {
        shown[3 * i + k] = mask[i] ? pixels[channels * i + k % channels] : NEUTRAL[k];
      }
    }
    paint(element("paint"), shown, height, width, 3, 1);
    element("paint-overlay").setAttribute("viewBox", `0 0 ${width} ${height}`);
    element("brush").setAttribute("x", brush[0]);
    element("brush").setAttribute("y", brush[1]);
  }

  // A soft round dot, or nothing again, with its middle at x, y.
  function dot(x, y) {
    const erase = element("erase").checked, radius = (erase ? 1.6 : 1.1) * height / 28;
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const strength = radius + 0.5 - Math.hypot(column + 0.5 - x, row + 0.5 - y);
        if (strength <= 0) continue;
        const i = row * width + column;
        painted[i] = erase ? 0 : 1;
        for (let k = i * channels; k < (i + 1) * channels; k++) {
          pixels[k] = erase ? 0 : Math.max(pixels[k], 255 * Math.min(strength, 1));
        }
      }
    }
  }

  function line([x0, y0], [x1, y1]) {
    const count = Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)) || 1;
    for (let i = 1; i <= count; i++) dot(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count);
    show();
  }

  stage.addEventListener("pointerdown", event => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    pen = place(event, stage, width, height);
    line(pen, pen);
  });
  stage.addEventListener("pointermove", event => {
    if (!pen) return;
    const next = place(event, stage, width, height);
    line(pen, next);
    pen = next;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, () => { if (pen) { pen = null; changed(); } });
  }
  stage.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const old = brush, [dx, dy] = move || [0, 0], middle = ([x, y]) => [x + 0.5, y + 0.5];
    brush = [Math.min(Math.max(old[0] + dx, 0), width - 1), Math.min(Math.max(old[1] + dy, 0), height - 1)];
    if (!move || event.shiftKey) line(middle(old), middle(brush)); else show();
  });
  stage.addEventListener("keyup", event => {
    if (event.key === " " || event.key === "Shift") changed();
  });

  function clear() {
    pixels = new Uint8Array(height * width * channels);
    painted = new Uint8Array(height * width);
    show();
  }

  // The middle of a picture, as large as it fits, in the model's size and channels.
  function put(picture) {
    const own = document.createElement("canvas"), fitted = document.createElement("canvas");
    paint(own, picture.pixels, picture.height, picture.width, picture.channels, 1);
    Object.assign(fitted, {width, height});
    const context = fitted.getContext("2d"), scale = Math.max(width / own.width, height / own.height);
    context.imageSmoothingQuality = "high";
    const [w, h] = [scale * own.width, scale * own.height];
    context.drawImage(own, (width - w) / 2, (height - h) / 2, w, h);
    const {data} = context.getImageData(0, 0, width, height);
    painted.fill(0);
    pixels = pixels.map((_, i) => {
      const [red, green, blue] = data.subarray(4 * Math.floor(i / channels));
      return channels === 1 ? Math.round(0.299 * red + 0.587 * green + 0.114 * blue) : [red, green, blue][i % channels];
    });
    show();
  }

  const putDigit = async () => put(await image(`digit/${digit++}`));

  region.addEventListener("change", () => { show(); changed(); });
  element("clear").addEventListener("click", () => { clear(); changed(); });
  element("put-digit").addEventListener("click", () => putDigit().then(changed, complain));
  element("invert").addEventListener("click", () => {
    pixels = pixels.map(value => 255 - value);
    show();
    changed();
  });
  return {
    async resize(shape) {
      [height, width, channels] = shape;
      brush = [Math.floor(width / 2), Math.floor(height / 4)];
      clear();
      await putDigit();
    },
    put,
    content: () => new Blob([pixels, known()]),
  };
}

// Shows `count` drawings step by step.
function startPlayer(count) {
  const play = element("play"), step = element("step"), stages = [];
  const space = "http://www.w3.org/2000/svg";
  let drawing = null, timer = null, words = "drawings";
  for (let i = 0; i < count; i++) {
    const stage = document.createElement("div"), canvas = document.createElement("canvas");
    const overlay = document.createElementNS(space, "svg");
    const [read, write] = ["read", "write"].map(name => {
      const outline = document.createElementNS(space, "polygon");
      outline.setAttribute("class", name);
      overlay.append(outline);
      return outline;
    });
    stage.className = "stage";
    stage.append(canvas, overlay);
    element("drawings").append(stage);
    stages.push({canvas, overlay, read, write});
  }

  function show() {
    if (!drawing) return;
    const [steps, , height, width, channels] = drawing.shape, t = Number(step.value) - 1;
    const size = height * width * channels;
    stages.forEach(({canvas, overlay, ...outlines}, i) => {
      const from = (t * count + i) * size;
      paint(canvas, drawing.frames.subarray(from, from + size), height, width, channels, 1);
      overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
      for (const name of ["read", "write"]) {
        const windows = drawing[name];
        outlines[name].toggleAttribute("hidden", !windows || !element("windows").checked);
        if (windows) outlines[name].setAttribute("points", windows[t][i].join(" "));
      }
    });
    const text = `${t + 1} of ${steps}`;
    element("step-text").textContent = text;
    step.setAttribute("aria-valuetext", text);
    element("drawings").setAttribute("aria-label", `${count} ${words} after step ${text}`);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  function start() {
    stop();
    if (step.value === step.max) step.value = 1;
    play.textContent = "Pause";
    timer = setInterval(() => {
      step.value = Number(step.value) + 1;
      if (step.value === step.max) stop();
      show();
    }, 120 / Number(element("speed").value));
    show();
  }

  play.addEventListener("click", () => timer ? stop() : start());
  step.addEventListener("input", () => { stop(); show(); });
  element("speed").addEventListener("change", () => { if (timer) start(); });
  element("windows").addEventListener("change", show);
  return {
    stop,
    show(newDrawing, playIt, newWords) {
      stop();
      drawing = newDrawing;
      words = newWords;
      element("read-key").hidden = !drawing.read;
      step.max = step.value = drawing.shape[0];
      step.disabled = play.disabled = false;
      if (playIt && !matchMedia("(prefers-reduced-motion: reduce)").matches) start(); else show();
    },
  };
}
