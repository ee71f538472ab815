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
  analysing: { state: "One moment", hint: "Your feedback is being written." },
  ended: { state: "Conversation ended", hint: "Press the button to start a new one." },
  failed: { state: "Not connected", hint: "Press the button to try once more." },
};

const LISTENING = "Listening";
const PUSH = {
  open: { state: "Your turn", hint: "Hold the button or the space key while you speak." },
  held: { state: LISTENING, hint: "Let go when you have finished." },
  agent: { state: "Speaking", hint: "Hold the button to interrupt." },
};
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
  analysed: "Your feedback is ready.",
  "nobody answered": "Nobody spoke for a while.",
  goodbye: "The agent said goodbye.",
  finished: "The agent said goodbye.",
  "the server is shutting down": "The server is shutting down.",
  "the call reached its longest duration": "The longest time for one conversation was reached.",
  "the client stopped reading": "The connection was too slow for the sound.",
  "the client is gone": "The connection was lost for too long.",
  "too many senseless messages": "This page and the server do not understand each other. Reload the page.",
  error: "Something went wrong in the server; its log says what.",
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
  loading: "The server is still loading its models. This may take a minute.",
  busy: "The server is busy: all conversations are taken.",
  key: "This server asks for an access key. Enter it in the settings.",
  taken: "This conversation goes on in another tab.",
  asleep: "The browser put the sound of this page to sleep.",
  declined: "The server is up but did not take the conversation; it may be busy.",
  lost: "The connection to the server was lost.",
  refused: "The server refused the conversation.",
  noFeedback: "The conversation ended before the feedback was there.",
};

/** The line for a phase of the call; while it is live the floor decides, and with push-to-talk the hand. */
export function lineFor(phase, floor, listen = "open", held = false) {
  if (phase !== "live") return PHASES[phase];
  const line = FLOOR[floor] ?? FLOOR.open;
  if (listen !== "push") return line;
  return held ? PUSH.held : (PUSH[floor] ?? (line.state === LISTENING ? PUSH.open : line));
}

/** The hint for a conversation that the server ended; an unknown reason adds nothing. */
export function endingFor(reason) {
  const why = ENDINGS[reason];
  return why ? `${why} ${PHASES.ended.hint}` : PHASES.ended.hint;
}

/** The kind of problem in a server's refusal; null when only its own words will do. */
export function kindOf(refusal) {
  if (/loading/.test(refusal)) return "loading";
  return /busy/.test(refusal) ? "busy" : null;
}

/** What to tell a person about a problem, and what to do about it. */
export function problemFor(kind) {
  return PROBLEMS[kind] ?? PROBLEMS.audio;
}

export const BUTTON = { start: "Start", end: "End", again: "Start again" };
export const ACTION = {
  reconnect: "Reconnect",
  now: "Reconnect now",
  dismiss: "Dismiss",
  wake: "Wake it up",
  resume: "Go on with it",
  settings: "Open the settings",
};
export const SPEAKER = { caller: "You", agent: "Agent" };
export const CAPTION = { unheard: "not heard:", reconnected: "Reconnected", startedAnew: "A new conversation" };
export const NOTICE = {
  awake: "The browser had put this page to sleep. It is awake again.",
  unfinished: "A conversation in this tab was cut off a moment ago.",
  tooShort: "Hold the button for as long as you speak.",
};
export const FEEDBACK = {
  title: "Feedback",
  level: "Estimated level",
  levels: { beginner: "beginner", intermediate: "intermediate", advanced: "advanced" },
  mistakes: "What to correct",
  said: "You said",
  better: "Better",
  vocabulary: "Useful words",
  suggestions: "What to try next",
  noMistakes: "Nothing stood out.",
  nothing: "The server sent no feedback that makes sense.",
};
export const SETTINGS = {
  now: "Saved. It holds from the next answer on.",
  next: "Saved. It holds from the next conversation on.",
  offline: "The server cannot be asked what it offers.",
};
export const TIMING = {
  caption: "Where the time went, counted from the end of your words",
  answered: (time) => `Answered after ${time}`,
  after: (ms) => `beginning after ${ms} ms`,
  steps: {
    stt: "Your words as text",
    turn: "Sure that you had finished",
    llm: "First word of the answer",
    tts: "First sound of the voice",
    heard: "On its way to your ear",
  },
};
