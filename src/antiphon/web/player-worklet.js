/**
 * Plays 16-bit mono PCM of any rate, reply after reply, and counts what has been heard of each.
 * Knows no protocol: the page says begin, audio, complete, clear and latency; it is told positions.
 *
 *   in   {type: "begin", reply, rate}     audio that follows belongs to this reply, at this rate (Hz)
 *        {type: "audio", pcm}             ArrayBuffer of s16le samples
 *        {type: "complete"}               nothing more follows for the reply begun last
 *        {type: "clear"}                  drop everything now
 *        {type: "latency", seconds}       from this processor to the loudspeaker
 *   out  {type: "position", reply, ms, cleared}   heard so far; once more at the end of a reply
 *        {type: "state", queuedMs, renderedMs, underruns, droppedMs}   while it plays,
 *                                       and as the answer to complete and clear
 */

const START_S = 0.05; // collected before a reply starts, so that network jitter is not heard
const START_PATIENCE_S = 0.06; // but a short reply does not wait longer than this
const FADE_S = 0.005; // a cut this soft does not click
const REPORT_S = 0.1;
const LIMIT_S = 600; // audio queued beyond ten minutes is dropped, and counted
const TRAIL_BLOCKS = 2048; // remembers over 5 s of positions: more than any output latency
const HALF_TAPS = 12;
const PASSBAND = 0.92;
const KAISER_BETA = 8;

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}

/** Zeroth-order modified Bessel function of the first kind, by its power series. */
function bessel0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-10; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** Rational resampler: polyphase, Kaiser-windowed sinc, its state carried across chunks. */
class Resampler {
  constructor(fromHz, toHz) {
    const divisor = gcd(fromHz, toHz);
    this.up = toHz / divisor;
    this.down = fromHz / divisor;
    const scale = Math.min(1, toHz / fromHz);
    this.half = Math.ceil(HALF_TAPS / scale);
    this.kernel = this.up === this.down ? null : this.design(scale * PASSBAND);
    this.phase = 0; // of the next output between two input samples, in steps of 1 / up
    this.reset(0);
  }

  /** Silence as the past; the next output lies `ahead` input samples after the next input. */
  reset(ahead) {
    this.history = new Float32Array(this.half - 1);
    this.index = this.half - 1 + ahead; // the input sample at or before the next output
  }

  design(cutoff) {
    const taps = 2 * this.half;
    const kernel = new Float32Array(this.up * taps);
    for (let phase = 0; phase < this.up; phase += 1) {
      let sum = 0;
      const row = kernel.subarray(phase * taps, (phase + 1) * taps);
      for (let k = 0; k < taps; k += 1) {
        const x = k - this.half + 1 - phase / this.up;
        const edge = Math.max(0, 1 - (x / this.half) ** 2);
        const sinc = x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x);
        row[k] = (sinc * bessel0(KAISER_BETA * Math.sqrt(edge))) / bessel0(KAISER_BETA);
        sum += row[k];
      }
      for (let k = 0; k < taps; k += 1) row[k] /= sum;
    }
    return kernel;
  }

  /** All output samples that `input` makes possible; the rest waits for the next chunk. */
  process(input) {
    if (this.kernel === null) return input;
    const data = new Float32Array(this.history.length + input.length);
    data.set(this.history);
    data.set(input, this.history.length);
    const taps = 2 * this.half;
    const output = new Float32Array(Math.ceil(((data.length + 1) * this.up) / this.down) + 1);
    let count = 0;
    while (this.index + this.half < data.length) {
      const first = this.index - this.half + 1;
      const row = this.phase * taps;
      let sum = 0;
      for (let k = 0; k < taps; k += 1) sum += this.kernel[row + k] * data[first + k];
      output[count] = sum;
      count += 1;
      this.phase += this.down;
      this.index += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    this.history = data.slice(this.index - this.half + 1);
    this.index = this.half - 1;
    return output.subarray(0, count);
  }

  /** The outputs still owed for what was given, as if silence followed. */
  flush() {
    if (this.kernel === null) return new Float32Array(0);
    if (this.history.length <= this.index) return new Float32Array(0);
    const tail = this.process(new Float32Array(this.half));
    this.reset(this.index + this.half - this.history.length);
    return tail;
  }
}

/** One answer of the agent: its queued chunks, and how many samples of it were rendered. */
class Reply {
  constructor(id) {
    this.id = id;
    this.chunks = []; // {rate, pcm: Int16Array}
    this.waiting = 0; // what they hold, in samples at the context's rate
    this.segment = new Float32Array(0); // converted, at the context's rate
    this.resampler = null;
    this.rate = 0;
    this.rendered = 0; // samples at the context's rate
    this.reported = 0; // of those, the page knows of so many
    this.complete = false;
    this.cleared = false;
    this.dry = false; // ran out of audio before it was complete
    this.playing = false;
    this.waited = 0; // samples since the first chunk came
  }

  push(rate, pcm) {
    this.chunks.push({ rate, pcm });
    this.waiting += (pcm.length * sampleRate) / rate;
  }

  queued() {
    return this.segment.length + this.waiting;
  }

  /** Drops all but the next `samples`. */
  cut(samples) {
    if (samples > 0 && this.segment.length === 0) this.refill();
    this.segment = this.segment.slice(0, samples);
    this.chunks = [];
    this.waiting = 0;
    this.resampler = null;
    this.rate = 0;
    this.cleared = true;
    this.complete = true;
    this.dry = false;
  }

  /** Makes `segment` non-empty if anything at all is left. */
  refill() {
    while (this.segment.length === 0 && this.chunks.length > 0) {
      const { rate, pcm } = this.chunks[0];
      if (rate !== this.rate) {
        const tail = this.resampler?.flush();
        this.resampler = new Resampler(rate, sampleRate);
        this.rate = rate;
        if (tail?.length) {
          this.segment = tail;
          return;
        }
      }
      this.chunks.shift();
      this.waiting = this.chunks.length === 0 ? 0 : this.waiting - (pcm.length * sampleRate) / rate;
      const samples = new Float32Array(pcm.length);
      for (let i = 0; i < pcm.length; i += 1) samples[i] = pcm[i] / 32768;
      this.segment = this.resampler.process(samples);
    }
    if (this.segment.length === 0 && this.resampler) this.segment = this.resampler.flush();
  }
}

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.replies = [];
    this.rate = 0; // of the reply begun last
    this.gain = 0;
    this.total = 0;
    this.underruns = 0;
    this.dropped = 0;
    this.latencyBlocks = 0;
    this.trailReply = new Array(TRAIL_BLOCKS).fill(null);
    this.trailSamples = new Float64Array(TRAIL_BLOCKS);
    this.block = 0;
    this.heardReply = null;
    this.heardSamples = 0;
    this.sinceReport = 0;
    this.idle = true;
    this.port.onmessage = ({ data }) => this[data.type](data);
  }

  begin({ reply, rate, fromMs }) {
    const last = this.replies.at(-1);
    this.rate = rate;
    if (last && reply !== null && last.id === reply) {
      last.complete = false;
      last.cleared = false;
      if (fromMs !== null) {
        // The server goes on from the beginning of the word that it had cut off.
        last.rendered = (fromMs * sampleRate) / 1000;
        last.reported = Math.min(last.reported, last.rendered);
      }
      return;
    }
    if (last) last.complete = true;
    this.replies.push(new Reply(reply));
  }

  audio({ pcm }) {
    const reply = this.replies.at(-1);
    const samples = new Int16Array(pcm, 0, pcm.byteLength >> 1);
    if (!reply || this.rate === 0 || samples.length === 0) return;
    if (this.queued() > LIMIT_S * sampleRate) {
      this.dropped += (samples.length * sampleRate) / this.rate;
      return;
    }
    if (reply.dry) this.underruns += 1;
    if (reply.cleared) reply.complete = false; // the server goes on after a clear
    reply.dry = false;
    reply.cleared = false;
    reply.push(this.rate, samples);
    this.idle = false;
  }

  complete() {
    const reply = this.replies.at(-1);
    if (reply) reply.complete = true;
    this.state();
  }

  clear() {
    const [current] = this.replies;
    for (const reply of this.replies) {
      const audible = reply === current && reply.playing && this.gain > 0;
      reply.cut(audible ? Math.round(FADE_S * sampleRate) : 0);
      // What the fade still plays is counted: it has left, and nobody takes it back.
      this.position(reply, reply.rendered + reply.segment.length, true);
    }
    if (this.replies.length > 2) this.replies = [current, this.replies.at(-1)];
    this.state();
  }

  latency({ seconds }) {
    const blocks = Math.round((seconds * sampleRate) / 128);
    this.latencyBlocks = Math.max(0, Math.min(TRAIL_BLOCKS - 1, blocks));
  }

  process(_inputs, outputs) {
    const output = outputs[0][0];
    const reply = this.current(output.length);
    if (reply) this.render(reply, output);
    this.follow(reply);
    this.report(output.length);
    return true;
  }

  /** The reply whose turn it is to be heard, once enough of it has come. */
  current(blockSamples) {
    while (this.replies.length > 1 && !this.replies[0].playing && this.replies[0].queued() === 0) {
      this.replies.shift();
    }
    const [reply] = this.replies;
    if (!reply) return null;
    if (!reply.playing && reply.queued() > 0) {
      reply.waited += blockSamples;
      reply.playing =
        reply.complete ||
        reply.queued() >= START_S * sampleRate ||
        reply.waited >= START_PATIENCE_S * sampleRate;
    }
    return reply;
  }

  render(reply, output) {
    if (!reply.playing) return;
    const step = 1 / (FADE_S * sampleRate);
    const low = 2 * output.length; // so close to the end, fade: more may not come in time
    const target = reply.cleared || (!reply.complete && reply.queued() < low) ? 0 : 1;
    let filled = 0;
    while (filled < output.length) {
      if (reply.segment.length === 0) reply.refill();
      if (reply.segment.length === 0) break;
      const count = Math.min(output.length - filled, reply.segment.length);
      for (let i = 0; i < count; i += 1) {
        this.gain = target > this.gain ? Math.min(1, this.gain + step) : Math.max(target, this.gain - step);
        output[filled + i] = reply.segment[i] * this.gain;
      }
      reply.segment = reply.segment.subarray(count);
      filled += count;
    }
    reply.rendered += filled;
    this.total += filled;
    if (filled === output.length) return;
    reply.playing = false;
    reply.waited = 0;
    reply.dry = !reply.complete;
    this.gain = 0;
  }

  /** Notes where rendering stands, and looks up what is leaving the loudspeaker just now. */
  follow(reply) {
    const slot = this.block % TRAIL_BLOCKS;
    this.trailReply[slot] = reply;
    this.trailSamples[slot] = reply?.rendered ?? 0;
    const heard = (this.block + TRAIL_BLOCKS - this.latencyBlocks) % TRAIL_BLOCKS;
    this.block += 1;
    if (this.trailReply[heard] !== this.heardReply) this.tell(); // the one before has ended
    this.heardReply = this.trailReply[heard];
    this.heardSamples = this.trailSamples[heard];
  }

  report(blockSamples) {
    this.sinceReport += blockSamples;
    const [reply] = this.replies;
    const silent = !reply || (!reply.playing && reply.queued() === 0);
    const heard = !reply || (this.heardReply === reply && this.heardSamples === reply.rendered);
    const ended = silent && heard;
    if (this.idle || (this.sinceReport < REPORT_S * sampleRate && !ended)) return;
    this.sinceReport = 0;
    this.tell();
    this.state();
    this.idle = ended;
  }

  /** Never less than before, never twice the same. */
  tell() {
    const reply = this.heardReply;
    if (reply && this.heardSamples > reply.reported) this.position(reply, this.heardSamples, false);
  }

  position(reply, samples, cleared) {
    reply.reported = Math.max(reply.reported, samples);
    const ms = (reply.reported * 1000) / sampleRate;
    this.port.postMessage({ type: "position", reply: reply.id, ms, cleared });
  }

  queued() {
    return this.replies.reduce((sum, reply) => sum + (reply.cleared ? 0 : reply.queued()), 0);
  }

  state() {
    this.port.postMessage({
      type: "state",
      queuedMs: (this.queued() * 1000) / sampleRate,
      renderedMs: (this.total * 1000) / sampleRate,
      underruns: this.underruns,
      droppedMs: (this.dropped * 1000) / sampleRate,
    });
  }
}

registerProcessor("antiphon-player", Player);
