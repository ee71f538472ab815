/**
 * Every sentence that the page itself says, in one place. Knows no element and no protocol.
 *
 * A "line" is {state, hint}: the large words under the button and the small ones below them.
 */

const PHASES = {
  idle: {
    state: "Ready when you are",
    hint: "Press the button, allow the microphone, and talk as you would to a person.",
  },
  microphone: {
    state: "Waiting for the microphone",
    hint: "Your browser asks whether this page may listen. Choose Allow.",
  },
  connecting: { state: "Connecting", hint: "One moment." },
  lost: { state: "Trying again", hint: "The conversation goes on as soon as the server answers." },
  ended: { state: "Conversation ended", hint: "Press the button to start a new one." },
  failed: { state: "Not connected", hint: "Press the button to try once more." },
};

const LISTENING = "Listening";
const FLOOR = {
  open: { state: LISTENING, hint: "Say something whenever you like." },
  caller: { state: LISTENING, hint: "Take your time." },
  deciding: { state: LISTENING, hint: "Take your time." },
  thinking: { state: "Thinking", hint: "You may go on if you were not finished." },
  agent: { state: "Speaking", hint: "You may interrupt at any time." },
  contested: { state: LISTENING, hint: "Go ahead, I am listening." },
  closing: { state: "Saying goodbye", hint: "The conversation is about to end." },
  ended: PHASES.ended,
};

const ENDINGS = {
  idle: "Nobody spoke for a while.",
  goodbye: "You said goodbye.",
  shutdown: "The server is shutting down.",
  limit: "The longest time for one conversation was reached.",
};

const PROBLEMS = {
  insecure:
    "Browsers allow the microphone only on https pages and on localhost. Open this page with an https address.",
  unsupported: "This browser cannot process sound in a page. A current Chrome, Edge, Firefox or Safari can.",
  denied:
    "The microphone is blocked for this page. Allow it in the browser's site settings (the icon beside the address), then try again.",
  missing: "No microphone was found. Connect one and try again.",
  occupied: "The microphone is in use by another program, or it failed. Close that program and try again.",
  unplugged: "The microphone was disconnected. Connect it again, then press Reconnect.",
  audio: "The sound could not be started on this device. Reload the page and try again.",
  unreachable: "The server cannot be reached. Check that it is running and that you are online.",
  loading: "The server is still loading its models.",
  busy: "The server is busy: all conversations are taken.",
  declined: "The server is up but did not take the conversation; it may be busy.",
  lost: "The connection to the server was lost.",
  refused: "The server refused the conversation.",
};

/** The line for a phase of the call; while it is live the floor decides. */
export function lineFor(phase, floor) {
  return phase === "live" ? (FLOOR[floor] ?? FLOOR.open) : PHASES[phase];
}

/** The hint for a conversation that the server ended; an unknown reason adds nothing. */
export function endingFor(reason) {
  const why = ENDINGS[reason];
  return why ? `${why} ${PHASES.ended.hint}` : PHASES.ended.hint;
}

/** What to tell a person about a problem, and what to do about it. */
export function problemFor(kind) {
  return PROBLEMS[kind] ?? PROBLEMS.audio;
}

export const BUTTON = { start: "Start", end: "End", again: "Start again" };
export const ACTION = { reconnect: "Reconnect", now: "Reconnect now", dismiss: "Dismiss" };
export const SPEAKER = { caller: "You", agent: "Agent" };
export const CAPTION = { unheard: "not heard:", reconnected: "Reconnected" };
