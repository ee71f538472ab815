/**
 * One websocket to the server: JSON and PCM each way. Knows nothing of sound or of the page.
 *
 * The protocol is described in docs/; extensions are asked for in the first message, and a server
 * that does not know them answers `connected` without naming any.
 */

const EXTENSIONS = ["clear", "played", "floor", "heard", "turn"];
const PING_MS = 20_000;
const PATIENCE_MS = 10_000; // for `connected` after the first byte was sent
const BACKLOG_S = 2; // microphone audio that the network does not take is dropped beyond this

/** Where the conversation is, seen from the page. */
export function conversationUrl(page = window.location) {
  const url = new URL("ws/conversation", page.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  return url;
}

export class Connection {
  #socket;
  #rate;
  #on;
  #extensions = new Set();
  #connected = false;
  #silent = false; // nothing came since the last ping
  #timer = 0;
  #framesSent = 0;
  #framesDropped = 0;

  /**
   * @param {number} rate of the microphone frames, Hz
   * @param {{connected: (message) => void, message: (message) => void,
   *          audio: (pcm: ArrayBuffer) => void, closed: (code: number, reason: string) => void}} on
   *   `closed` comes exactly once unless the page closed the connection itself.
   */
  constructor(rate, on) {
    this.#rate = rate;
    this.#on = on;
    this.#socket = new WebSocket(conversationUrl());
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
    this.#sendJson({ type: "start", format: "pcm_s16le", rate: this.#rate, extensions: EXTENSIONS });
  }

  #received(data) {
    this.#silent = false;
    if (data instanceof ArrayBuffer) {
      this.#on.audio(data);
      return;
    }
    const message = parse(data);
    if (message === null) return;
    if (message.type !== "connected") {
      this.#on.message(message);
      return;
    }
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
