/**
 * Where the time of one answer went: a table whose cells are bars, so that it reads as well as it looks.
 * Takes the server's record of a turn (docs/protocols/conversation.md, `turn`); knows no connection.
 */

import { TIMING } from "./words.js";

const STEPS = [
  { name: "stt", from: "transcribe_ms", to: "transcript_ms" },
  { name: "turn", from: null, to: "committed_ms" },
  { name: "llm", from: "generate_ms", to: "first_token_ms" },
  { name: "tts", from: "speak_ms", to: "first_audio_ms" },
  { name: "heard", from: "first_sent_ms", to: "first_played_ms" },
];

/** Steps as [{name, fromMs, toMs}] counted from the end of speech, and the whole. Null: nothing to show. */
export function stepsOf(record) {
  // With push-to-talk nobody listens for the end of speech: it is the moment the button came up.
  const origin = record.speech_end_ms ?? (record.kind === "answer" ? record.transcribe_ms : null);
  const sent = record.first_sent_ms;
  if (typeof origin !== "number" || typeof sent !== "number") return null;
  const since = (mark) => (typeof record[mark] === "number" ? Math.max(0, record[mark] - origin) : null);
  const totalMs = Math.max(sent, record.first_played_ms ?? 0) - origin;
  const steps = STEPS.map(({ name, from, to }) => ({
    name,
    fromMs: from === null ? 0 : since(from),
    toMs: since(to),
  })).filter(({ fromMs, toMs }) => fromMs !== null && toMs !== null && toMs >= fromMs);
  return totalMs > 0 ? { totalMs, steps } : null;
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(2)} s`;
}

/** @returns {HTMLDetailsElement|null} folded to one line; open it to see the steps */
export function waterfall(record) {
  const found = stepsOf(record);
  if (found === null) return null;
  const details = document.createElement("details");
  details.className = "timing";
  const summary = document.createElement("summary");
  summary.textContent = TIMING.answered(seconds(found.totalMs));
  details.append(summary, chart(found));
  return details;
}

function chart({ totalMs, steps }) {
  const table = document.createElement("table");
  const caption = table.createCaption();
  caption.className = "visually-hidden";
  caption.textContent = TIMING.caption;
  const end = Math.max(totalMs, ...steps.map(({ toMs }) => toMs));
  for (const step of steps) {
    const row = table.insertRow();
    row.className = `step ${step.name}`;
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = TIMING.steps[step.name];
    row.append(head, bar(step, end), took(step));
  }
  return table;
}

function bar({ fromMs, toMs }, end) {
  const cell = document.createElement("td");
  cell.className = "track";
  const inner = document.createElement("span");
  inner.style.setProperty("--from", `${(100 * fromMs) / end}%`);
  inner.style.setProperty("--width", `${(100 * (toMs - fromMs)) / end}%`);
  cell.append(inner);
  return cell;
}

function took({ fromMs, toMs }) {
  const cell = document.createElement("td");
  cell.className = "took";
  cell.textContent = `${Math.round(toMs - fromMs)} ms`;
  const when = document.createElement("span");
  when.className = "visually-hidden";
  when.textContent = `, ${TIMING.after(Math.round(fromMs))}`;
  cell.append(when);
  return cell;
}
