// What the model's numbers mean for one picture: app/model/classifier.py and app/explain/regions.py in this language.

import { imageShare, ontoImage } from "./square.js";

const highest = (numbers) => numbers.reduce((most, each) => Math.max(most, each), -Infinity);
const clipped = (numbers) => numbers.map((each) => Math.min(Math.max(each, 0), 1));

/** The words for a probability among `[least, words]`, highest first. */
export const inWords = (steps, probability) => steps.find(([least]) => Math.fround(probability) >= Math.fround(least))[1];

/** Whether a picture is like those the model was made for, by the detector's score; one in colour is judged strictly. */
export function likeness(score, card, tinted) {
  if (score > (tinted && !card.distance ? card.warning : card.rejection)) return "out-of-distribution";
  return score > card.warning ? "unusual" : "in-distribution";
}

/** One picture, what was predicted, and the evidence behind every class. */
export class Explanation {
  /**
   * @param card the model's.
   * @param found `probabilities` (C), `maps` (C, h, w) in logits, `fracture` (h, w) or null, and h and w.
   * @param place where the picture lies in the model's square.
   */
  constructor(card, found, place) {
    Object.assign(this, { card, place }, found);
    this.maps = card.classes.map((_, c) => found.maps.subarray(c * this.h * this.w, (c + 1) * this.h * this.w));
    this.shows = imageShare(this.h, this.w, place);
    const enough = Math.min(0.5, highest(this.shows));
    this.peaks = this.maps.map((map) => highest(map.filter((_, i) => this.shows[i] >= enough)));
    const strongest = Math.max(card.typical_evidence, ...this.peaks);
    this.fullColour = strongest > 0 ? strongest : 1;
    this.ranking = card.classes.map((_, c) => c).sort((a, b) => this.probabilities[b] - this.probabilities[a]);
  }

  /** Whether a fracture is seen at the model's two operating points; null where it was not taught to tell. */
  get seen() {
    const { presence } = this.card;
    if (presence === null || this.fracture === null) return null;
    const most = highest(this.fracture);
    const odds = most + Math.log(this.fracture.reduce((sum, each) => sum + Math.exp(each - most), 0));
    if (odds < presence.sensitive) return "none";
    return odds >= presence.specific ? "definite" : "suspicious";
  }

  /** The types that together hold the label as often as the card says, likeliest first. */
  get possible() {
    const { score, limit } = this.card.sets;
    let sum = 0;
    const scores = this.ranking.map((c) => (sum += this.probabilities[c]) && (score === "LAC" ? 1 - this.probabilities[c] : sum));
    return this.ranking.slice(0, Math.max(1, scores.filter((each) => Math.fround(each) <= limit).length));
  }

  hasEvidence(c) {
    return this.peaks[c] > this.card.drawing.faint * this.fullColour;
  }

  /** The heatmap of a class on a picture of some size, 0 to 1: all zero without evidence. */
  heat(c, height, width) {
    if (!this.hasEvidence(c)) return new Float32Array(height * width);
    const positive = this.maps[c].map((each) => Math.max(each / this.fullColour, 0));
    return clipped(ontoImage(positive, this.h, this.w, this.place, height, width));
  }

  /** A class's evidence at a point, in shares of width and height, in logits. */
  evidenceAt(c, x, y) {
    const { height, width } = this.place;
    const laid = ontoImage(this.maps[c], this.h, this.w, this.place, height, width);
    return laid[Math.floor(y * height) * width + Math.floor(x * width)];
  }

  /** Odds of a fracture relative to the likeliest cell, 0 to 1, on a picture of some size. */
  fractureOdds(height, width) {
    const most = highest(this.fracture);
    const odds = this.fracture.map((each) => Math.exp(each - most));
    return clipped(ontoImage(odds, this.h, this.w, this.place, height, width));
  }

  /** Share of a class's positive evidence that lies outside the picture: heat nobody gets to see. */
  outside(c) {
    let [sum, hidden] = [0, 0];
    this.maps[c].forEach((each, i) => {
      sum += Math.max(each, 0);
      hidden += Math.max(each, 0) * (1 - this.shows[i]);
    });
    return sum > 0 ? hidden / sum : 0;
  }
}

/** The outer border of the region that holds `first`, its highest and leftmost pixel: points [x, y], clockwise. */
function border(labels, height, width, first) {
  const [right, number] = [[1, 1, 0, -1, -1, -1, 0, 1], labels[first]];
  const step = (side) => [right[side & 7], right[(side + 6) & 7]]; // 0 is right, then clockwise
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] === number;
  const start = [first % width, Math.floor(first / width)];
  const points = [start];
  let [[x, y], from, began] = [start, 4, null];
  for (;;) {
    let side = 1;
    while (side <= 8 && !inside(x + step(from + side)[0], y + step(from + side)[1])) side++;
    if (side > 8) return points; // alone
    const way = (from + side) & 7;
    if (x === start[0] && y === start[1]) {
      if (way === began) return points.slice(0, -1);
      began ??= way;
    }
    [x, y] = [x + step(way)[0], y + step(way)[1]];
    points.push([x, y]);
    from = (way + 4) & 7;
  }
}

/** Regions of a picture (height, width) where `inside(i)`: their pixels, and the line round each. */
export function outlined(inside, height, width) {
  const labels = new Int32Array(height * width);
  const found = [];
  for (let first = 0; first < labels.length; first++) {
    if (labels[first] || !inside(first)) continue;
    const pixels = [first];
    labels[first] = found.length + 1;
    for (let next = 0; next < pixels.length; next++) {
      const [x, y] = [pixels[next] % width, Math.floor(pixels[next] / width)];
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
          const at = v * width + u;
          if (labels[at] || !inside(at)) continue;
          labels[at] = found.length + 1;
          pixels.push(at);
        }
      }
    }
    found.push({ pixels, line: border(labels, height, width, first) });
  }
  return found;
}

/** The hottest regions of a heatmap, most heat first: the line round each, its share of the heat, and its centre. */
export function hotRegions(heat, height, width, drawing) {
  const total = heat.reduce((sum, each) => sum + each, 0);
  const least = Math.max(drawing.hottest * highest(heat), drawing.visible);
  const found = outlined((i) => heat[i] >= least, height, width).map(({ pixels, line }) => {
    const hottest = pixels.reduce((best, i) => (heat[i] > heat[best] ? i : best));
    const share = pixels.reduce((sum, i) => sum + heat[i], 0) / total;
    return { line, share, x: ((hottest % width) + 0.5) / width, y: (Math.floor(hottest / width) + 0.5) / height };
  });
  return found.sort((a, b) => b.share - a.share);
}

/** A region's place on the picture in words, such as "upper left". */
export function where({ x, y }) {
  const column = x < 1 / 3 ? "left" : x > 2 / 3 ? "right" : "";
  const row = y < 1 / 3 ? "upper" : y > 2 / 3 ? "lower" : column ? "middle" : "centre";
  return `${row} ${column}`.trim();
}
