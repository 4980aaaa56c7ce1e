// The tab of the attention window. All that is shown comes from drawjax.attention on the server;
// this file turns pointer, keys and sliders into the five numbers of Eq. 21, and pictures it.
import {ask, complain, element, frame, image, latest, paint, place, tooLarge} from "./shared.js";

const SLIDERS = [  // the five numbers in the order of Eq. 21
  {id: "center-x", label: "Center x", symbol: "g̃X", min: -1.25, max: 1.25, text: v => `${v} px`},
  {id: "center-y", label: "Center y", symbol: "g̃Y", min: -1.25, max: 1.25, text: v => `${v} px`},
  {id: "log-variance", label: "Variance", symbol: "log σ²", min: -6, max: 10, text: v => `σ ${v} px`},
  {id: "log-stride", label: "Stride", symbol: "log δ̃", min: -4, max: 1, text: v => `${v} px`},
  {id: "log-intensity", label: "Intensity", symbol: "log γ", min: -3, max: 3, text: v => `× ${v}`},
];

export function startLooking(about) {
  const stage = element("stage"), overlay = element("overlay"), source = element("source");
  let picture = null, logits = [0, 0, 0, 0, 0], patchSize = 12, seen = null, digit = 0, home = 0;
  let speaking = 0, loads = 0, failed = false;

  const sliders = SLIDERS.map(({id, label, symbol, min, max}, i) =>
    addSlider(id, label, symbol, min, max, 0.01, value => {
      logits[i] = value;
      if (i === 2) element("follow").checked = false;
      changed();
    }));
  sliders.push(addSlider("patch-size", "Filters a side", "N", 1, about.maxPatch, 1, value => {
    patchSize = value;
    changed();
  }));

  function addSlider(id, label, symbol, min, max, step, act) {
    const name = document.createElement("label"), input = document.createElement("input");
    const text = document.createElement("span");  // no <output>: it would be read out loud
    name.htmlFor = input.id = id;
    name.textContent = label + " ";
    name.append(Object.assign(document.createElement("span"), {className: "soft", textContent: symbol}));
    Object.assign(input, {type: "range", min, max, step});
    text.id = id + "-text";
    input.addEventListener("input", () => act(Number(input.value)));
    const row = document.createElement("div");
    row.className = "slider";
    row.append(name, input, text);
    element("sliders").append(row);
    return {input, text};
  }

  const clamp = (value, i) => Math.min(Math.max(value, SLIDERS[i].min), SLIDERS[i].max);
  const widest = () => (Math.max(picture.width, picture.height) - 1) / Math.max(patchSize - 1, 1);

  function changed() {
    if (!picture) return;
    if (element("follow").checked) {
      logits[2] = clamp(2 * Math.log(widest() * Math.exp(logits[3]) / 2), 2);
    }
    logits.forEach((value, i) => { sliders[i].input.value = value; });
    sliders[5].input.value = patchSize;
    refresh();
  }

  const refresh = latest(async () => {
    const {height, width, channels, pixels} = picture, size = patchSize, asked = [...logits];
    const query = new URLSearchParams({height, width, channels, patch: size, logits: asked});
    const response = await ask("glimpse?" + query, {method: "POST", body: pixels})
      .catch(problem => { failed = true; throw problem; });
    if (failed) complain("");
    failed = false;
    const floats = new Float32Array(await response.arrayBuffer());
    if (pixels !== picture.pixels) return;  // of an image that is gone
    let at = 0;
    const take = count => floats.subarray(at, at += count);
    const [x, y, stride, variance, intensity] = take(5);
    seen = {x, y, stride, variance, intensity, size, asked, height, width, channels,
      meansY: take(size), meansX: take(size), patch: take(size * size * channels),
      written: take(height * width * channels)};
    show();
  });

  function showPicture() {
    const {height, width, channels, pixels} = picture;
    paint(element("scene"), pixels, height, width, channels, 1);
    stage.style.maxWidth = `calc(66vh * ${width / height})`;
  }

  function show() {
    const {height, width, channels, size, x, y, stride, variance, intensity, asked} = seen;
    const deviation = Math.sqrt(variance), half = (size - 1) / 2 * stride;
    overlay.toggleAttribute("hidden", false);
    paint(element("patch"), seen.patch, size, size, channels, 255);
    // The Riemann sum of the inverse; a single filter has no neighbor, and so no stride.
    const gain = element("brighten").checked && size > 1 ? stride ** 2 : 1;
    paint(element("written"), seen.written, height, width, channels, 255 * gain);
    overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const points = [...seen.meansY].flatMap(py => [...seen.meansX].map(px =>
      `M${(px - 0.5).toFixed(2)} ${(py - 0.5).toFixed(2)}h0`)).join("");
    element("dots").setAttribute("d", points);
    element("filters").setAttribute("d", points);
    element("filters").setAttribute("stroke-width", 2 * deviation);
    frame(element("window"), x, y, half);
    const [hx, hy] = handle();
    element("handle").setAttribute("cx", hx);
    element("handle").setAttribute("cy", hy);
    element("handle").setAttribute("r", 8 * unit());

    const [low, high] = range(seen.patch), [dark, bright] = range(seen.written);
    const values = [x, y, deviation, stride, intensity];
    values.forEach((value, i) => {
      const digits = Math.abs(value) < 0.1 ? value.toPrecision(2) : value.toFixed(2);
      const text = SLIDERS[i].text(digits);
      sliders[i].text.textContent = `${asked[i].toFixed(2)} → ${text}`;
      sliders[i].input.setAttribute("aria-valuetext", text);
    });
    sliders[5].text.textContent = `${size} × ${size}`;
    element("patch-text").textContent = `${size} × ${size}, ${low} to ${high}`;
    element("written-text").textContent = `${dark} to ${bright}${gain === 1 ? "" : ", shown × stride²"}`;
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      element("said").textContent = `Window at ${x.toFixed(1)}, ${y.toFixed(1)} pixels, ` +
        `${size} by ${size} filters, ${stride.toFixed(2)} pixels apart. Patch from ${low} to ${high}.`;
    }, 700);
  }

  function range(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    return [low, high].map(value => Math.abs(value) < 5e-6 ? 0 : Number(value.toPrecision(3)));
  }

  // Pixels of the image in one of the screen; the stage has no width while its tab is hidden.
  const unit = () => seen.width / (stage.clientWidth || seen.width);

  // Outside the window's corner, but never outside the image.
  function handle() {
    const half = (seen.size - 1) / 2 * seen.stride, gap = 9 * unit();
    const keep = (value, most) => Math.min(Math.max(value, gap), most - gap);
    return [keep(seen.x - 0.5 + half + gap, seen.width), keep(seen.y - 0.5 + half + gap, seen.height)];
  }

  function moveTo(x, y) {  // the inverse of Eq. 22-23
    logits[0] = clamp(2 * (x + 0.5) / (picture.width + 1) - 1, 0);
    logits[1] = clamp(2 * (y + 0.5) / (picture.height + 1) - 1, 1);
    changed();
  }

  const center = () => [(picture.width + 1) / 2 * (logits[0] + 1) - 0.5,
    (picture.height + 1) / 2 * (logits[1] + 1) - 0.5];

  let drag = null;
  stage.addEventListener("pointerdown", event => {
    if (!seen || event.button !== 0 || !event.isPrimary) return;
    stage.setPointerCapture(event.pointerId);
    const [px, py] = place(event, stage, picture.width, picture.height), [cx, cy] = center();
    const [hx, hy] = handle(), reach = (event.pointerType === "mouse" ? 12 : 24) * unit();
    const toHandle = Math.hypot(px - hx, py - hy), toCenter = Math.hypot(px - cx, py - cy);
    const half = Math.max((seen.size - 1) / 2 * seen.stride, reach);
    if (toHandle < reach && toHandle < toCenter) {
      drag = {stride: logits[3], from: Math.max(toCenter, 1e-3)};
    } else {
      const inside = Math.abs(px - cx) <= half && Math.abs(py - cy) <= half;
      drag = inside ? {dx: cx - px, dy: cy - py} : {dx: 0, dy: 0};
      moveTo(px + drag.dx, py + drag.dy);
    }
  });
  stage.addEventListener("pointermove", event => {
    if (!drag || !event.isPrimary) return;
    const [px, py] = place(event, stage, picture.width, picture.height), [cx, cy] = center();
    if (drag.from) {
      const ratio = Math.max(Math.hypot(px - cx, py - cy), 1e-3) / drag.from;
      logits[3] = clamp(drag.stride + Math.log(ratio), 3);
      changed();
    } else {
      moveTo(px + drag.dx, py + drag.dy);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, event => { if (event.isPrimary) drag = null; });
  }
  stage.addEventListener("keydown", event => {
    const step = event.shiftKey ? 10 : 1, [x, y] = center();
    const moves = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]};
    const zoom = {"+": 0.1, "=": 0.1, "-": -0.1, "−": -0.1}[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in moves || zoom)) return;
    event.preventDefault();
    if (zoom) {
      logits[3] = clamp(logits[3] + zoom, 3);
      changed();
    } else {
      moveTo(x + moves[event.key][0], y + moves[event.key][1]);
    }
  });
  new ResizeObserver(() => { if (seen) show(); }).observe(stage);

  function reset() {
    logits = [home, home, 0, Math.log(0.5), 0];
    patchSize = 12;
    element("follow").checked = element("brighten").checked = true;
    changed();
  }

  async function load(address, options, words) {
    const turn = ++loads;
    complain("");
    try {
      const loaded = await image(address, options);
      if (turn !== loads) return;  // another one was chosen meanwhile
      picture = loaded;
      seen = null;  // the first glimpse of a new size takes a moment to compile
      overlay.toggleAttribute("hidden", true);
      showPicture();
    } catch (problem) {
      if (turn === loads) complain(problem);
      return;
    }
    element("own")?.remove();  // gone, once another image is looked at
    if (words) source.add(Object.assign(new Option(words, "own", false, true), {id: "own"}));
    element("another-digit").hidden = source.value !== "digit";
    element("note").textContent = picture.note || "";
    home = address === "image/digits" ? 0.4 : 0;  // on one of the two digits
    reset();
  }

  const names = {...Object.fromEntries(Object.entries(about.builtIn).map(
    ([name, label]) => ["image/" + name, label])), digit: "A test digit"};
  for (const [value, label] of Object.entries(names)) source.add(new Option(label, value));
  const fromSource = () => load(source.value === "digit" ? `digit/${digit}` : source.value);
  source.addEventListener("change", () => { if (source.value !== "own") fromSource(); });
  element("another-digit").addEventListener("click", () => { digit++; fromSource(); });
  element("reset").addEventListener("click", reset);
  element("follow").addEventListener("change", changed);
  element("brighten").addEventListener("change", () => seen && show());

  function open(file) {
    if (file.size > about.maxBytes) {
      complain(tooLarge(file, about.maxBytes));
      return;
    }
    load("image", {method: "POST", body: file}, file.name);
  }
  element("file").addEventListener("change", event => {
    if (event.target.files.length) open(event.target.files[0]);
    event.target.value = "";  // the same file again is a change too
  });

  fromSource();
  return {open};
}
