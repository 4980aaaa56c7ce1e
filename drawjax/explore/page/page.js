// The tabs, what is dropped, and what both tabs share: see attention.js and drawing.js.
import {startDrawing} from "./drawing.js";
import {startLooking} from "./attention.js";
import {ask, complain, element} from "./shared.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(tab, studio) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    element(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  complain("");
  if (tab.id === "draw-tab") studio.shown(); else studio.left();
}

async function start() {
  const about = await (await ask("about")).json();
  const look = startLooking(about);
  const studio = startDrawing(about);
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => select(tab, studio));
    tab.addEventListener("keydown", event => {
      const turn = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!turn) return;
      const next = tabs[(i + turn + tabs.length) % tabs.length];
      select(next, studio);
      next.focus();
    });
  });
  const body = document.body;
  body.addEventListener("dragover", event => {
    event.preventDefault();  // otherwise the browser leaves the page for the file
    body.classList.add("over");
  });
  body.addEventListener("dragleave", event => {
    if (!event.relatedTarget) body.classList.remove("over");
  });
  body.addEventListener("drop", event => {
    event.preventDefault();
    body.classList.remove("over");
    const [file] = event.dataTransfer.files, onEasel = !element("draw").hidden;
    if (!onEasel) select(tabs[0], studio);
    if (!file) complain("Nothing was dropped that is a file.");
    else if (onEasel) studio.open(file).catch(complain);
    else look.open(file);
  });
}

start().catch(complain);
