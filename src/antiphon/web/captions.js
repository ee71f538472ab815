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
  #atEnd = true;

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

  clear() {
    this.#list.replaceChildren();
    this.#atEnd = true;
    this.#byReply.clear();
    this.#caller = null;
    this.#agent = null;
  }

  /** What the caller said; a partial text replaces the one before it. */
  callerSaid(text, isFinal) {
    if (text.trim() === "") {
      if (isFinal) this.#drop(this.#caller);
    } else {
      this.#caller ??= this.#add("caller");
      setText(this.#caller, text.trim());
      this.#caller.classList.toggle("partial", !isFinal);
    }
    if (isFinal) this.#caller = null;
    this.#follow();
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
      setText(this.#agent, (this.#agent.dataset.text ?? "") + piece);
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
    if (this.#agent && !this.#agent.dataset.text) this.#drop(this.#agent);
    this.#agent = null;
  }

  /** An answer was interrupted: strike out what was not heard. */
  heard(reply, text, unheard) {
    const entry = this.#byReply.get(reply) ?? this.#agent;
    if (!entry) return;
    entry.hidden = false;
    entry.classList.remove("partial");
    entry.classList.add("interrupted");
    const spoken = document.createTextNode(text.trimEnd());
    const struck = document.createElement("del");
    struck.textContent = unheard.trim();
    const said = entry.querySelector(".said");
    if (unheard.trim() === "") said.replaceChildren(spoken);
    else said.replaceChildren(spoken, " ", hiddenText(`(${CAPTION.unheard} `), struck, hiddenText(")"));
    entry.dataset.text = text;
    if (entry === this.#agent) this.#agent = null;
    this.#follow();
  }

  /** A line across: what follows was said after the connection had been lost. */
  reconnected() {
    const item = document.createElement("li");
    item.className = "divider";
    item.textContent = CAPTION.reconnected;
    this.#list.append(item);
    this.#caller = null;
    this.#agent = null;
    this.#follow();
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
    this.#list.append(item);
    return item;
  }

  #drop(entry) {
    entry?.remove();
    for (const [reply, item] of this.#byReply) if (item === entry) this.#byReply.delete(reply);
  }

  /** Shows the newest words, unless the reader looks at older ones. */
  #follow() {
    if (this.#atEnd) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

function setText(entry, text) {
  entry.dataset.text = text;
  entry.querySelector(".said").textContent = text;
}

function hiddenText(text) {
  const span = document.createElement("span");
  span.className = "visually-hidden";
  span.textContent = text;
  return span;
}
