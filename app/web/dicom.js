// DICOM by dcmjs-imaging, which is fetched when the first such file comes. It gives a picture of 8 bits, windowed as the
// file says; the server keeps 16, repairs headers, and knows windows that show nothing.

import { Refusal, card, say } from "./words.js";

const script = (source) =>
  new Promise((resolve, reject) => {
    const made = Object.assign(document.createElement("script"), { src: source, onload: resolve, onerror: reject });
    document.head.append(made);
  });

let library = null;

async function load() {
  await script("vendor/dcmjs.min.js");
  await script("vendor/dcmjs-imaging.min.js");
  globalThis.dcmjs.log.setLevel?.("silent");
  await globalThis.dcmjsImaging.NativePixelDecoder.initializeAsync({
    webAssemblyModulePathOrUrl: "vendor/dcmjs-native-codecs.wasm",
  });
  return globalThis.dcmjsImaging;
}

/** The first picture of a file as RGBA of 8 bits, with notes and its modality. */
export async function readDicom(data) {
  const { DicomImage } = await (library ??= load());
  try {
    const image = new DicomImage(data);
    const { width, height, pixels } = image.render({ frame: 0, renderOverlays: false });
    const modality = String(image.getElement("Modality") ?? "").trim();
    const notes = [];
    if (card.words.modalities[modality]) notes.push(say("other", { what: card.words.modalities[modality] }));
    if (image.getNumberOfFrames() > 1) notes.push(say("frames", { count: image.getNumberOfFrames() }));
    return { width, height, data: new Uint8Array(pixels), notes, modality };
  } catch {
    throw new Refusal(say("dicom"));
  }
}
