/**
 * The conversation as a file. Knows neither elements nor the protocol.
 *
 * A talk is {entries, began: Date, sessionId, analysis: of feedback.js or null}. An entry is {speaker: "caller"|"agent",
 * at: Date, text, unheard}; `text` is what was said and, of the agent, heard.
 */

import { levelOf, partsOf } from "./feedback.js";
import { FEEDBACK, SPEAKER } from "./words.js";

/** One line per utterance; unheard words in square brackets. The feedback, if there is one, at the end. */
export function asText({ entries, began, analysis }) {
  const lines = entries.map(({ speaker, at, text, unheard }) => {
    const rest = unheard ? `[not heard: ${unheard}]` : "";
    return `${clock(at)}  ${SPEAKER[speaker]}: ${[text, rest].filter(Boolean).join(" ")}`;
  });
  const end = analysis === null ? [] : ["", ...feedbackLines(analysis)];
  return [`Conversation of ${began.toLocaleString()}`, "", ...lines, ...end, ""].join("\n");
}

function feedbackLines(analysis) {
  const level = levelOf(analysis);
  const lines = [FEEDBACK.title, analysis.summary, level && `${FEEDBACK.level}: ${level}`].filter(Boolean);
  for (const [title, entries] of partsOf(analysis)) {
    lines.push("", title, ...entries.map((entry) => `  - ${typeof entry === "string" ? entry : inOneLine(entry)}`));
  }
  return lines;
}

function inOneLine({ said, correction, why }) {
  return `${FEEDBACK.said}: ${said} -> ${FEEDBACK.better}: ${correction}${why ? ` (${why})` : ""}`;
}

export function asJson({ entries, began, sessionId, analysis }) {
  const data = {
    session_id: sessionId,
    began_at: began.toISOString(),
    entries: entries.map(({ at, ...entry }) => ({ ...entry, at: at.toISOString() })),
    feedback: analysis,
  };
  return `${JSON.stringify(data, null, 2)}\n`;
}

/** Hands a file to the person. */
export function download(text, mimeType, name) {
  const url = URL.createObjectURL(new Blob([text], { type: `${mimeType};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // some browsers read it later
}

/** A name that sorts by time: antiphon-2026-01-31-1405.txt */
export function fileName(began, ending) {
  const two = (number) => String(number).padStart(2, "0");
  const day = [began.getFullYear(), two(began.getMonth() + 1), two(began.getDate())].join("-");
  return `antiphon-${day}-${two(began.getHours())}${two(began.getMinutes())}.${ending}`;
}

function clock(at) {
  return at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}
