/**
 * Push-to-talk by pointer and by space key. Knows only when somebody holds.
 */

const TYPING = "input, textarea, select, button, summary, a, dialog *";

export class HoldButton {
  #button;
  #on;
  #by = null; // what holds it: a pointer's id, "key", or nothing

  /**
   * @param {HTMLButtonElement} button
   * @param {{press: () => void, release: () => void}} on always in pairs
   */
  constructor(button, on) {
    this.#button = button;
    this.#on = on;
    button.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      button.setPointerCapture?.(event.pointerId);
      this.#press(event.pointerId);
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
      button.addEventListener(kind, ({ pointerId }) => this.#release(pointerId));
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // of a long touch
    document.addEventListener("keydown", (event) => this.#keyDown(event));
    document.addEventListener("keyup", ({ code }) => {
      if (code === "Space") this.#release("key");
    });
    window.addEventListener("blur", () => this.letGo());
    document.addEventListener("visibilitychange", () => this.letGo());
  }

  /** Nothing holds it any more, whatever the hand does. */
  letGo() {
    if (this.#by !== null) this.#release(this.#by);
  }

  #keyDown(event) {
    const elsewhere = event.target !== this.#button && event.target.closest?.(TYPING);
    if (event.code !== "Space" || this.#button.hidden || elsewhere) return;
    event.preventDefault(); // no scrolling, and no click
    if (!event.repeat) this.#press("key");
  }

  #press(by) {
    if (this.#by !== null || this.#button.hidden) return;
    this.#by = by;
    this.#button.setAttribute("aria-pressed", "true");
    this.#on.press();
  }

  #release(by) {
    if (this.#by !== by) return;
    this.#by = null;
    this.#button.setAttribute("aria-pressed", "false");
    this.#on.release();
  }
}
