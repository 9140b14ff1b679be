// PNG of 16 bits a channel, which browsers cut to 8: most X-rays so stored use a small part of that range and would come
// out black. (PNG, third edition: chunks 5.3, filters 9.2.)

import { Refusal, say } from "./words.js";

const CHANNELS = { 0: 1, 2: 3, 4: 2, 6: 4 };
/** By type of colour. */

export const isDeep = (bytes) => bytes[24] === 16;

async function inflated(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function unfiltered(packed, height, line, step) {
  const bytes = new Uint8Array(height * line);
  for (let y = 0; y < height; y++) {
    const filter = packed[y * (line + 1)];
    for (let i = 0; i < line; i++) {
      const at = y * line + i;
      const left = i < step ? 0 : bytes[at - step];
      const up = y ? bytes[at - line] : 0;
      const corner = y && i >= step ? bytes[at - line - step] : 0;
      const guess = left + up - corner;
      const [a, b, c] = [left, up, corner].map((each) => Math.abs(guess - each));
      const paeth = a <= b && a <= c ? left : b <= c ? up : corner;
      bytes[at] = packed[y * (line + 1) + 1 + i] + [0, left, up, (left + up) >> 1, paeth][filter];
    }
  }
  return bytes;
}

/** The value below which a share of some numbers lies, between neighbours in proportion. */
function percentile(sorted, share) {
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** Its own darkest and brightest values but for one in a thousand, looked for among about a million pixels. */
function windowOf(grey, height, width) {
  const [down, across] = [height, width].map((side) => Math.max(1, Math.floor(side / 1024)));
  const some = [];
  for (let y = 0; y < height; y += down) for (let x = 0; x < width; x += across) some.push(grey[y * width + x]);
  const sorted = Uint16Array.from(some).sort();
  return [percentile(sorted, 0.001), percentile(sorted, 0.999)];
}

/** Grey of 16 bits of such a file, with height, width and window. */
export async function readDeep(file) {
  const view = new DataView(file.buffer);
  const [width, height, channels] = [view.getUint32(16), view.getUint32(20), CHANNELS[file[25]]];
  if (file[28] || !channels) throw new Refusal(say("deep_odd"));
  const parts = [];
  for (let at = 8; at + 8 <= file.length; at += 12 + view.getUint32(at)) {
    if (String.fromCharCode(...file.subarray(at + 4, at + 8)) === "IDAT") {
      parts.push(file.subarray(at + 8, at + 8 + view.getUint32(at)));
    }
  }
  const [line, packed] = [2 * channels * width, await inflated(parts).catch(() => new Uint8Array())];
  if (packed.length < height * (line + 1)) throw new Refusal(say("damaged"));
  const bytes = unfiltered(packed, height, line, 2 * channels);
  const grey = new Uint16Array(height * width);
  for (let i = 0; i < grey.length; i++) {
    const value = (c) => (bytes[2 * (i * channels + c)] << 8) | bytes[2 * (i * channels + c) + 1];
    const opacity = channels === 1 || channels === 3 ? 1 : value(channels - 1) / 65535;
    const [red, green, blue] = channels < 3 ? [value(0), value(0), value(0)] : [value(0), value(1), value(2)];
    grey[i] = Math.round(opacity * (0.299 * red + 0.587 * green + 0.114 * blue));
  }
  return { height, width, grey, window: windowOf(grey, height, width) };
}
