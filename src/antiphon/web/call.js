/**
 * The life of one conversation: microphone, connection, player, captions, and what happens when one
 * of them fails. Touches no element; the page is told through `view`.
 */

import { Connection, diagnose } from "./connection.js";
import { Microphone, MicrophoneError } from "./microphone.js";
import { Player } from "./player.js";
import { FOR_THE_SERVER } from "./settings.js";
import { openSound } from "./sound.js";
import { waterfall } from "./waterfall.js";
import { kindOf } from "./words.js";

const RETRY_MS = [500, 1000, 2000, 4000, 8000, 8000];
const RETRY_LIMIT_MS = 30_000; // the server keeps a lost session for as long
const FEEDBACK_LIMIT_MS = 310_000; // the longest that a server can be told to take for it, and a little
const BUSY = 1013; // websocket close codes: try again later
const TAKEN_OVER = 4001;
const TAKEN_OVER_REASON = "taken over by another tab";
const LEAST_HOLD_MS = 200; // a shorter touch is no word
const REFUSED = new Set([1002, 1003, 1007, 1008, 1009]); // trying again would not help

export class Call {
  #view;
  #captions;
  #settings;
  #held = 0; // since when the button is down, 0: it is not
  #resume = null; // {token, frames}: how to take this call up again
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
  #asleep = false; // the page says that its sound is
  #lostAt = 0;
  #retries = 0;
  #timer = 0;

  /**
   * @param {{phase: (phase: string) => void, floor: (floor: string) => void,
   *          ending: (reason: string) => void, problem: (problem: object|null) => void,
   *          notice: (name: string) => void, feedback: (data: unknown) => void}} view
   *   A problem is {kind} of words.js or {text} of the server, with `action` of words.js or null.
   * @param {import("./captions.js").Captions} captions
   * @param {import("./settings.js").Settings} settings read whenever a connection begins
   */
  constructor(view, captions, settings) {
    this.#view = view;
    this.#captions = captions;
    this.#settings = settings;
  }

  /** How to take the running call up again from elsewhere: {token, frames}, or null. */
  get resumption() {
    if (this.#resume === null || !this.running) return null;
    return { token: this.#resume.token, frames: this.#connection?.frames ?? this.#resume.frames };
  }

  get running() {
    return this.#attempt !== null;
  }

  /**
   * Starts a conversation; call it from a click, or browsers keep the sound off. `resume`: the `resumption` of one that
   * was cut off.
   */
  async start({ keepCaptions = false, resume = null } = {}) {
    if (this.running) return;
    const attempt = {};
    this.#attempt = attempt;
    this.#wasConnected = keepCaptions;
    this.#resume = resume;
    this.#held = 0;
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

  /** Ends it and asks what a teacher says of the caller's part; that comes by `feedback`, or a problem does. */
  endWithFeedback() {
    if (this.#phase !== "live" || !this.#connection) return;
    this.#connection.sendEnd();
    this.#microphone.close(); // nobody listens any more
    this.#microphone = null;
    this.#resume = null;
    this.#held = 0;
    this.#player.clear();
    this.#view.problem(null);
    this.#timer = setTimeout(() => this.#finish(""), FEEDBACK_LIMIT_MS);
    this.#enter("analysing");
  }

  /** Skips the waiting time before the next try to reconnect. */
  retryNow() {
    if (this.#phase === "lost" && this.#connection === null) this.#connect();
  }

  /** The browser may have put the sound to sleep with the page. */
  wake() {
    if (this.#context && this.#context.state !== "running") void this.#context.resume();
  }

  /** Takes over changed settings. @returns {boolean} all of them hold at once */
  configure(changes) {
    if (this.#phase !== "live" || !this.#connection) return !this.running;
    const sent = FOR_THE_SERVER.filter((name) => name in changes).map((name) => [name, changes[name]]);
    const now = sent.length === 0 || this.#configure(Object.fromEntries(sent));
    if (changes.level) this.#connection.sendLevel(changes.level);
    return now && changes.level !== "";
  }

  #configure(fields) {
    return this.#connection.send("settings", { type: "configure", ...fields });
  }

  /** Push-to-talk: the button went down. The agent falls silent, the microphone is open. */
  press() {
    if (this.#phase !== "live" || this.#held > 0) return;
    this.#held = performance.now();
    this.#player.clear();
    this.#connection?.send("commit", { type: "hold" });
  }

  /** The button came up: what was said is answered at once. */
  release() {
    if (this.#held === 0) return;
    const heldMs = performance.now() - this.#held;
    const connection = this.#connection;
    this.#microphone?.flush(() => {
      this.#held = 0;
      if (heldMs < LEAST_HOLD_MS) this.#view.notice("tooShort");
      else connection?.send("commit", { type: "commit" });
    });
  }

  #speak(frame) {
    if (this.#settings.values.listen === "open" || this.#held > 0) this.#connection?.sendAudio(frame);
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
      contextState: this.#context?.state ?? "closed",
      reply: this.#played.reply,
      playedMs: this.#played.ms,
      lastTurn: this.#lastTurn,
      ...this.levels(),
      ...(this.#player?.stats() ?? {}),
      ...(this.#connection?.stats() ?? {}),
    };
  }

  async #openSound(attempt) {
    await openSound((context, stream) => {
      if (this.#attempt !== attempt) throw new DOMException("ended meanwhile", "AbortError");
      this.#player = new Player(context, (reply, ms, cleared) => this.#heard(reply, ms, cleared));
      this.#microphone = new Microphone(
        context,
        stream,
        (frame) => this.#speak(frame),
        () => this.#fail({ kind: "unplugged", action: "reconnect" }),
      );
      this.#context = context;
      context.onstatechange = () => this.#soundChanged(context.state);
    });
  }

  #connect() {
    clearTimeout(this.#timer);
    if (this.#phase !== "lost") this.#enter("connecting");
    this.#serverError = "";
    this.#connection = new Connection(this.#context.sampleRate, this.#wishes(), this.#settings.values.key, {
      connected: (message) => this.#connected(message),
      message: (message) => this.#receive(message),
      audio: (pcm) => this.#player.push(pcm),
      closed: (code, reason) => void this.#closed(code, reason),
    });
  }

  /** What `start` says beyond the sound's format: choices that differ from the owner's, and the lost call. */
  #wishes() {
    const lost = this.#resume && { resume: this.#resume.token, frames: this.#resume.frames };
    return { ...this.#settings.chosen, ...lost };
  }

  #connected(message) {
    const resumed = message.resumed === true;
    if (this.#wasConnected && !this.#captions.empty) this.#captions.reconnected(resumed, message.resumed === false);
    this.#wasConnected = true;
    this.#resume = message.resume ? { token: message.resume, frames: message.frames ?? 0 } : null;
    if (resumed && this.#settings.values.listen === "push") this.#configure({ listen: "push" });
    else if (!resumed && this.#settings.values.level) this.#connection.sendLevel(this.#settings.values.level);
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
        this.#captions.callerSaid(message.text ?? "", message.is_final === true, message.item ?? null);
        if (message.is_final === true) this.#guessFloor("thinking");
        break;
      case "ai_text":
        this.#captions.agentSays(message.text ?? "", message.is_complete === true, message.reply ?? null);
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
        if (message.record?.reply) this.#captions.timing(message.record.reply, waterfall(message.record));
        break;
      case "withdrawn":
        this.#captions.withdraw(message.item);
        break;
      case "error":
        this.#serverError = message.message ?? "";
        this.#view.problem({ text: this.#serverError, action: "dismiss" });
        break;
      case "notice": // advice: the call goes on as it is
        this.#view.problem({ text: message.message ?? "", action: "dismiss", calm: true });
        break;
      case "analysis":
        if (this.#phase === "analysing") this.#finish("analysed", message.data ?? null);
        break;
      case "ended":
        if (message.reason === TAKEN_OVER_REASON) this.#fail({ kind: "taken" });
        else this.#finish(message.reason);
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
    if (this.#resume !== null) this.#resume.frames = this.#connection?.frames || this.#resume.frames;
    this.#connection = null;
    this.#held = 0;
    this.#player.clear();
    this.#captions.agentDone();
    if (this.#phase === "analysing") {
      this.#finish("");
      return;
    }
    const first = this.#phase !== "lost";
    if (code === TAKEN_OVER || REFUSED.has(code)) {
      this.#fail(code === TAKEN_OVER ? { kind: "taken" } : this.#reason("refused"));
      return;
    }
    if (first) {
      this.#lostAt = performance.now();
      this.#retries = 0;
    }
    const wasLive = this.#phase === "live";
    this.#enter("lost");
    const key = this.#settings.values.key;
    const kind = code === BUSY ? this.#refusal() : wasLive ? "lost" : await diagnose(key);
    if (this.#attempt !== attempt || this.#connection !== null) return;
    if (kind === "key") {
      this.#fail({ kind, action: "settings" });
      return;
    }
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

  /** A server that has no room now, or is not ready yet, says so in words; most of them we can say better. */
  #refusal() {
    const kind = kindOf(this.#serverError) ?? (this.#serverError ? null : "busy");
    if (kind !== null) this.#serverError = "";
    return kind;
  }

  #soundChanged(state) {
    if (this.#phase !== "live" || document.visibilityState !== "visible") return;
    if (state !== "running") this.#view.problem({ kind: "asleep", action: "wake" });
    else if (this.#asleep) this.#view.problem(null);
    this.#asleep = state !== "running";
  }

  /** The server's own words where it sent some. */
  #reason(kind) {
    const text = this.#serverError;
    return text ? { text, action: "reconnect" } : { kind, action: "reconnect" };
  }

  /** `analysis`: what came of the feedback that was asked for; undefined: nothing. */
  #finish(reason, analysis = undefined) {
    const asked = this.#phase === "analysing";
    this.#release();
    if (analysis !== undefined) this.#view.feedback(analysis);
    this.#enter("ended");
    this.#view.ending(reason);
    if (asked && analysis === undefined) this.#view.problem({ kind: "noFeedback" });
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
    this.#resume = null;
    this.#held = 0;
    this.#connection = this.#microphone = this.#player = this.#context = null;
  }

  #enter(phase) {
    this.#phase = phase;
    this.#view.phase(phase);
  }
}
