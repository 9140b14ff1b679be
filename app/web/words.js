// The page's sentences, which lie in card.json in the words of the model's subject.

/** Something is wrong with a file; the message says what, for people. */
export class Refusal extends Error {}

/** What the page knows of its model. */
export const card = await (await fetch("card.json")).json();

/** A sentence by its key, with its values put in. */
export const say = (key, values = {}) => card.words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

export const percent = (share) => `${(100 * share).toFixed(0)} %`;
