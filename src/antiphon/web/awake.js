/**
 * Keeps the screen on during a conversation, where the browser can. Browsers take the lock back when the page is hidden.
 */
export class WakeLock {
  #wanted = false;
  #lock = null;

  constructor() {
    document.addEventListener("visibilitychange", () => void this.#acquire());
  }

  want(wanted) {
    this.#wanted = wanted;
    if (wanted) void this.#acquire();
    else this.#drop();
  }

  async #acquire() {
    if (!this.#wanted || this.#lock || document.visibilityState !== "visible") return;
    try {
      const lock = await navigator.wakeLock?.request("screen");
      if (!lock) return;
      this.#lock = lock;
      lock.addEventListener("release", () => (this.#lock = null));
      if (!this.#wanted) this.#drop();
    } catch {
      // The battery is low, or the page may not: the conversation goes on without it.
    }
  }

  #drop() {
    void this.#lock?.release();
    this.#lock = null;
  }
}
