// From a picture to the model's black square without distortion, and back: what app/imaging/letterbox.py does, to the
// rounding of OpenCV. Arrays are row by row; channels of a pixel lie side by side, but in a square one after another.

/** Rounds halves to even, as Python and OpenCV do. */
function round(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
}

/** The largest undistorted, centred placement of an image in a square: its size, and where it lies. */
export function fit(height, width, size) {
  const scale = size / Math.max(height, width);
  const high = Math.max(1, round(height * scale));
  const wide = Math.max(1, round(width * scale));
  return { size, top: (size - high) >> 1, left: (size - wide) >> 1, height: high, width: wide };
}

const cubic = (far, a = -0.75) =>
  far <= 1 ? ((a + 2) * far - (a + 3)) * far * far + 1 : ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;

/** Where each pixel of a line of `to` takes its value from among `from`, and with what weights, `many` each. */
function taps(from, to, kind) {
  const scale = from / to;
  const many = { area: Math.ceil(scale) + 2, linear: 2, cubic: 4 }[kind];
  const at = new Int32Array(to * many);
  const weight = new Float32Array(to * many);
  for (let i = 0; i < to; i++) {
    const start = i * scale;
    const middle = Math.fround((i + 0.5) * scale - 0.5);
    for (let k = 0; k < many; k++) {
      const place = Math.floor(kind === "area" ? start : middle) + k - (kind === "cubic");
      let share;
      if (kind === "area") {
        const inside = Math.min(start + scale, place + 1, from) - Math.max(start, place);
        // OpenCV leaves out slivers.
        share = inside > 1e-3 ? inside / Math.min(scale, from - start) : 0;
      } else {
        share = kind === "cubic" ? cubic(Math.abs(middle - place)) : 1 - Math.abs(middle - place);
      }
      at[i * many + k] = Math.min(Math.max(place, 0), from - 1);
      weight[i * many + k] = share;
    }
  }
  return { at, weight, many };
}

/** Numbers (height, width, channels) at another size: float32, each step rounded as OpenCV's are. */
export function resample(source, height, width, toHeight, toWidth, kind, channels = 1) {
  const across = taps(width, toWidth, kind);
  const down = taps(height, toHeight, kind);
  const line = toWidth * channels;
  const lines = new Map(); // of source rows resampled across, as long as they are needed
  const resampled = (row) => {
    if (lines.has(row)) return lines.get(row);
    const found = new Float32Array(line);
    for (let i = 0; i < toWidth; i++) {
      for (let k = i * across.many; k < (i + 1) * across.many; k++) {
        if (!across.weight[k]) continue;
        const from = (row * width + across.at[k]) * channels;
        for (let c = 0; c < channels; c++) found[i * channels + c] += Math.fround(across.weight[k] * source[from + c]);
      }
    }
    for (const old of lines.keys()) if (lines.size > down.many) lines.delete(old);
    lines.set(row, found);
    return found;
  };
  const made = new Float32Array(toHeight * line);
  for (let j = 0; j < toHeight; j++) {
    for (let k = j * down.many; k < (j + 1) * down.many; k++) {
      if (!down.weight[k]) continue;
      const row = resampled(down.at[k]);
      for (let i = 0; i < line; i++) made[j * line + i] += Math.fround(down.weight[k] * row[i]);
    }
  }
  return made;
}

/** Means of whole blocks of pixels, as OpenCV rounds them: of four pixels halves go up. */
function blocks(source, width, toHeight, toWidth, channels, [high, wide]) {
  const share = Math.fround(1 / (high * wide));
  const made = new source.constructor(toHeight * toWidth * channels);
  for (let i = 0; i < made.length; i++) {
    const [row, column, c] = [Math.floor(i / channels / toWidth), Math.floor(i / channels) % toWidth, i % channels];
    let sum = 0;
    for (let y = row * high; y < (row + 1) * high; y++) {
      for (let x = column * wide; x < (column + 1) * wide; x++) sum += source[(y * width + x) * channels + c];
    }
    made[i] = high === 2 && wide === 2 ? (sum + 2) >> 2 : round(Math.fround(sum * share));
  }
  return made;
}

/** OpenCV's way to enlarge bytes: weights of 11 bits, and the last bits of products cut off. */
function enlarged(source, height, width, toHeight, toWidth, channels) {
  const fixed = (line) => Int32Array.from(line.weight, (share) => round(share * 2048));
  const [across, down] = [taps(width, toWidth, "linear"), taps(height, toHeight, "linear")];
  const [sideways, upwards] = [fixed(across), fixed(down)];
  const made = new Uint8Array(toHeight * toWidth * channels);
  for (let j = 0; j < toHeight; j++) {
    for (let i = 0; i < toWidth; i++) {
      for (let c = 0; c < channels; c++) {
        const [one, other] = [0, 1].map((k) => {
          const row = down.at[2 * j + k] * width;
          const sum =
            source[(row + across.at[2 * i]) * channels + c] * sideways[2 * i] +
            source[(row + across.at[2 * i + 1]) * channels + c] * sideways[2 * i + 1];
          return (upwards[2 * j + k] * (sum >> 4)) >> 16;
        });
        made[(j * toWidth + i) * channels + c] = (one + other + 2) >> 2;
      }
    }
  }
  return made;
}

/** Pixels (height, width, channels), 8 or 16 bits, at another size as OpenCV rounds them; the same kind of array. */
export function resized(source, height, width, toHeight, toWidth, channels = 1) {
  if (height === toHeight && width === toWidth) return source;
  const shrinks = toHeight < height || toWidth < width;
  if (!shrinks && source.BYTES_PER_ELEMENT === 1) return enlarged(source, height, width, toHeight, toWidth, channels);
  const scales = [height / toHeight, width / toWidth];
  if (shrinks && scales.every(Number.isInteger)) return blocks(source, width, toHeight, toWidth, channels, scales);
  const found = resample(source, height, width, toHeight, toWidth, shrinks ? "area" : "linear", channels);
  return source.constructor.from(found, round);
}

/** Brightness 0 to 1 of some pixels of a picture: float32. */
export function brightness(pixels, [low, high]) {
  const spread = Math.max(high - low, 1e-6);
  return Float32Array.from(pixels, (value) => Math.min(Math.max((value - low) / spread, 0), 1));
}

/**
 * A picture in a black square of brightness 0 to 1: float32 (channels, size, size), 3 channels where the network sees
 * colours, and its placement.
 */
export function letterbox(picture, size, colour) {
  const { height, width, grey, colours, window } = picture;
  const place = fit(height, width, size);
  const channels = colour ? 3 : 1;
  const tinted = colour && colours !== null;
  const inside = tinted
    ? brightness(resized(colours, height, width, place.height, place.width, 3), [0, 255])
    : brightness(resized(grey, height, width, place.height, place.width), window);
  const square = new Float32Array(channels * size * size);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < place.height; y++) {
      for (let x = 0; x < place.width; x++) {
        const from = y * place.width + x;
        square[(c * size + place.top + y) * size + place.left + x] = inside[tinted ? 3 * from + c : from];
      }
    }
  }
  return { square, place };
}

/** A map (h, w) of the whole square laid on an image, bicubic and then linear: float32 (height, width). */
export function ontoImage(map, h, w, place, height, width) {
  const whole = resample(map, h, w, place.size, place.size, "cubic");
  const part = new Float32Array(place.height * place.width);
  for (let y = 0; y < place.height; y++) {
    const start = (place.top + y) * place.size + place.left;
    part.set(whole.subarray(start, start + place.width), y * place.width);
  }
  return resample(part, place.height, place.width, height, width, "linear");
}

/** Share of each cell of a map (h, w) that shows the image, 0 to 1; the rest is padding. */
export function imageShare(h, w, place) {
  const square = new Uint8Array(place.size * place.size);
  for (let y = place.top; y < place.top + place.height; y++) {
    square.fill(1, y * place.size + place.left, y * place.size + place.left + place.width);
  }
  return resample(square, place.size, place.size, h, w, "area");
}
