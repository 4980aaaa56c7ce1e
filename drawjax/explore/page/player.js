// Shows drawings step by step, with the windows over them.
import {element, paint} from "./shared.js";

export function startPlayer() {
  const play = element("play"), step = element("step"), stages = [];
  const space = "http://www.w3.org/2000/svg";
  let drawing = null, timer = null, words = "drawings";
  function addStage() {
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
    stages.push({stage, canvas, overlay, read, write});
  }

  function show() {
    if (!drawing) return;
    const [steps, count, height, width, channels] = drawing.shape, t = Number(step.value) - 1;
    const size = height * width * channels;
    stages.forEach(({canvas, overlay, ...outlines}, i) => {
      const from = (t * count + i) * size;
      paint(canvas, drawing.frames.subarray(from, from + size), height, width, channels, 1);
      overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
      for (const name of ["read", "write"]) {
        const windows = drawing[name];
        const corners = windows?.[t][i].flat() ?? [null];  // null where a window is not finite
        const shown = element("windows").checked && !corners.includes(null);
        outlines[name].toggleAttribute("hidden", !shown);
        if (shown) outlines[name].setAttribute("points", corners.join(" "));
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
      while (stages.length < drawing.shape[1]) addStage();
      while (stages.length > drawing.shape[1]) stages.pop().stage.remove();
      words = newWords;
      for (const name of ["read", "write"]) element(`${name}-key`).hidden = !drawing[name];
      step.max = drawing.shape[0];
      step.value = step.max;  // after it: a value beyond the end would be cut
      step.disabled = play.disabled = false;
      if (playIt && !matchMedia("(prefers-reduced-motion: reduce)").matches) start(); else show();
    },
  };
}
