/**
 * The microphone as 40 ms frames of s16le mono PCM at the context's rate. Knows no protocol.
 */

const WISHES = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

/** What went wrong, as a `kind` that words.js has a sentence for. */
export class MicrophoneError extends Error {
  constructor(kind, cause) {
    super(kind, { cause });
    this.kind = kind;
  }
}

const KINDS = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "occupied",
  AbortError: "occupied",
};

/**
 * Asks for the microphone; the browser may show its question for as long as it likes.
 * @returns {Promise<MediaStream>}
 * @throws {MicrophoneError}
 */
export async function askForMicrophone() {
  if (!window.isSecureContext) throw new MicrophoneError("insecure");
  if (!navigator.mediaDevices?.getUserMedia) throw new MicrophoneError("unsupported");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: WISHES });
  } catch (error) {
    throw new MicrophoneError(KINDS[error.name] ?? "occupied", error);
  }
}

/** Gives the device back; the browser's recording sign goes out. */
export function releaseMicrophone(stream) {
  for (const track of stream.getTracks()) track.stop();
}

export class Microphone {
  #stream;
  #source;
  #node;
  #analyser;
  #samples;
  #flushed = [];

  /**
   * @param {AudioContext} context running, with capture-worklet.js loaded
   * @param {MediaStream} stream from askForMicrophone; it is released by close()
   * @param {(frame: ArrayBuffer) => void} onFrame 40 ms of s16le at the context's rate
   * @param {() => void} onUnplugged the device has gone
   */
  constructor(context, stream, onFrame, onUnplugged) {
    this.#stream = stream;
    for (const track of stream.getAudioTracks()) track.onended = onUnplugged;
    this.#source = context.createMediaStreamSource(stream);
    this.#analyser = new AnalyserNode(context, { fftSize: 1024 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#node = new AudioWorkletNode(context, "antiphon-capture", {
      channelCount: 1,
      channelCountMode: "explicit",
    });
    this.#node.port.onmessage = ({ data }) => {
      if (data === null) this.#flushed.shift()?.();
      else onFrame(data);
    };
    // The node's output is silence; without a way to the destination some browsers would not run it.
    this.#source.connect(this.#analyser).connect(this.#node).connect(context.destination);
  }

  /** Hands over what has been heard up to now, as a shorter frame, and calls `done` right after it. */
  flush(done) {
    this.#flushed.push(done);
    this.#node.port.postMessage("flush");
  }

  /** Root mean square of what the microphone hears, 0 to 1. */
  level() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    return Math.sqrt(this.#samples.reduce((sum, x) => sum + x * x, 0) / this.#samples.length);
  }

  close() {
    for (const track of this.#stream.getAudioTracks()) track.onended = null;
    this.#node.port.onmessage = null;
    this.#source.disconnect();
    this.#node.disconnect();
    releaseMicrophone(this.#stream);
  }
}
