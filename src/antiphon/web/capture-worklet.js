/**
 * Microphone samples to 40 ms frames of signed 16-bit little-endian mono PCM, at the context's own
 * rate (the server resamples). Knows nothing of who takes the frames.
 */

const FRAME_S = 0.04;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frameSamples = Math.round(sampleRate * FRAME_S);
    this.frame = new DataView(new ArrayBuffer(this.frameSamples * 2));
    this.filled = 0;
  }

  process(inputs) {
    const input = inputs[0][0];
    if (!input) return true; // nothing connected yet; the microphone may still come
    for (const sample of input) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.frame.setInt16(this.filled * 2, Math.round(clipped * 32767), true);
      this.filled += 1;
      if (this.filled === this.frameSamples) this.deliver();
    }
    return true;
  }

  deliver() {
    const full = this.frame.buffer;
    this.port.postMessage(full, [full]);
    this.frame = new DataView(new ArrayBuffer(this.frameSamples * 2));
    this.filled = 0;
  }
}

registerProcessor("antiphon-capture", Capture);
