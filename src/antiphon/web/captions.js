/**
 * The conversation in words: the caller on the right, the agent on the left. Knows no protocol and
 * no sound; takes what was said and what of it was heard.
 */

import { CAPTION, SPEAKER } from "./words.js";

const NEAR_END_PX = 80; // a reader who scrolled further up is left where they are

export class Captions {
  #list;
  #caller = null; // the entry that partial transcripts still change
  #agent = null; // the entry that streamed text is added to
  #byReply = new Map();
  #byItem = new Map();
  #said = new WeakMap(); // entry -> {speaker, at, text, unheard}
  #atEnd = true;
  #began = new Date();

  /** @param {HTMLOListElement} list empty */
  constructor(list) {
    this.#list = list;
    list.addEventListener("scroll", () => {
      const below = list.scrollHeight - list.scrollTop - list.clientHeight;
      this.#atEnd = below < NEAR_END_PX;
    });
    new ResizeObserver(() => this.#follow()).observe(list);
  }

  get empty() {
    return this.#list.childElementCount === 0;
  }

  /** When the first word of this conversation could have been said. */
  get began() {
    return this.#began;
  }

  clear() {
    this.#list.replaceChildren();
    this.#atEnd = true;
    this.#byReply.clear();
    this.#byItem.clear();
    this.#caller = null;
    this.#agent = null;
    this.#began = new Date();
  }

  /** What was said so far, in order: [{speaker, at, text, unheard}]. */
  entries() {
    const all = [...this.#list.children].map((item) => this.#said.get(item));
    return all.filter((entry) => entry && (entry.text || entry.unheard)).map((entry) => ({ ...entry }));
  }

  /** What the caller said; a partial text replaces the one before it. `item` names the utterance, if it has a name. */
  callerSaid(text, isFinal, item = null) {
    if (item !== null) this.#caller = this.#byItem.get(item) ?? null;
    if (text.trim() === "") {
      if (isFinal) this.#drop(this.#caller);
    } else {
      this.#caller ??= this.#add("caller");
      if (item !== null) this.#byItem.set(item, this.#caller);
      this.#setText(this.#caller, text.trim());
      this.#caller.classList.toggle("partial", !isFinal);
    }
    if (isFinal) this.#caller = null;
    this.#follow();
  }

  /** The utterance of this name was nothing, or is not over: its words come again if they still hold. */
  withdraw(item) {
    const entry = this.#byItem.get(item);
    if (entry === this.#caller) this.#caller = null;
    this.#drop(entry);
  }

  /** A piece of the agent's answer; `reply` is its name where the server gives one. */
  agentSays(piece, isComplete, reply = null) {
    if (reply !== null) {
      this.nameReply(reply);
      this.#agent = this.#byReply.get(reply);
    }
    if (piece !== "") {
      if (this.#agent?.dataset.complete) this.#agent = null;
      this.#agent ??= this.#add("agent");
      this.#setText(this.#agent, this.#said.get(this.#agent).text + piece);
      this.#agent.hidden = false;
    }
    if (this.#agent && isComplete) this.#agent.dataset.complete = "yes";
    this.#agent?.classList.toggle("partial", !isComplete);
    this.#follow();
  }

  /** The answer of this name starts: the words that came just before are its, or else those to come. */
  nameReply(reply) {
    if (this.#byReply.has(reply)) return;
    if (!this.#agent || this.#agent.dataset.reply) {
      this.#agent = this.#add("agent");
      this.#agent.hidden = true; // until the first words come
    }
    this.#agent.dataset.reply = reply;
    this.#byReply.set(reply, this.#agent);
  }

  /** The answer is over; words that follow belong to another one. */
  agentDone() {
    this.#agent?.classList.remove("partial");
    if (this.#agent && !this.#said.get(this.#agent).text) this.#drop(this.#agent);
    this.#agent = null;
  }

  /** An answer was interrupted: strike out what was not heard. */
  heard(reply, text, unheard) {
    const entry = this.#byReply.get(reply) ?? this.#agent;
    if (!entry) return;
    if (entry === this.#agent) this.#agent = null;
    if (text.trim() === "") {
      this.#drop(entry); // withdrawn before a sound of it was heard
      return;
    }
    entry.hidden = false;
    entry.classList.remove("partial");
    entry.classList.add("interrupted");
    const spoken = document.createTextNode(text.trimEnd());
    const struck = document.createElement("del");
    struck.textContent = unheard.trim();
    const said = entry.querySelector(".said");
    if (unheard.trim() === "") said.replaceChildren(spoken);
    else said.replaceChildren(spoken, " ", hiddenText(`(${CAPTION.unheard} `), struck, hiddenText(")"));
    Object.assign(this.#said.get(entry), { text: text.trim(), unheard: unheard.trim() });
    this.#follow();
  }

  /** Where the time of this answer went: a fold below it, open while it is the latest. */
  timing(reply, details) {
    const entry = this.#byReply.get(reply);
    if (!entry || details === null) return;
    for (const older of this.#list.querySelectorAll("details.timing[open]")) older.open = false;
    entry.querySelector("details.timing")?.remove();
    details.open = true;
    entry.append(details);
    this.#follow();
  }

  /** A line across: what follows was said after the connection had been lost. `anew`: by somebody who forgot. */
  reconnected(resumed, anew) {
    const item = document.createElement("li");
    item.className = "divider";
    item.textContent = anew ? CAPTION.startedAnew : CAPTION.reconnected;
    this.#list.append(item);
    if (!resumed) {
      this.#byItem.clear(); // another call counts from the beginning
      this.#byReply.clear();
      this.#caller = null;
      this.#agent = null;
    }
    this.#follow();
  }

  /** What comes after the last word, read from its beginning. */
  conclude(section) {
    const item = document.createElement("li");
    item.append(section);
    this.#list.append(item);
    this.#atEnd = false;
    item.scrollIntoView({ block: "start" });
  }

  #add(speaker) {
    const item = document.createElement("li");
    item.className = `entry ${speaker} partial`;
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = SPEAKER[speaker];
    const said = document.createElement("span");
    said.className = "said";
    item.append(who, said);
    this.#said.set(item, { speaker, at: new Date(), text: "", unheard: "" });
    this.#list.append(item);
    return item;
  }

  #setText(entry, text) {
    this.#said.get(entry).text = text;
    entry.querySelector(".said").textContent = text;
  }

  #drop(entry) {
    entry?.remove();
    for (const names of [this.#byReply, this.#byItem]) {
      for (const [name, item] of names) if (item === entry) names.delete(name);
    }
  }

  /** Shows the newest words, unless the reader looks at older ones. */
  #follow() {
    if (this.#atEnd) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

function hiddenText(text) {
  const span = document.createElement("span");
  span.className = "visually-hidden";
  span.textContent = text;
  return span;
}
