/**
 * Binds the call to the elements of the page: the button, the keyboard, the words, the ring.
 */

import { WakeLock } from "./awake.js";
import { Call } from "./call.js";
import { Captions } from "./captions.js";
import { feedbackSection, readAnalysis } from "./feedback.js";
import { HoldButton } from "./hold.js";
import { Meter } from "./meter.js";
import { Settings } from "./settings.js";
import { SettingsPanel } from "./settings-panel.js";
import { asJson, asText, download, fileName } from "./transcript.js";
import { ACTION, BUTTON, endingFor, lineFor, NOTICE, problemFor } from "./words.js";

const RESUME_KEY = "antiphon.resume";
const RESUME_MS = 30_000;
const REMEMBER_MS = 5_000;

const element = (id) => document.getElementById(id);
const [button, label, state, hint, alert] = ["talk", "talk-label", "state", "hint", "alert"].map(element);
const [holdButton, endButton, feedbackButton] = ["hold", "end", "end-with-feedback"].map(element);

let phase = "idle";
let floor = "open";
let held = false;
let hiddenInCall = false;
let analysis = null; // of the conversation that is shown

const settings = new Settings();
const wakeLock = new WakeLock();
const captions = new Captions(element("captions"));
const call = new Call(
  { phase: enterPhase, floor: enterFloor, ending: (reason) => say(hint, endingFor(reason)), problem, notice, feedback },
  captions,
  settings,
);
const meter = new Meter(element("meter"), levels);
const hand = new HoldButton(holdButton, { press: () => hold(true), release: () => hold(false) });
const panel = new SettingsPanel(element("settings"), settings, applySettings);

/** Changes the text only when it is another one: each change is read out by screen readers. */
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function showLine() {
  const line = lineFor(phase, floor, settings.values.listen, held);
  say(state, line.state);
  say(hint, line.hint);
}

function enterPhase(next) {
  phase = next;
  document.body.dataset.phase = phase;
  if (captions.empty) analysis = null;
  document.body.classList.toggle("has-captions", !captions.empty || phase === "live" || phase === "analysing");
  const over = phase === "ended" || phase === "failed";
  say(label, call.running ? BUTTON.end : over ? BUTTON.again : BUTTON.start);
  button.classList.toggle("on", call.running);
  if (phase === "live") void panel.ask().then(showButtons); // the owner may have set a level
  if (phase === "live") meter.start();
  else meter.stop();
  wakeLock.want(call.running);
  if (over) forget();
  showButtons();
  showLine();
}

/** With push-to-talk the round button is for talking, and a small one ends the conversation. */
function showButtons() {
  const push = phase === "live" && settings.values.listen === "push";
  const focused = document.activeElement;
  if (!push) hand.letGo();
  button.hidden = push;
  holdButton.hidden = endButton.hidden = !push;
  feedbackButton.hidden = phase !== "live" || panel.level === "";
  if (focused?.hidden) (push ? holdButton : button).focus(); // it was on the button that has just gone
  document.body.dataset.listen = settings.values.listen;
}

/** The ring shows what is sent: with push-to-talk nobody hears the caller before the button is down. */
function levels() {
  const { caller, agent } = call.levels();
  return { caller: settings.values.listen === "push" && !held ? 0 : caller, agent };
}

function enterFloor(next) {
  floor = next;
  document.body.dataset.floor = floor;
  remember();
  showLine();
}

function hold(now) {
  held = now;
  holdButton.classList.toggle("on", held);
  if (held) call.press();
  else call.release();
  showLine();
}

/** Shows a problem with the one thing to do about it, or takes the last one away. */
function problem(what) {
  if (what === null) {
    alert.replaceChildren();
    return;
  }
  alert.classList.toggle("calm", what.calm === true);
  const text = document.createElement("p");
  text.textContent = what.text ?? problemFor(what.kind);
  const shown = what.action ? [text, actionButton(what.action)] : [text];
  const same = shown.map((node) => node.textContent).join("") === alert.textContent;
  if (!same) alert.replaceChildren(...shown); // unchanged, it would be read out once more
}

/** Something worth knowing that needs nothing to be done. */
function notice(name) {
  problem({ text: NOTICE[name], action: "dismiss", calm: true });
}

/** What a teacher says, below the last word; who cannot see it is taken there. */
function feedback(data) {
  analysis = readAnalysis(data);
  const section = feedbackSection(analysis);
  captions.conclude(section);
  section.focus({ preventScroll: true });
}

function actionButton(action) {
  const press = document.createElement("button");
  press.type = "button";
  press.textContent = ACTION[action];
  press.addEventListener("click", () => {
    (button.hidden ? holdButton : button).focus(); // the pressed one goes away with its message
    act(action);
  });
  return press;
}

function act(action) {
  if (action === "dismiss") problem(null);
  else if (action === "now") call.retryNow();
  else if (action === "wake") call.wake();
  else if (action === "settings") panel.open();
  else if (action === "resume") void call.start({ resume: cutOff() });
  else void call.start({ keepCaptions: true });
}

function applySettings(changes) {
  if ("timing" in changes) showTiming();
  if ("listen" in changes) chooseListening(changes.listen);
  if ("level" in changes) showButtons();
  return call.configure(changes);
}

function chooseListening(listen) {
  for (const input of document.querySelectorAll("#listen input")) input.checked = input.value === listen;
  showButtons();
  showLine();
}

function showTiming() {
  document.body.classList.toggle("no-timing", !settings.values.timing);
}

function save(ending, mimeType, write) {
  const { began } = captions;
  const { sessionId } = call.stats();
  download(write({ entries: captions.entries(), began, sessionId, analysis }), mimeType, fileName(began, ending));
}

// A tab that crashed or was copied may take its conversation up again; one that was left has ended it.

function remember() {
  const resumption = call.resumption;
  if (resumption === null) return;
  try {
    window.sessionStorage.setItem(RESUME_KEY, JSON.stringify({ ...resumption, at: Date.now() }));
  } catch {
    // Then it cannot be taken up again.
  }
}

function forget() {
  try {
    window.sessionStorage.removeItem(RESUME_KEY);
  } catch {
    // There is nothing to forget.
  }
}

function cutOff() {
  try {
    const kept = JSON.parse(window.sessionStorage.getItem(RESUME_KEY));
    // Its captions are gone with the page: everything that the server still has is welcome.
    return kept && Date.now() - kept.at < RESUME_MS ? { token: kept.token, frames: 0 } : null;
  } catch {
    return null;
  }
}

function visibilityChanged() {
  const asleep = hiddenInCall && call.stats().contextState !== "running";
  hiddenInCall = document.visibilityState === "hidden" && phase === "live";
  if (document.visibilityState !== "visible") return;
  call.wake();
  call.retryNow();
  if (asleep && phase === "live") notice("awake");
}

button.addEventListener("click", () => {
  if (call.running) call.end();
  else void call.start();
});
endButton.addEventListener("click", () => call.end());
feedbackButton.addEventListener("click", () => call.endWithFeedback());
element("listen").addEventListener("change", ({ target }) => {
  applySettings(settings.change({ listen: target.value }));
});
element("open-settings").addEventListener("click", () => panel.open());
element("save-text").addEventListener("click", () => save("txt", "text/plain", asText));
element("save-json").addEventListener("click", () => save("json", "application/json", asJson));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.isOpen) call.end();
});
document.addEventListener("visibilitychange", visibilityChanged);
document.addEventListener("pointerdown", () => call.wake());
window.addEventListener("online", () => call.retryNow());
window.addEventListener("pagehide", () => call.end());

window.antiphonDebug = Object.freeze({ stats: () => call.stats() });
setInterval(remember, REMEMBER_MS);
showTiming();
chooseListening(settings.values.listen);
enterPhase("idle");
if (cutOff() !== null) problem({ text: NOTICE.unfinished, action: "resume" });
