/**
 * The settings as a form in a dialog. Knows what the server offers, not what becomes of a choice.
 */

import { ask } from "./connection.js";
import { SETTINGS } from "./words.js";

const NAMES = new Intl.DisplayNames([navigator.language, "en"], { type: "language", fallback: "code" });
const USUAL = ["de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "uk", "zh"];

function languageName(code) {
  try {
    return NAMES.of(code) ?? code;
  } catch {
    return code; // not a language tag
  }
}

export class SettingsPanel {
  #dialog;
  #form;
  #note;
  #settings;
  #ownersLevel = "";
  #changed;

  /**
   * @param {HTMLDialogElement} dialog
   * @param {import("./settings.js").Settings} settings
   * @param {(changes: object) => boolean} changed told of each change -> whether it holds at once
   */
  constructor(dialog, settings, changed) {
    this.#dialog = dialog;
    this.#form = dialog.querySelector("form");
    this.#note = dialog.querySelector("[role=status]");
    this.#settings = settings;
    this.#changed = changed;
    this.#form.addEventListener("change", ({ target }) => this.#change(target));
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog) dialog.close(); // beside the form
    });
  }

  /** The learner's level that holds: the person's own choice, else the server owner's; empty: nobody learns. */
  get level() {
    return this.#settings.values.level || this.#ownersLevel;
  }

  get isOpen() {
    return this.#dialog.open;
  }

  open() {
    this.#note.textContent = "";
    this.#show();
    this.#dialog.showModal();
    void this.ask();
  }

  /** What the server offers; without an answer the saved choices stay as they are. */
  async ask() {
    try {
      const answer = await ask("api/options", this.#settings.values.key);
      if (answer.ok) this.#offer(await answer.json());
    } catch {
      this.#note.textContent = SETTINGS.offline;
    }
  }

  #offer(options) {
    const fields = this.#form.elements;
    this.#ownersLevel = options.level ?? "";
    const agents = options.agents ?? [];
    const languages = options.languages?.length ? options.languages : USUAL;
    this.#dialog.querySelector("#agent-field").hidden = agents.length === 0;
    fill(fields.agent, agents, (name) => name);
    fill(fields.voice, options.voices ?? [], (name) => name);
    fill(fields.language, languages, languageName);
    fields.voice.disabled = fields.voice.options.length < 2;
    this.#show();
  }

  #show() {
    const fields = this.#form.elements;
    for (const [name, value] of Object.entries(this.#settings.values)) {
      const field = fields[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = value;
      else {
        if (field instanceof HTMLSelectElement) keep(field, value);
        field.value = value;
      }
    }
  }

  #change(field) {
    const value = field.type === "checkbox" ? field.checked : field.value;
    const changes = this.#settings.change({ [field.name]: value });
    if (Object.keys(changes).length === 0) return;
    this.#note.textContent = this.#changed(changes) ? SETTINGS.now : SETTINGS.next;
  }
}

/** Keeps the first entry, which stands for the default. */
function fill(select, values, nameOf) {
  select.replaceChildren(select.options[0]);
  for (const value of values) select.append(new Option(nameOf(value), value));
}

/** A choice of an earlier visit that is not offered (any more) is shown all the same. */
function keep(select, value) {
  const known = [...select.options].some((option) => option.value === value);
  if (!known) select.append(new Option(value, value));
}
