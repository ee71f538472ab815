/**
 * The life of one conversation: microphone, connection, player, captions, and what happens when one
 * of them fails. Touches no element; the page is told through `view`.
 */

import { Connection } from "./connection.js";
import { askForMicrophone, Microphone, MicrophoneError, releaseMicrophone } from "./microphone.js";
import { Player } from "./player.js";

const WORKLETS = ["capture-worklet.js", "player-worklet.js"];
const RETRY_MS = [500, 1000, 2000, 4000, 8000, 8000];
const RETRY_LIMIT_MS = 30_000; // the server keeps a lost session for as long
const BUSY = 1013; // websocket close codes: try again later
const REFUSED = new Set([1002, 1003, 1007, 1008, 1009]); // trying again would not help

/** Why a connection did not come about, as far as a page can find out. */
async function diagnose() {
  try {
    const answer = await fetch(new URL("ready", window.location.href), { cache: "no-store" });
    if (answer.ok) return "declined";
    return answer.status === 503 ? "loading" : "unreachable";
  } catch {
    return "unreachable";
  }
}

export class Call {
  #view;
  #captions;
  #phase = "idle";
  #floor = "open";
  #attempt = null; // identity of the running call; a late result of another one is dropped
  #context = null;
  #microphone = null;
  #player = null;
  #connection = null;
  #wasConnected = false;
  #serverError = ""; // the last error the server sent on this connection
  #sessionId = null;
  #played = { reply: null, ms: 0 };
  #lastTurn = null;
  #lostAt = 0;
  #retries = 0;
  #timer = 0;

  /**
   * @param {{phase: (phase: string) => void, floor: (floor: string) => void,
   *          ending: (reason: string) => void, problem: (problem: object|null) => void}} view
   *   A problem is {kind} of words.js or {text} of the server, with `action` "reconnect" or null.
   * @param {import("./captions.js").Captions} captions
   */
  constructor(view, captions) {
    this.#view = view;
    this.#captions = captions;
  }

  get running() {
    return this.#attempt !== null;
  }

  /** Starts a conversation; call it from a click, or browsers keep the sound off. */
  async start({ keepCaptions = false } = {}) {
    if (this.running) return;
    const attempt = {};
    this.#attempt = attempt;
    this.#wasConnected = keepCaptions;
    this.#view.problem(null);
    if (!keepCaptions) this.#captions.clear();
    this.#enter("microphone");
    try {
      await this.#openSound(attempt);
    } catch (error) {
      if (this.#attempt === attempt) {
        this.#fail({ kind: error instanceof MicrophoneError ? error.kind : "audio" });
      }
      return;
    }
    if (this.#attempt === attempt) this.#connect();
  }

  /** Ends the conversation because the person wants it. */
  end() {
    if (!this.running) return;
    this.#release();
    this.#view.problem(null);
    this.#enter("ended");
  }

  /** Skips the waiting time before the next try to reconnect. */
  retryNow() {
    if (this.#phase === "lost" && this.#connection === null) this.#connect();
  }

  /** The browser may have put the sound to sleep with the page. */
  wake() {
    if (this.#context && this.#context.state !== "running") void this.#context.resume();
  }

  /** Root mean square of both voices now. */
  levels() {
    return { caller: this.#microphone?.level() ?? 0, agent: this.#player?.level() ?? 0 };
  }

  /** Read-only counters for tests and for people who look into a problem. */
  stats() {
    return {
      phase: this.#phase,
      floor: this.#floor,
      sessionId: this.#sessionId,
      contextHz: this.#context?.sampleRate ?? 0,
      reply: this.#played.reply,
      playedMs: this.#played.ms,
      lastTurn: this.#lastTurn,
      ...this.levels(),
      ...(this.#player?.stats() ?? {}),
      ...(this.#connection?.stats() ?? {}),
    };
  }

  async #openSound(attempt) {
    if (!window.isSecureContext) throw new MicrophoneError("insecure");
    if (!window.AudioContext || !window.AudioWorkletNode) throw new MicrophoneError("unsupported");
    // Made before the first await, while the click still counts as permission to make a sound.
    const context = new AudioContext({ latencyHint: "interactive" });
    let stream = null;
    try {
      stream = await askForMicrophone();
      const worklets = WORKLETS.map((file) =>
        context.audioWorklet.addModule(new URL(file, import.meta.url)),
      );
      await Promise.all([context.resume(), ...worklets]);
      if (this.#attempt !== attempt) throw new DOMException("ended meanwhile", "AbortError");
      this.#player = new Player(context, (reply, ms, cleared) => this.#heard(reply, ms, cleared));
      this.#microphone = new Microphone(
        context,
        stream,
        (frame) => this.#connection?.sendAudio(frame),
        () => this.#fail({ kind: "unplugged", action: "reconnect" }),
      );
      this.#context = context;
    } catch (error) {
      if (stream) releaseMicrophone(stream);
      void context.close();
      throw error;
    }
  }

  #connect() {
    clearTimeout(this.#timer);
    if (this.#phase !== "lost") this.#enter("connecting");
    this.#serverError = "";
    this.#connection = new Connection(this.#context.sampleRate, {
      connected: (message) => this.#connected(message),
      message: (message) => this.#receive(message),
      audio: (pcm) => this.#player.push(pcm),
      closed: (code, reason) => void this.#closed(code, reason),
    });
  }

  #connected(message) {
    if (this.#wasConnected && !this.#captions.empty) this.#captions.reconnected();
    this.#wasConnected = true;
    this.#retries = 0;
    this.#sessionId = message.session_id ?? null;
    if (message.sample_rate > 0) this.#player.begin(null, message.sample_rate);
    this.#view.problem(null);
    this.#setFloor("open");
    this.#enter("live");
  }

  #receive(message) {
    switch (message.type) {
      case "transcript":
        this.#captions.callerSaid(message.text ?? "", message.is_final === true);
        if (message.is_final === true) this.#guessFloor("thinking");
        break;
      case "ai_text":
        this.#captions.agentSays(message.text ?? "", message.is_complete === true, message.reply);
        break;
      case "ai_audio_start":
        if (message.reply) this.#captions.nameReply(message.reply);
        this.#player.begin(message.reply ?? null, message.sample_rate, message.from_ms ?? null);
        this.#guessFloor("agent");
        break;
      case "clear":
        this.#player.clear();
        break;
      case "turn_complete":
        this.#player.complete();
        this.#captions.agentDone();
        this.#guessFloor("open");
        break;
      case "heard":
        this.#captions.heard(message.reply, message.text ?? "", message.unheard ?? "");
        break;
      case "floor":
        this.#setFloor(message.state);
        break;
      case "turn":
        this.#lastTurn = message.record ?? null;
        break;
      case "error":
        this.#serverError = message.message ?? "";
        this.#view.problem({ text: this.#serverError, action: "dismiss" });
        break;
      case "ended":
        this.#finish(message.reason);
        break;
      default: // pong, and what newer servers may add
    }
  }

  #heard(reply, ms, cleared) {
    const repeated = reply === this.#played.reply && ms === this.#played.ms;
    this.#played = { reply, ms };
    if (reply !== null && (cleared || !repeated)) this.#connection?.sendPlayed(reply, ms);
  }

  /** What a server without the floor extension leaves to be seen from its other messages. */
  #guessFloor(floor) {
    if (!this.#connection?.has("floor")) this.#setFloor(floor);
  }

  #setFloor(floor) {
    this.#floor = floor;
    this.#view.floor(floor);
  }

  async #closed(code) {
    const attempt = this.#attempt;
    this.#connection = null;
    this.#player.clear();
    this.#captions.agentDone();
    const first = this.#phase !== "lost";
    if (REFUSED.has(code)) {
      this.#fail(this.#reason("refused"));
      return;
    }
    if (first) {
      this.#lostAt = performance.now();
      this.#retries = 0;
    }
    const wasLive = this.#phase === "live";
    this.#enter("lost");
    const kind = code === BUSY ? "busy" : wasLive ? "lost" : await diagnose();
    if (this.#attempt !== attempt || this.#connection !== null) return;
    this.#retry(this.#reason(kind));
  }

  #retry(problem) {
    const delay = RETRY_MS[Math.min(this.#retries, RETRY_MS.length - 1)];
    this.#retries += 1;
    if (performance.now() - this.#lostAt + delay > RETRY_LIMIT_MS) {
      this.#fail({ ...problem, action: "reconnect" });
      return;
    }
    this.#view.problem({ ...problem, action: "now" });
    this.#timer = setTimeout(() => this.#connect(), delay);
  }

  /** The server's own words where it sent some. */
  #reason(kind) {
    const text = this.#serverError;
    return text ? { text, action: "reconnect" } : { kind, action: "reconnect" };
  }

  #finish(reason) {
    this.#release();
    this.#enter("ended");
    this.#view.ending(reason);
  }

  #fail(problem) {
    this.#release();
    this.#enter("failed");
    this.#view.problem(problem);
  }

  #release() {
    clearTimeout(this.#timer);
    this.#attempt = null;
    this.#connection?.close();
    this.#microphone?.close();
    this.#player?.close();
    void this.#context?.close();
    this.#captions.agentDone();
    this.#connection = this.#microphone = this.#player = this.#context = null;
  }

  #enter(phase) {
    this.#phase = phase;
    this.#view.phase(phase);
  }
}
