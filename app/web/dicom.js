// DICOM by dcmjs-imaging, which is fetched when the first such file comes. It gives a picture of 8 bits, windowed as the
// file says; the server keeps 16, repairs headers, and knows windows that show nothing.

import { Refusal, card, say } from "./words.js";

const DECODERS = "vendor/dcmjs-native-codecs.wasm";

const script = (source) =>
  new Promise((resolve, reject) => {
    document.head.append(Object.assign(document.createElement("script"), { src: source, onload: resolve, onerror: reject }));
  });

let library = null;

async function load() {
  await script("vendor/dcmjs.min.js");
  await script("vendor/dcmjs-imaging.min.js");
  globalThis.dcmjs.log.setLevel?.("silent");
  // The library asks for its decoders through eval, which the page's policy forbids: for that call it is a fetch.
  const { eval: evaluate } = globalThis;
  globalThis.eval = () => fetch(DECODERS);
  const ready = globalThis.dcmjsImaging.NativePixelDecoder.initializeAsync();
  globalThis.eval = evaluate;
  await ready;
  return globalThis.dcmjsImaging;
}

/** The first picture of a file: RGBA of 8 bits, with notes, and whether it is no radiograph by what the file says. */
export async function readDicom(data) {
  const { DicomImage } = await (library ??= load());
  try {
    const image = new DicomImage(data);
    const { width, height, pixels } = image.render({ frame: 0, renderOverlays: false });
    const modality = String(image.getElement("Modality") ?? "").trim();
    const foreign = !card.radiographs.includes(modality);
    const notes = foreign ? [say("other", { what: card.words.modalities[modality] ?? say("no_radiograph") })] : [];
    const count = image.getNumberOfFrames();
    if (count > 1) notes.push(say("frames", { count }));
    return { width, height, data: new Uint8Array(pixels), notes, foreign };
  } catch {
    throw new Refusal(say("dicom"));
  }
}
