// What the page says of a picture: app/ui/text.py in this language. HTML is made of elements, never of text.

import { inWords, where } from "./explanation.js";
import { card, percent, say } from "./words.js";

/** An element with its classes and what it holds: text, elements, or nothing. */
export function element(name, classes = "", ...inside) {
  const made = Object.assign(document.createElement(name), { className: classes });
  made.append(...inside.filter((each) => each !== null && each !== undefined && each !== false));
  return made;
}

function setOfTypes(explanation) {
  const types = explanation.possible.map((c) => card.classes[c].short.toLowerCase());
  const told = { level: percent(card.sets.level), count: types.length, types: types.join(", ") };
  return say(types.length === card.classes.length ? "any" : "some", told);
}

/** What was measured of such a verdict, a sentence each. */
function reliability(explanation, seen, doubtful) {
  const [best] = explanation.ranking;
  const share = explanation.probabilities[best];
  const told = [
    card.calibrated ? say("share", { share: percent(share), words: inWords(card.sure, share) }) : say("unchecked"),
    card.records[Math.min(Math.floor(share * card.records.length), card.records.length - 1)],
  ];
  if (card.sets) told.push(doubtful ? say("only", { rest: setOfTypes(explanation) }) : setOfTypes(explanation));
  return [...told, card.errors[seen], ...card.classes[best].tested, card.always].filter(Boolean);
}

/** How far to believe the likeliest type, in a line. */
function sureness(explanation, doubtful) {
  if (!card.calibrated) return say("uncalibrated");
  const words = inWords(card.confidence, explanation.probabilities[explanation.ranking[0]]);
  const unsure = card.sets && !doubtful && words === inWords(card.confidence, 0);
  const count = unsure ? explanation.possible.length : 1;
  return count > 1 ? say("possible", { count }) : words[0].toUpperCase() + words.slice(1);
}

/** The predicted type, how sure that is and whether a fracture is seen; how reliable that is, closed. */
export function verdict(explanation, picture, likeness) {
  const { seen, ranking, probabilities } = explanation;
  const [best] = ranking;
  const notes = [...picture.notes];
  const warnings = [card.words.likeness[likeness], picture.foreign && notes.shift()].filter(Boolean);
  const muted = seen === "none" || warnings.length ? "muted" : "";
  const words = sureness(explanation, Boolean(muted));
  // Beside a finding, only the type's name is left to say.
  const name = seen ? `${say("type")} ${card.classes[best].short.toLowerCase()}` : card.classes[best].title;
  const kind = element("p", `kind ${muted}`, element("b", "", name), element("span", "", percent(probabilities[best])));
  // How far to believe a finding: how often it is wrong. The type's confidence would be taken for that.
  const wrong = seen && card.wrong[seen];
  // Nobody knows how often an answer about a picture unlike all others is right.
  const sure = likeness !== "out-of-distribution" && element("p", "sure", words);
  const finding = [seen && element("p", `presence ${seen}`, card.words.found[seen]), wrong && element("p", "sure", wrong)];
  const list = element("ul", "", ...reliability(explanation, seen, Boolean(muted)).map((each) => element("li", "", each)));
  // A type and its share would be taken for the chance of such a fracture.
  const which =
    seen === "none"
      ? [element("details", "", element("summary", "", say("if")), kind, sure, list)]
      : [kind, sure, element("details", "", element("summary", "", say("reliable")), list)];
  return [
    ...warnings.map((each) => element("p", "warning", each)),
    ...finding,
    element("div", "which", ...which.filter(Boolean)),
    ...notes.map((each) => element("p", "note", each)),
  ].filter(Boolean);
}

/** A choice of types as bars of their probabilities, likeliest first. */
export function bars(explanation, choose) {
  return explanation.ranking.map((c, rank) => {
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "type", value: c, checked: !rank });
    input.addEventListener("change", () => choose(c));
    const share = percent(explanation.probabilities[c]);
    const label = element("label", rank < 3 ? "" : "more", input, element("span", "", card.classes[c].short), element("b", "", share));
    label.style.setProperty("--share", `${100 * explanation.probabilities[c]}%`);
    return label;
  });
}

/** The picture's finding for those who cannot see it. */
export function alternative(explanation, c, regions, heatShown) {
  if (!heatShown) return say("picture_plain");
  const [{ seen }, type] = [explanation, card.classes[c].title.toLowerCase()];
  const told = regions.length ? say("picture", { type, place: where(regions[0]) }) : say("picture_cold", { type });
  return seen ? `${told} ${card.words.found[seen]}.` : told;
}

/** What to know of a class's map at once. */
export function warningOf(explanation, c) {
  const outside = explanation.outside(c);
  if (!explanation.hasEvidence(c)) {
    return say("no_map", { nothing: say("no_evidence"), type: card.classes[c].title.toLowerCase() });
  }
  return outside >= card.drawing.outside ? say("outside", { share: percent(outside) }) : "";
}

/** Which type's heatmap is shown, what the type is, and how to read the picture. */
export function description(c, regions) {
  const { title, meaning } = card.classes[c];
  const shown = regions.slice(0, card.drawing.regions);
  const listed = shown.map((each) => element("li", "", say("region", { place: where(each), share: percent(each.share) })));
  return [
    element("p", "", `${say("heatmap", { type: title.toLowerCase() })} ${meaning}`),
    ...(listed.length > 1 ? [element("p", "", say("regions")), element("ul", "", ...listed)] : []),
    element("p", "", say("reading")),
  ];
}

/** The evidence at a point, in shares of width and height: the three strongest types, and the one most against. */
export function point(explanation, x, y) {
  const found = card.classes.map(({ short }, c) => ({ short, value: explanation.evidenceAt(c, x, y) }));
  const sorted = found.sort((a, b) => b.value - a.value);
  const shown = [...sorted.slice(0, 3), ...sorted.slice(3).slice(-1)];
  const told = shown.map(({ short, value }) => `${short} ${value < 0 ? "" : "+"}${value.toFixed(1)}`);
  const [before, after] = say("point", { evidence: "|" }).split("|");
  return [before, element("strong", "", told.join(" · ")), after];
}
