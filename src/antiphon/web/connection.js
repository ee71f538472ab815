/**
 * One websocket to the server: JSON and PCM each way. Knows nothing of sound or of the page.
 *
 * The protocol is described in docs/; extensions are asked for in the first message, and a server
 * that does not know them answers `connected` without naming any.
 */

const EXTENSIONS = [
  "clear", "played", "floor", "heard", "turn", "items", "settings", "commit", "resume", "notice",
];
const PING_MS = 20_000;
const PATIENCE_MS = 10_000; // for `connected` after the first byte was sent
const BACKLOG_S = 2; // microphone audio that the network does not take is dropped beyond this

/** Where the conversation is, seen from the page. */
export function conversationUrl(page = window.location) {
  const url = new URL("ws/conversation", page.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  url.search = "?start=1"; // a `start` will come: the server need not guess
  return url;
}

/** Reads a path of the server. Keys travel in a header, never in the address. */
export async function ask(path, key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  return fetch(new URL(path, window.location.href), { cache: "no-store", headers });
}

/** Why a connection did not come about, as far as a page can find out. */
export async function diagnose(key) {
  try {
    const answer = await ask("ready", key);
    if (!answer.ok) return answer.status === 503 ? "loading" : "unreachable";
    return (await ask("api/options", key)).status === 401 ? "key" : "declined";
  } catch {
    return "unreachable";
  }
}

/** A page cannot send headers with a websocket: the key is offered as a subprotocol, which allows these letters only. */
function protocolsFor(key) {
  return /^[\w.~+-]+$/.test(key) ? ["antiphon", `openai-insecure-api-key.${key}`] : [];
}

export class Connection {
  #socket;
  #start;
  #rate;
  #on;
  #extensions = new Set();
  #connected = false;
  #texts = null; // number of the last text frame, where the server counts them
  #silent = false; // nothing came since the last ping
  #timer = 0;
  #framesSent = 0;
  #framesDropped = 0;

  /**
   * @param {number} rate of the microphone frames, Hz
   * @param {object} wishes further fields of `start`
   * @param {string} key of a server that asks for one; else empty
   * @param {{connected: (message) => void, message: (message) => void,
   *          audio: (pcm: ArrayBuffer) => void, closed: (code: number, reason: string) => void}} on
   *   `closed` comes exactly once unless the page closed the connection itself.
   */
  constructor(rate, wishes, key, on) {
    this.#start = { type: "start", format: "pcm_s16le", rate, extensions: EXTENSIONS, ...wishes };
    this.#rate = rate;
    this.#on = on;
    this.#socket = new WebSocket(conversationUrl(), protocolsFor(key));
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = ({ data }) => this.#received(data);
    this.#socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#timer = setTimeout(() => this.#lost(4000, "no answer"), PATIENCE_MS);
  }

  /** @param {ArrayBuffer} frame s16le; dropped while not connected and when the network is stuck */
  sendAudio(frame) {
    if (!this.#connected || this.#socket.readyState !== WebSocket.OPEN) return;
    if (this.#socket.bufferedAmount > BACKLOG_S * this.#rate * 2) {
      this.#framesDropped += 1;
      return;
    }
    this.#socket.send(frame);
    this.#framesSent += 1;
  }

  /** Tells how much of a reply was heard, if the server wants to know. */
  sendPlayed(reply, ms) {
    if (this.#extensions.has("played")) this.#sendJson({ type: "played", reply, ms });
  }

  /** Changes settings in mid-call, or says what the button does. @returns {boolean} the server understands it */
  send(extension, message) {
    if (!this.#connected || !this.has(extension)) return false;
    this.#sendJson(message);
    return true;
  }

  /** From a server that knows levels by their own message, which is no extension. */
  sendLevel(level) {
    if (this.#connected) this.#sendJson({ type: "set_level", level });
  }

  /** Asks for `analysis`, after which the server ends the call. */
  sendEnd() {
    this.#sendJson({ type: "end_conversation" });
  }

  /** Number of the last text frame that came, for taking the call up again. */
  get frames() {
    return this.#texts ?? 0;
  }

  has(extension) {
    return this.#extensions.has(extension);
  }

  /** Ends it from our side: no `closed` follows. */
  close() {
    this.#sendJson({ type: "stop" });
    this.#detach();
    this.#socket.close(1000);
  }

  stats() {
    return { framesSent: this.#framesSent, framesDropped: this.#framesDropped };
  }

  #opened() {
    this.#sendJson(this.#start);
  }

  #received(data) {
    this.#silent = false;
    if (data instanceof ArrayBuffer) {
      this.#on.audio(data);
      return;
    }
    const message = parse(data);
    if (message === null) return;
    if (this.#texts !== null) this.#texts += 1;
    if (message.type !== "connected") {
      this.#on.message(message);
      return;
    }
    if (typeof message.frames === "number") this.#texts = message.frames;
    if (Array.isArray(message.extensions)) this.#extensions = new Set(message.extensions);
    this.#connected = true;
    clearTimeout(this.#timer);
    this.#timer = setInterval(() => this.#ping(), PING_MS);
    this.#on.connected(message);
  }

  #ping() {
    if (this.#silent) {
      this.#lost(4000, "no answer");
      return;
    }
    this.#silent = true;
    this.#sendJson({ type: "ping" });
  }

  #lost(code, reason) {
    this.#detach();
    this.#socket.close(); // a dead network would keep the closing handshake waiting for long
    this.#on.closed(code, reason);
  }

  #detach() {
    clearTimeout(this.#timer); // clears an interval as well
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#connected = false;
  }

  #sendJson(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}

/** The message, or null for what is not a JSON object with a type. */
function parse(text) {
  try {
    const message = JSON.parse(text);
    return typeof message?.type === "string" ? message : null;
  } catch {
    return null;
  }
}
