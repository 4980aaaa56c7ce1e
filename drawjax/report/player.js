// Plays drawing sequences. A player remembers its place, so that it survives an update of the page.
// After the last step of a drawing that was written through windows comes the image without them.

const remembered = new Map();
const playing = new Set();
const WINDOWS = [["read", "Read window", "#19c24a", [5, 3]], ["write", "Write window", "#f03a2e", []]];

function player(parent, id, drawing) {
  const {height, width, count, steps} = drawing, last = drawing.write ? steps + 1 : steps;
  const memory = remembered.get(id) || {step: last, rate: 1, hidden: {}};
  memory.step = Math.min(memory.step, last);
  remembered.set(id, memory);
  const box = add(parent, "section", null, {class: "player", "aria-labelledby": `${id}-title`});
  add(box, "h3", drawing.title, {id: `${id}-title`});
  const canvas = add(box, "canvas", null, {role: "img", "aria-label": drawing.description});
  const controls = add(box, "div", null, {class: "controls"});
  const play = add(controls, "button", "Play", {type: "button", id: `${id}-play`});
  const label = add(controls, "label", "Step ", {class: "scrubber"});
  const scrub = add(label, "input", null, {type: "range", id: `${id}-step`, min: 1, max: last, step: 1, value: memory.step});
  const where = add(controls, "span", "", {class: "where", "aria-hidden": "true"});
  const speed = add(add(controls, "label", "Speed "), "select", null, {id: `${id}-speed`});
  for (const rate of [0.25, 0.5, 1, 2, 4])
    add(speed, "option", `${rate}×`, {value: rate, ...(rate === memory.rate ? {selected: ""} : {})});
  const shown = WINDOWS.filter(([name]) => drawing[name]).map(([name, title, color, dash]) => {
    const toggle = add(controls, "label", null);
    const input = add(toggle, "input", null, {type: "checkbox", id: `${id}-${name}`});
    input.checked = !memory.hidden[name];
    input.addEventListener("change", () => { memory.hidden[name] = !input.checked; show(); });
    const mark = draw(toggle, "svg", {width: 22, height: 16, "aria-hidden": "true"});
    draw(mark, "rect", {x: 2, y: 2, width: 18, height: 12, fill: "none", stroke: color, "stroke-width": 2.5,
      "stroke-dasharray": dash.join(" ")});
    toggle.append(title);
    return {windows: drawing[name], input, color, dash};
  });
  const pen = canvas.getContext("2d"), sprite = new Image(), beside = new Image(), gap = 6;
  const across = drawing.beside ? 2 : 1;  // images to a cell
  let timer = null, cell = 0, columns = count;

  // As many images per row as fit at a size that can be looked at.
  function lay() {
    const room = box.clientWidth - 26, ratio = window.devicePixelRatio || 1;
    const least = across * Math.max(96, width), most = across * Math.max(160, width);
    columns = Math.max(1, Math.min(count, Math.floor((room + gap) / (least + gap))));
    cell = Math.min((room + gap) / columns - gap, most) / across;
    const rows = Math.ceil(count / columns), size = [columns * (across * cell + gap) - gap,
      rows * (cell * height / width + gap) - gap];
    [canvas.width, canvas.height] = size.map(side => Math.round(side * ratio));
    [canvas.style.width, canvas.style.height] = size.map(side => `${side}px`);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    show();
  }

  function show() {
    const step = memory.step = Number(scrub.value), scale = cell / width;
    where.textContent = step > steps ? "done" : `${step} of ${steps}`;
    scrub.setAttribute("aria-valuetext", where.textContent);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = false;
    for (let i = 0; i < count; i++) {
      pen.save();
      pen.translate(i % columns * (across * cell + gap), Math.floor(i / columns) * (height * scale + gap));
      if (drawing.beside) {
        pen.drawImage(beside, i * width, 0, width, height, 0, 0, cell, height * scale);
        pen.translate(cell, 0);
      }
      pen.beginPath();
      pen.rect(0, 0, cell, height * scale);
      pen.clip();
      const row = (Math.min(step, steps) - 1) * height;
      pen.drawImage(sprite, i * width, row, width, height, 0, 0, cell, height * scale);
      for (const {windows, input, color, dash} of step > steps ? [] : shown) {
        const numbers = windows[step - 1][i];
        if (!input.checked || numbers.includes(null)) continue;
        pen.strokeStyle = color;
        pen.lineWidth = 1.5;  // thin: a digit of 28 pixels is to be seen under it
        pen.setLineDash(dash);
        pen.beginPath();
        for (let corner = 0; corner < 8; corner += 2)
          pen.lineTo(numbers[corner] * scale, numbers[corner + 1] * scale);
        pen.closePath();
        pen.stroke();
      }
      pen.restore();
    }
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    playing.delete(id);
    play.textContent = "Play";
  }

  function start() {
    if (Number(scrub.value) >= last) scrub.value = 1;
    play.textContent = "Pause";
    playing.add(id);
    timer = setInterval(() => {
      if (Number(scrub.value) >= last) return stop();
      scrub.value = Number(scrub.value) + 1;
      show();
    }, 150 / memory.rate);
    show();
  }

  const turn = () => timer ? stop() : start();
  play.addEventListener("click", turn);
  scrub.addEventListener("input", () => { stop(); show(); });
  scrub.addEventListener("keydown", event => {
    if (event.key === " ") { event.preventDefault(); turn(); }
  });
  speed.addEventListener("change", () => {
    memory.rate = Number(speed.value);
    if (timer) { stop(); start(); }
  });
  for (const [image, source] of [[sprite, drawing.sprite], [beside, drawing.beside]]) {
    image.addEventListener("load", show);
    if (source) image.src = source;
  }
  onWidth(box, lay);
}
