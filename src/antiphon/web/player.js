/**
 * The page's side of the player worklet: chunks in, positions out. Knows no protocol.
 */

const ACCURACY_S = 0.005; // smaller changes of the output latency are not passed on

export class Player {
  #context;
  #node;
  #analyser;
  #samples;
  #latencyS = 0;
  #clears = 0;
  #state = { queuedMs: 0, renderedMs: 0, underruns: 0, droppedMs: 0 };

  /**
   * @param {AudioContext} context running, with player-worklet.js loaded
   * @param {(reply: string|null, ms: number, cleared: boolean) => void} onPosition what has been heard
   */
  constructor(context, onPosition) {
    this.#context = context;
    this.#node = new AudioWorkletNode(context, "antiphon-player", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    this.#analyser = new AnalyserNode(context, { fftSize: 1024 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#node.connect(this.#analyser).connect(context.destination);
    this.#node.port.onmessage = ({ data }) => {
      if (data.type === "state") this.#state = data;
      else onPosition(data.reply, Math.round(data.ms), data.cleared);
      this.#measureLatency();
    };
  }

  /**
   * The audio that follows belongs to `reply` (null: the server names none), at `rate` Hz. `fromMs`: it goes on from
   * there after a clear (null: from where it is).
   */
  begin(reply, rate, fromMs = null) {
    this.#measureLatency();
    this.#node.port.postMessage({ type: "begin", reply, rate, fromMs });
  }

  /** @param {ArrayBuffer} pcm s16le mono; it is handed over, not copied */
  push(pcm) {
    this.#node.port.postMessage({ type: "audio", pcm }, [pcm]);
  }

  /** Nothing more follows for the reply begun last: play it to its last sample. */
  complete() {
    this.#node.port.postMessage({ type: "complete" });
  }

  /** Silence now; what was queued is gone. */
  clear() {
    this.#clears += 1;
    this.#node.port.postMessage({ type: "clear" });
  }

  /** Root mean square of what is being played, 0 to 1. */
  level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    return Math.sqrt(this.#samples.reduce((sum, x) => sum + x * x, 0) / this.#samples.length);
  }

  /** @returns {{queuedMs, renderedMs, underruns, droppedMs, clears, latencyMs}} counters since the start */
  stats() {
    const { queuedMs, renderedMs, underruns, droppedMs } = this.#state;
    const latencyMs = this.#latencyS * 1000;
    return { queuedMs, renderedMs, underruns, droppedMs, clears: this.#clears, latencyMs };
  }

  close() {
    this.#node.port.onmessage = null;
    this.#node.disconnect();
  }

  #measureLatency() {
    const seconds = (this.#context.baseLatency || 0) + (this.#context.outputLatency || 0);
    if (Math.abs(seconds - this.#latencyS) < ACCURACY_S) return;
    this.#latencyS = seconds;
    this.#node.port.postMessage({ type: "latency", seconds });
  }
}
