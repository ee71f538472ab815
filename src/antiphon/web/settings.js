/**
 * What the person has chosen, kept in the browser. Knows no element and no connection.
 */

/** What the protocol's `start` and `configure` take by these names. */
export const FOR_THE_SERVER = ["agent", "instructions", "voice", "language", "listen"];
const KEY = "antiphon.settings";
const CHOICES = { listen: ["open", "push"], level: ["", "beginner", "intermediate", "advanced"] };
const DEFAULTS = Object.freeze({
  agent: "",
  instructions: "",
  voice: "",
  language: "",
  level: "",
  listen: "open",
  timing: true,
  key: "",
});

export class Settings {
  #values = { ...DEFAULTS };

  /** From an earlier visit; whatever is not of its kind is left at the default. */
  constructor() {
    let kept = null;
    try {
      kept = JSON.parse(window.localStorage.getItem(KEY));
    } catch {
      // Storage may be switched off, or hold what is not ours.
    }
    for (const [name, value] of Object.entries(kept ?? {})) this.#accept(name, value);
  }

  get values() {
    return { ...this.#values };
  }

  /** Of those for the server, what differs from the owner's choice. */
  get chosen() {
    const chosen = FOR_THE_SERVER.filter((name) => this.#values[name] !== DEFAULTS[name]);
    return Object.fromEntries(chosen.map((name) => [name, this.#values[name]]));
  }

  /** Changes some of them for good. @returns {object} those that are another value now */
  change(values) {
    const before = this.#values;
    this.#values = { ...before };
    for (const [name, value] of Object.entries(values)) this.#accept(name, value);
    try {
      window.localStorage.setItem(KEY, JSON.stringify(this.#values));
    } catch {
      // They hold for this visit.
    }
    const changed = Object.entries(this.#values).filter(([name, value]) => before[name] !== value);
    return Object.fromEntries(changed);
  }

  #accept(name, value) {
    if (!(name in DEFAULTS) || typeof value !== typeof DEFAULTS[name]) return;
    if (name in CHOICES && !CHOICES[name].includes(value)) return;
    this.#values[name] = value;
  }
}
