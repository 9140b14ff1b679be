// From the bytes of a file to a picture in grey: what app/imaging/radiograph.py does, with the browser's own decoders.
//
// A picture is `{height, width, grey, window, colours, notes, tinted, foreign}`: grey of 8 or 16 bits, row by row; the
// two values shown as black and white; RGB of pictures that have colours, however pale, else null; sentences on how it
// was read; whether it is in colour; and whether its file says that it is no radiograph, as the first note then tells.

import { readDicom } from "./dicom.js";
import { isDeep, readDeep } from "./png.js";
import { brightness, fit, resized } from "./square.js";
import { Refusal, card, say } from "./words.js";

/** Shades of grey of RGBA pixels, by OpenCV's whole numbers, and their colours where enough pixels have some. */
function greyOf(pixels, limits) {
  const grey = new Uint8Array(pixels.length / 4);
  let [pale, coloured] = [0, 0];
  for (let i = 0; i < grey.length; i++) {
    const red = pixels[4 * i];
    const green = pixels[4 * i + 1];
    const blue = pixels[4 * i + 2];
    grey[i] = (red * 9798 + green * 19235 + blue * 3735 + 16384) >> 15;
    const spread = Math.max(red, green, blue) - Math.min(red, green, blue);
    pale += spread > limits.pale * 255;
    coloured += spread > limits.chroma * 255;
  }
  const enough = limits.share * grey.length;
  const colours = pale > enough ? pixels.filter((_, i) => i % 4 !== 3) : null;
  return { grey, colours, tinted: coloured > enough };
}

/** What is transparent becomes black, like the background of an X-ray. */
async function decoded(blob) {
  // Values are taken as they are, whatever colour space the file names; pictures are turned upright.
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function checkSize(height, width, limits) {
  const size = { width, height };
  if (height * width > limits.pixels) throw new Refusal(say("too_many", { most: Math.floor(limits.pixels / 1e6) }));
  if (Math.min(height, width) < limits.side) throw new Refusal(say("too_small", { ...size, least: limits.side }));
  if (Math.max(height, width) > limits.ratio * Math.min(height, width)) throw new Refusal(say("too_long", size));
}

const starts = (bytes, at, letters) => [...letters].every((letter, i) => bytes[at + i] === letter.charCodeAt(0));

function kindOf(bytes) {
  if (starts(bytes, 128, "DICM")) return "dicom";
  if (starts(bytes, 1, "PNG")) return isDeep(bytes) ? "deep" : "plain";
  if ((bytes[0] === 0xff && bytes[1] === 0xd8) || (starts(bytes, 0, "RIFF") && starts(bytes, 8, "WEBP"))) return "plain";
  if (starts(bytes, 0, "II*") || starts(bytes, 0, "MM\0*")) return "tiff";
  return "unknown";
}

/** Reads a file as a picture. Throws a Refusal, whose message is for people, where that is impossible. */
export async function read(file) {
  const { limits } = card;
  if (file.size > limits.bytes) {
    throw new Refusal(say("too_large", { size: Math.round(file.size / 2 ** 20), most: limits.bytes / 2 ** 20 }));
  }
  const data = await file.arrayBuffer();
  if (!data.byteLength) throw new Refusal(say("empty"));
  const kind = kindOf(new Uint8Array(data));
  if (kind === "tiff" || kind === "unknown") throw new Refusal(say(kind));
  const common = { window: [0, 255], notes: [], foreign: false };
  let found;
  if (kind === "deep") {
    found = { ...common, colours: null, tinted: false, ...(await readDeep(new Uint8Array(data))) };
    found.notes = [say("deep")];
  } else {
    const image = kind === "dicom" ? await readDicom(data) : await decoded(file).catch(() => null);
    if (!image) throw new Refusal(say("damaged"));
    const { height, width, notes = [], foreign = false } = image;
    found = { height, width, ...common, notes, foreign, ...greyOf(image.data, limits) };
    if (found.tinted && !card.colour) found.notes.push(say("in_colour"));
  }
  checkSize(found.height, found.width, limits);
  if (found.grey.every((value) => value === found.grey[0])) throw new Refusal(say("blank"));
  return found;
}

/** The picture as a screen shows it, not larger than anybody needs: RGBA, in colour where the model sees colours. */
export function onScreen(picture) {
  let { height, width } = picture;
  if (Math.max(height, width) > card.limits.screen) ({ height, width } = fit(height, width, card.limits.screen));
  const tinted = card.colour && picture.colours !== null;
  const pixels = resized(tinted ? picture.colours : picture.grey, picture.height, picture.width, height, width, tinted ? 3 : 1);
  const bright = tinted ? null : brightness(pixels, picture.window);
  const shown = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    const grey = tinted ? 0 : Math.floor(bright[i] * 255 + 0.5);
    for (let c = 0; c < 3; c++) shown.data[4 * i + c] = tinted ? pixels[3 * i + c] : grey;
    shown.data[4 * i + 3] = 255;
  }
  return shown;
}
