/**
 * What a teacher says of the learner's part, as the server's `analysis` has it (docs/protocols/conversation.md): read
 * with care, and made into a part of the page. Knows no connection and no place on the page.
 */

import { FEEDBACK } from "./words.js";

const LISTS = ["vocabulary", "suggestions"];

/** The documented shape, whatever came: what is not of its kind is left out. */
export function readAnalysis(data) {
  const given = data !== null && typeof data === "object" ? data : {};
  const analysis = { status: clean(given.status), summary: clean(given.summary), mistakes: mistakesOf(given.mistakes) };
  for (const name of LISTS) analysis[name] = entriesOf(given[name]).map(clean).filter(Boolean);
  analysis.estimated_level = clean(given.estimated_level) || "unknown";
  const lists = [analysis.mistakes, ...LISTS.map((name) => analysis[name])];
  const empty = !analysis.summary && lists.every((list) => list.length === 0);
  return empty ? { ...analysis, status: "unavailable", summary: FEEDBACK.nothing } : analysis;
}

/** [title, lines] of each part that has something to say; a line of the mistakes is {said, correction, why}. */
export function partsOf(analysis) {
  const { status, mistakes, vocabulary, suggestions } = analysis;
  const none = status === "ok" ? [FEEDBACK.noMistakes] : [];
  return [
    [FEEDBACK.mistakes, mistakes.length ? mistakes : none],
    [FEEDBACK.vocabulary, vocabulary],
    [FEEDBACK.suggestions, suggestions],
  ].filter(([, lines]) => lines.length > 0);
}

/** "Beginner", or nothing where nobody can tell. */
export function levelOf({ estimated_level: level }) {
  return FEEDBACK.levels[level] ?? "";
}

/** @returns {HTMLElement} a section with a name of its own, which can take the focus */
export function feedbackSection(analysis) {
  const section = element("section", "feedback");
  const title = element("h3", "", FEEDBACK.title);
  title.id = "feedback-title";
  section.setAttribute("aria-labelledby", title.id);
  section.tabIndex = -1;
  section.append(title);
  const level = levelOf(analysis);
  if (level) section.append(element("p", "level", `${FEEDBACK.level}: ${level}`));
  if (analysis.summary) section.append(element("p", "summary", analysis.summary));
  for (const [name, lines] of partsOf(analysis)) section.append(element("h4", "", name), listOf(name, lines));
  return section;
}

function listOf(name, lines) {
  const list = element("ul", name === FEEDBACK.vocabulary ? "chips" : typeof lines[0] === "string" ? "" : "mistakes");
  list.setAttribute("role", "list"); // which Safari forgets of lists without bullets
  for (const line of lines) {
    const item = element("li", "");
    if (typeof line === "string") item.textContent = line;
    else item.append(...correction(line));
    list.append(item);
  }
  return list;
}

function correction({ said, correction: better, why }) {
  const parts = [
    element("span", "visually-hidden", `${FEEDBACK.said}: `),
    element("span", "wrong", said),
    element("span", "visually-hidden", `. ${FEEDBACK.better}: `),
    element("span", "right", better),
  ];
  if (why) parts.push(element("span", "visually-hidden", ". "), element("span", "why", why));
  return parts;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function clean(value) {
  return typeof value === "string" ? value.trim() : "";
}

function entriesOf(value) {
  return Array.isArray(value) ? value : [];
}

function mistakesOf(value) {
  return entriesOf(value)
    .map((entry) => ({ said: clean(entry?.said), correction: clean(entry?.correction), why: clean(entry?.why) }))
    .filter(({ said, correction: better }) => said && better);
}
