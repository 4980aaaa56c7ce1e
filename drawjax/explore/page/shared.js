// What both tabs use.

export const element = id => document.getElementById(id);

// Shows a message, an Error's too, where a screen reader reads it at once; "" takes it away.
export function complain(problem) {
  const lost = problem instanceof TypeError && /fetch|load/i.test(problem.message);
  element("alert").textContent =
    lost ? "The server of this page does not answer. Is it still running?" : problem.message || problem;
}

// A response, or an Error with what the server says.
export async function ask(address, options = {}) {
  const response = await fetch(address, options);
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try { message = JSON.parse(text).error; } catch { /* not every refusal is JSON */ }
  throw new Error(message);
}

export const tooLarge = (file, limit) =>
  `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${limit / 1e6} MB are taken.`;

export const bytes = base64 => Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));

export async function image(address, options) {
  const answer = await (await ask(address, options)).json();
  if (answer.refused) throw new Error(answer.refused);
  return {...answer, pixels: bytes(answer.pixels)};
}

// Runs `work` whenever called, one at a time; calls meanwhile make one more run, with the newest.
// What went wrong is said unless something newer is asked for.
export function latest(work) {
  let busy = false, again = false;
  return async () => {
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      try { await work(); } catch (problem) { if (!again) complain(problem); }
    }
    busy = false;
  };
}

// Paints values, 0..1 times `scale`, of [height, width, channels] on a canvas of that size.
export function paint(canvas, values, height, width, channels, scale) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const data = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let k = 0; k < 3; k++) data.data[4 * i + k] = scale * values[channels * i + k % channels];
    data.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
}

// Where an event is on a stage, in pixels of the image: 0.5 is the middle of the first.
export function place(event, stage, width, height) {
  const box = stage.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * width,
    (event.clientY - box.top) / box.height * height];
}

// The rectangle of a window (center and half the side in the paper's pixels) in an SVG of the image.
export function frame(rectangle, x, y, half) {
  const side = 2 * Math.max(half, 0.25);
  rectangle.setAttribute("x", x - 0.5 - side / 2);
  rectangle.setAttribute("y", y - 0.5 - side / 2);
  rectangle.setAttribute("width", side);
  rectangle.setAttribute("height", side);
}
