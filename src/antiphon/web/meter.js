/**
 * The ring around the button: its right half shows the caller's voice, its left half the agent's.
 * Knows levels only; the colours come from the style sheet.
 */

const TICKS = 27; // per half; the middle one is the newest level, older ones travel to both ends
const STEP_MS = 33;
const QUIET_DB = -52; // root mean square that still leaves the ring at rest
const LOUD_DB = -14;
const ATTACK = 0.45; // of the way to a louder level in one step
const RELEASE = 0.25; // and to a softer one
const REST = 0.08; // length of a tick at rest, of its full length

/** A voice is judged by ear: decibels, mapped to 0..1. */
export function loudness(rms) {
  const db = 20 * Math.log10(Math.max(rms, 1e-6));
  return Math.max(0, Math.min(1, (db - QUIET_DB) / (LOUD_DB - QUIET_DB)));
}

export class Meter {
  #canvas;
  #levels;
  #caller = new Float32Array(TICKS);
  #agent = new Float32Array(TICKS);
  #still = window.matchMedia("(prefers-reduced-motion: reduce)");
  #running = false;
  #last = 0;
  #colours = { caller: "", agent: "" };

  /**
   * @param {HTMLCanvasElement} canvas square
   * @param {() => {caller: number, agent: number}} levels root mean square of both voices now
   */
  constructor(canvas, levels) {
    this.#canvas = canvas;
    this.#levels = levels;
    new ResizeObserver(() => this.#fit()).observe(canvas);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#fit());
    this.#fit();
  }

  /** Follows the voices until they are quiet and stop() was called. */
  start() {
    if (this.#running) return;
    this.#running = true;
    requestAnimationFrame((now) => this.#tick(now));
  }

  stop() {
    this.#running = false;
  }

  #tick(now) {
    if (now - this.#last >= STEP_MS) {
      this.#last = now;
      const { caller, agent } = this.#running ? this.#levels() : { caller: 0, agent: 0 };
      this.#push(this.#caller, loudness(caller));
      this.#push(this.#agent, loudness(agent));
      this.#draw();
    }
    const moving = [...this.#caller, ...this.#agent].some((level) => level > 0.01);
    if (this.#running || moving) requestAnimationFrame((next) => this.#tick(next));
  }

  #push(levels, level) {
    if (this.#still.matches) {
      levels.fill(0.85 * levels[0] + 0.15 * level); // the whole half swells slowly, nothing travels
      return;
    }
    levels.copyWithin(1, 0);
    const ease = level > levels[1] ? ATTACK : RELEASE;
    levels[0] = levels[1] + ease * (level - levels[1]);
  }

  #fit() {
    const scale = window.devicePixelRatio || 1;
    const side = Math.round(this.#canvas.clientWidth * scale);
    this.#canvas.width = side;
    this.#canvas.height = side;
    const style = getComputedStyle(this.#canvas);
    this.#colours = {
      caller: style.getPropertyValue("--caller"),
      agent: style.getPropertyValue("--agent"),
    };
    this.#draw();
  }

  #draw() {
    const side = this.#canvas.width;
    const paint = this.#canvas.getContext("2d");
    paint.clearRect(0, 0, side, side);
    paint.lineCap = "round";
    paint.lineWidth = Math.max(2, side * 0.0105);
    this.#drawHalf(paint, side, this.#caller, 0, this.#colours.caller);
    this.#drawHalf(paint, side, this.#agent, Math.PI, this.#colours.agent);
  }

  #drawHalf(paint, side, levels, middle, colour) {
    const inner = side * 0.365;
    const room = side * 0.5 - inner - paint.lineWidth;
    const spread = (Math.PI * 0.965) / 2; // a small gap parts the two halves
    paint.strokeStyle = colour;
    for (let k = 1 - TICKS; k < TICKS; k += 1) {
      const distance = Math.abs(k) / (TICKS - 1);
      const level = levels[Math.abs(k)] * (1 - 0.55 * distance);
      const angle = middle + (k / (TICKS - 1)) * spread;
      const outer = inner + room * (REST + (1 - REST) * level);
      paint.globalAlpha = 0.32 + 0.68 * Math.min(1, level * 1.6);
      paint.beginPath();
      paint.moveTo(side / 2 + inner * Math.cos(angle), side / 2 + inner * Math.sin(angle));
      paint.lineTo(side / 2 + outer * Math.cos(angle), side / 2 + outer * Math.sin(angle));
      paint.stroke();
    }
    paint.globalAlpha = 1;
  }
}
