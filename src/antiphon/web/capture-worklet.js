/**
 * Microphone samples to 40 ms frames of signed 16-bit little-endian mono PCM, at the context's own
 * rate (the server resamples). Any message asks for what is there of the frame begun, and is answered
 * with null after it. Knows nothing of who takes the frames.
 */

const FRAME_S = 0.04;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frameSamples = Math.round(sampleRate * FRAME_S);
    this.frame = new DataView(new ArrayBuffer(this.frameSamples * 2));
    this.filled = 0;
    this.port.onmessage = () => this.flush();
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

  flush() {
    const begun = this.frame.buffer.slice(0, this.filled * 2);
    this.filled = 0;
    if (begun.byteLength > 0) this.port.postMessage(begun, [begun]);
    this.port.postMessage(null);
  }

  deliver() {
    const full = this.frame.buffer;
    this.port.postMessage(full, [full]);
    this.frame = new DataView(new ArrayBuffer(this.frameSamples * 2));
    this.filled = 0;
  }
}

registerProcessor("antiphon-capture", Capture);
