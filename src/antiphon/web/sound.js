/**
 * Opens what a conversation needs of the device: the sound of the page and the microphone. Knows no connection.
 */

import { askForMicrophone, MicrophoneError, releaseMicrophone } from "./microphone.js";

const WORKLETS = ["capture-worklet.js", "player-worklet.js"];

/**
 * Call it from a click, or browsers keep the sound off.
 *
 * @param {(context: AudioContext, stream: MediaStream) => void} use told when both are there. What goes wrong before it
 *   or in it is thrown, after the devices have been given back.
 */
export async function openSound(use) {
  if (!window.isSecureContext) throw new MicrophoneError("insecure");
  if (!window.AudioContext || !window.AudioWorkletNode) throw new MicrophoneError("unsupported");
  // Made before the first await, while the click still counts as permission to make a sound.
  const context = new AudioContext({ latencyHint: "interactive" });
  let stream = null;
  try {
    stream = await askForMicrophone();
    const worklets = WORKLETS.map((file) => context.audioWorklet.addModule(new URL(file, import.meta.url)));
    await Promise.all([context.resume(), ...worklets]);
    use(context, stream);
  } catch (error) {
    if (stream) releaseMicrophone(stream);
    void context.close();
    throw error;
  }
}
