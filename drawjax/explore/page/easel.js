// Where a person draws: with a pointer, or the keys.
import {complain, element, paint, place} from "./shared.js";

const NEUTRAL = [70, 110, 190];  // what is not known on the easel

// `changed` is called when a stroke has ended; `nextDigit` gives a picture, if there are any.
export function startEasel(changed, nextDigit = null) {
  const stage = element("paint-stage"), region = element("region");
  let height = 0, width = 0, channels = 1, pixels = null, painted = null, tip = 1;
  let pen = null, brush = [0, 0], keyed = false, puts = 0;

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
  function dot(x, y, erase) {
    const radius = (erase ? 1.6 : 1.1) * tip;
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

  function line([x0, y0], [x1, y1], erase = element("erase").checked) {
    const count = Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)) || 1;
    for (let i = 1; i <= count; i++) {
      dot(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count, erase);
    }
    show();
  }

  stage.addEventListener("pointerdown", event => {
    if (event.button !== 0 || !event.isPrimary) return;  // a second finger draws nothing
    stage.setPointerCapture(event.pointerId);
    pen = place(event, stage, width, height);
    line(pen, pen);
  });
  stage.addEventListener("pointermove", event => {
    if (!pen || !event.isPrimary) return;
    const next = place(event, stage, width, height);
    line(pen, next);
    pen = next;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, event => {
      if (!pen || !event.isPrimary) return;
      pen = null;
      changed();
    });
  }
  stage.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const old = brush, [dx, dy] = move || [0, 0], middle = ([x, y]) => [x + 0.5, y + 0.5];
    brush = [Math.min(Math.max(old[0] + dx, 0), width - 1), Math.min(Math.max(old[1] + dy, 0), height - 1)];
    if (move && !event.shiftKey) return show();
    keyed = true;
    line(middle(old), middle(brush));
  });
  const lift = () => { if (keyed) { keyed = false; changed(); } };
  stage.addEventListener("keyup", event => { if (event.key === " " || event.key === "Shift") lift(); });
  stage.addEventListener("blur", lift);  // by Shift+Tab the key is lifted elsewhere

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

  // Puts a picture once it is there, unless another was asked for meanwhile; returns whether it did.
  async function putWhenThere(coming) {
    const turn = ++puts;
    try {
      const picture = await coming;
      if (turn === puts) put(picture);
    } catch (problem) {
      if (turn === puts) throw problem;
    }
    return turn === puts;
  }

  const putDigit = () => putWhenThere(nextDigit());

  region.addEventListener("change", () => { show(); changed(); });
  element("clear").addEventListener("click", () => { clear(); changed(); });
  element("put-digit")?.addEventListener("click", () => putDigit().then(changed, complain));
  element("invert").addEventListener("click", () => {
    pixels = pixels.map(value => 255 - value);
    show();
    changed();
  });
  return {
    // A larger easel has a brush as much larger, unless it is told otherwise.
    async resize(shape, brushSize = shape[0] / 28) {
      [height, width, channels] = shape;
      tip = brushSize;
      brush = [Math.floor(width / 2), Math.floor(height / 4)];
      clear();
      if (nextDigit) await putDigit();
    },
    put,
    putWhenThere,
    line,
    content: () => new Blob([pixels, known()]),
  };
}
