/**
 * The conversation as a file. Knows neither elements nor the protocol.
 *
 * An entry is {speaker: "caller"|"agent", at: Date, text, unheard}; `text` is what was said and, of the agent, heard.
 */

import { SPEAKER } from "./words.js";

/** One line per utterance; unheard words in square brackets. */
export function asText(entries, began) {
  const lines = entries.map(({ speaker, at, text, unheard }) => {
    const rest = unheard ? `[not heard: ${unheard}]` : "";
    return `${clock(at)}  ${SPEAKER[speaker]}: ${[text, rest].filter(Boolean).join(" ")}`;
  });
  return [`Conversation of ${began.toLocaleString()}`, "", ...lines, ""].join("\n");
}

export function asJson(entries, began, sessionId) {
  const data = {
    session_id: sessionId,
    began_at: began.toISOString(),
    entries: entries.map(({ at, ...entry }) => ({ ...entry, at: at.toISOString() })),
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
