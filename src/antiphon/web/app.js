/**
 * Binds the call to the elements of the page: the button, the keyboard, the words, the ring.
 */

import { Call } from "./call.js";
import { Captions } from "./captions.js";
import { Meter } from "./meter.js";
import { ACTION, BUTTON, endingFor, lineFor, problemFor } from "./words.js";

const element = (id) => document.getElementById(id);
const [button, label, state, hint, alert] = ["talk", "talk-label", "state", "hint", "alert"].map(element);

let phase = "idle";
let floor = "open";

const captions = new Captions(element("captions"));
const call = new Call(
  { phase: enterPhase, floor: enterFloor, ending: (reason) => say(hint, endingFor(reason)), problem },
  captions,
);
const meter = new Meter(element("meter"), () => call.levels());

/** Changes the text only when it is another one: each change is read out by screen readers. */
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function showLine() {
  const line = lineFor(phase, floor);
  say(state, line.state);
  say(hint, line.hint);
}

function enterPhase(next) {
  phase = next;
  document.body.dataset.phase = phase;
  document.body.classList.toggle("has-captions", !captions.empty || phase === "live");
  const over = phase === "ended" || phase === "failed";
  say(label, call.running ? BUTTON.end : over ? BUTTON.again : BUTTON.start);
  button.classList.toggle("on", call.running);
  if (phase === "live") meter.start();
  else meter.stop();
  showLine();
}

function enterFloor(next) {
  floor = next;
  document.body.dataset.floor = floor;
  showLine();
}

/** Shows a problem with the one thing to do about it, or takes the last one away. */
function problem(what) {
  if (what === null) {
    alert.replaceChildren();
    return;
  }
  const text = document.createElement("p");
  text.textContent = what.text ?? problemFor(what.kind);
  const shown = what.action ? [text, actionButton(what.action)] : [text];
  const same = shown.map((node) => node.textContent).join("") === alert.textContent;
  if (!same) alert.replaceChildren(...shown); // unchanged, it would be read out once more
}

function actionButton(action) {
  const press = document.createElement("button");
  press.type = "button";
  press.textContent = ACTION[action];
  press.addEventListener("click", () => {
    button.focus(); // the pressed one goes away with its message
    if (action === "dismiss") problem(null);
    else if (action === "now") call.retryNow();
    else void call.start({ keepCaptions: true });
  });
  return press;
}

button.addEventListener("click", () => {
  if (call.running) call.end();
  else void call.start();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") call.end();
});
document.addEventListener("visibilitychange", () => call.wake());
document.addEventListener("pointerdown", () => call.wake());
window.addEventListener("online", () => call.retryNow());
window.addEventListener("pagehide", () => call.end());

window.antiphonDebug = Object.freeze({ stats: () => call.stats() });
enterPhase("idle");
