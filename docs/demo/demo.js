// The page that draws by itself: asks a worker with ONNX Runtime in place of a server.
import {bytes, complain, element, latest} from "./shared.js";
import {startEasel} from "./easel.js";
import {startPlayer} from "./player.js";

// A file of the page: inside of it, where it is one file; else beside it. Compressed by gzip.
async function asset(name) {
  const inside = element(name);
  let content = inside && bytes(inside.textContent);
  if (!inside) {
    if (location.protocol === "file:") {
      throw new Error("This page needs a web server; draw.html, beside it, opens from disk.");
    }
    const response = await fetch(`${name}.gz`);
    if (!response.ok) throw new Error(`${name}.gz is not beside this page.`);
    content = await response.blob();
  }
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function startWorker() {
  let worker = null, asked = 0;
  const waiting = {}, loads = {};

  function ask(message, transfer = []) {
    const id = asked++;
    worker.postMessage({id, ...message}, transfer);
    return new Promise((resolve, reject) => { waiting[id] = {resolve, reject}; });
  }

  async function start() {
    const [script, wasm] = await Promise.all(["worker.js", "onnxruntime.wasm"].map(asset));
    worker = new Worker(URL.createObjectURL(new Blob([script], {type: "text/javascript"})));
    worker.onmessage = ({data: {id, outputs, problem}}) => {
      const {resolve, reject} = waiting[id];
      delete waiting[id];
      if (problem) reject(new Error(problem)); else resolve(outputs);
    };
    worker.onerror = ({message}) => {
      for (const {reject} of Object.values(waiting)) reject(new Error(`The worker failed: ${message}`));
    };
    await ask({wasm}, [wasm.buffer]);
  }

  // What `load` gives; called once, and again only if it failed.
  function once(name, load) {
    return loads[name] ??= load().catch(problem => { delete loads[name]; throw problem; });
  }

  // Started, and each model loaded, when first needed.
  function ready(name) {
    return once(name, async () => {
      await once("start", start);
      const model = await asset(`${name}.onnx`);
      return ask({name, model}, [model.buffer]);
    });
  }

  return {
    ready,
    run: (name, inputs) => ask({name, inputs}),  // of a model that is ready
  };
}

// Standard normal numbers of a seed (mulberry32 and Box-Muller): the same on every machine.
function normals(seed, count) {
  const uniform = () => {
    seed = (seed + 0x6D2B79F5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  return Float32Array.from({length: count}, () =>
    Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

// Corners of windows [T, count, 5], in pixels from the image's upper left corner: the centers of the
// outermost filters, Eq. 19-20.
function corners({data, shape: [steps, count, numbers]}, size) {
  return Array.from({length: steps}, (_, t) => Array.from({length: count}, (_, i) => {
    const [x, y, stride] = data.subarray((t * count + i) * numbers);
    const half = (size - 1) / 2 * stride, [l, r] = [x - 0.5 - half, x - 0.5 + half];
    const [u, d] = [y - 0.5 - half, y - 0.5 + half];
    return [l, u, r, u, r, d, l, d];
  }));
}

function startDemo(models) {
  const COUNT = 4, worker = startWorker(), player = startPlayer();
  const easel = startEasel(() => request(false));
  let playNext = false;
  for (const {name, label} of models) element("model").add(new Option(label, name));
  const model = () => models.find(({name}) => name === element("model").value);
  const mode = () => model().classifies ? "classify" :
    document.querySelector("input[name=mode]:checked").value;

  // One number per image and step; between two seeds on the arc, so that they stay normal.
  function noise(steps) {
    const seed = Number(element("seed").value), size = steps * COUNT * model().latents;
    const angle = Number(element("mix").value) / 100 * Math.PI / 2, to = normals(seed + 1, size);
    const mixed = normals(seed, size).map((v, i) => Math.cos(angle) * v + Math.sin(angle) * to[i]);
    return [mixed, [steps, COUNT, model().latents]];
  }

  // A one in the place of the class that is asked for, for each image.
  function condition(classes) {
    const label = Number(element("label").value);
    return [Float32Array.from({length: COUNT * classes}, (_, i) => Number(i % classes === label)),
      [COUNT, classes]];
  }

  async function content(count) {
    const [height, width, channels] = model().shape, area = height * width;
    const both = new Uint8Array(await easel.content().arrayBuffer());
    const repeated = (values, scale, channels) => [
      Float32Array.from({length: count * values.length}, (_, i) => values[i % values.length] / scale),
      [count, height, width, channels]];
    return {images: repeated(both.subarray(0, area * channels), 255, channels),
      known: repeated(both.subarray(area * channels), 1, 1)};
  }

  function request(play) {
    playNext = play;
    draw();
  }

  // Nothing is being drawn any more.
  function rest(said) {
    element("drawn").textContent = said;
    element("drawings").setAttribute("aria-busy", "false");
  }

  const draw = latest(async () => {
    const wrong = ["seed", "steps"].find(id => !element(id).checkValidity() || !element(id).value);
    if (wrong && mode() !== "classify") {
      complain(`${element(wrong).labels[0].textContent} must be a whole number from ` +
        `${element(wrong).min} to ${element(wrong).max}.`);
      return rest("");
    }
    complain("");
    const what = mode(), {name, shape, sizes} = model();
    const [steps, seed, mix] = ["steps", "seed", "mix"].map(id => Number(element(id).value));
    element("drawn").textContent = "Drawing …";
    element("drawings").classList.add("stale");
    element("drawings").setAttribute("aria-busy", "true");
    const inputs = {};
    if (what === "classify") inputs.images = (await content(1)).images;
    else inputs.noise = noise(steps);
    if (what === "complete") Object.assign(inputs, await content(COUNT));
    if (model().classes) inputs.condition = condition(model().classes);
    const file = `${name}.${what}`, seen = inputs.images?.[0];
    const failed = problem => { rest(""); throw problem; };
    await worker.ready(file).catch(failed);  // loading it is no part of the time that is said
    const began = performance.now();
    const outputs = await worker.run(file, inputs).catch(failed);
    if (what !== mode() || name !== model().name) return;  // chosen anew meanwhile
    element("drawings").classList.remove("stale");
    const windows = Object.fromEntries(["read", "write"].map(kind => [kind,
      outputs[`${kind}_windows`] ? corners(outputs[`${kind}_windows`], sizes[kind]) : null]));
    if (what === "classify") {
      const glimpses = windows.read.length, frame = seen.map(v => 255 * v);
      const frames = new Uint8Array(glimpses * frame.length);
      for (let t = 0; t < glimpses; t++) frames.set(frame, t * frame.length);
      rest(verdict(outputs.logits.data));
      player.show({shape: [glimpses, 1, ...shape], frames, ...windows}, playNext, "image looked at");
    } else {
      const words = what === "complete" ? "completions of your drawing" : "drawings";
      const time = ((performance.now() - began) / 1000).toFixed(1);
      const between = mix ? `${mix} % of the way from seed ${seed} to ${seed + 1}` : `seed ${seed}`;
      rest(`${COUNT} ${words} in ${steps} steps, ${between}; computed in ${time} s.`);
      const frames = Uint8Array.from(outputs.drawing.data, value => Math.round(255 * value));
      player.show({shape: outputs.drawing.shape, frames, ...windows}, playNext, words);
    }
  });

  function showMix(percent) {
    element("mix").value = percent;
    element("mix").setAttribute("aria-valuetext", `${percent} percent`);
    element("mix-text").textContent = `${percent} %`;
  }

  function verdict(logits) {
    const highest = Math.max(...logits), odds = [...logits].map(v => Math.exp(v - highest));
    const sum = odds.reduce((a, b) => a + b), order = odds.map((v, i) => [v / sum, i]);
    const [[first, digit], [second, other]] = order.sort(([a], [b]) => b - a);
    const percent = share => `${(100 * share).toFixed(share > 0.99 ? 1 : 0)} %`;
    const doubt = second < 0.01 ? "" : `, or a ${other} (${percent(second)})`;
    return `It sees a ${digit} (${percent(first)})${doubt}.`;
  }

  // Short strokes, as of torn digits, away from the middle of what is drawn.
  function scatter() {
    const [height, width] = model().shape;
    for (let i = 0; i < 8; i++) {
      const [x, y] = [10 + Math.random() * (width - 20), 10 + Math.random() * (height - 20)];
      const [turn, bend] = [Math.random() * 6.3, Math.random() * 2 - 1];
      const at = t => [x + t * Math.cos(turn) - bend * t * t / 8 * Math.sin(turn),
        y + t * Math.sin(turn) + bend * t * t / 8 * Math.cos(turn)];
      easel.line(at(-4), at(0), false);
      easel.line(at(0), at(4), false);
    }
    request(true);
  }

  async function choose() {
    const {classifies, shape, steps, text, picture, classes} = model();
    const labels = Array.from({length: classes ?? 0}, (_, label) => new Option(label, label));
    element("label").replaceChildren(...labels);
    element("label").value = Math.min(7, labels.length - 1);
    element("label-field").hidden = !classes;
    element("model-text").textContent = text;
    for (const id of ["modes", "seeds", "another-seed"]) element(id).hidden = classifies;
    element("region-field").hidden = element("fills").hidden = classifies;
    element("scatter").hidden = !classifies;
    element("go").textContent = classifies ? "Look" : "Draw";
    element("steps").value = steps;
    element("region").value = classifies ? "nothing" : "lower";
    // A classifier's digits are as large as others, on a larger easel.
    await easel.resize(shape, classifies ? 1 : shape[0] / 28);
    const [height, width, channels] = shape;
    easel.put({pixels: bytes(picture), height, width, channels});
    switchMode();
  }

  function switchMode() {
    element("easel").hidden = mode() === "generate";
    element("mixing").hidden = mode() === "classify";
    request(mode() !== "complete");
  }

  element("model").addEventListener("change", () => choose().catch(complain));
  element("label").addEventListener("change", () => request(true));
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", switchMode);
  }
  element("another-seed").addEventListener("click", () => {
    element("seed").value = Math.floor(Math.random() * 2 ** 31);
    showMix(0);
    request(true);
  });
  element("mix").addEventListener("input", () => {
    showMix(element("mix").value);
    request(false);
  });
  for (const id of ["seed", "steps"]) {
    element(id).addEventListener("keydown", event => { if (event.key === "Enter") request(true); });
  }
  element("scatter").addEventListener("click", scatter);
  element("go").addEventListener("click", () => request(true));
  choose().catch(complain);
}

startDemo(JSON.parse(element("models").textContent));
