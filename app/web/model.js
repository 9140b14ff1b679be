// The model as the page talks to it: loads it once, then tells what it finds in a picture.

import { Explanation, likeness } from "./explanation.js";
import { letterbox } from "./square.js";
import { card } from "./words.js";

const MODEL = "model.onnx";
const DETECTOR = "detector.onnx";
const RUNTIMES = {
  webgpu: { runtime: "./vendor/ort.webgpu.js", code: "vendor/ort-wasm-simd-threaded.asyncify.wasm" },
  wasm: { runtime: "./vendor/ort.wasm.js", code: "vendor/ort-wasm-simd-threaded.wasm" },
};

/** A GPU that is one: software that plays one is slower than WebAssembly. */
async function hasGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

export class Model {
  #waiting = new Map();
  #count = 0;

  /** Loads the model; `tell` hears the share that has come, and "starting" once all has. */
  static async load(tell) {
    if (await hasGpu()) {
      const model = await new Model().#start("webgpu", tell).catch(() => null);
      if (model) return model;
    }
    return new Model().#start("wasm", tell);
  }

  async #start(backend, tell) {
    const networks = card.ood ? [MODEL, DETECTOR] : [MODEL];
    const { runtime, code } = RUNTIMES[backend];
    const all = [code, ...networks].reduce((sum, name) => sum + card.files[name], 0);
    let done = 0;
    this.backend = backend;
    this.threads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
    this.worker = new Worker("worker.js", { type: "module" });
    this.worker.onmessage = ({ data }) => {
      if (data.type === "fetched") tell({ done: (done += data.bytes), all });
      else if (data.type === "starting") tell("starting");
      else this.#answer(data);
    };
    this.worker.onerror = (event) => this.#waiting.forEach(({ reject }) => reject(new Error(event.message)));
    try {
      await this.#ask("start", { backend, runtime, code, networks, threads: this.threads });
      // The first run sets memory up, which nobody should wait for with a picture in hand.
      const [channels, { size }] = [card.colour ? 3 : 1, card];
      await this.#ask("run", { network: MODEL, square: new Float32Array(channels * size * size), channels, size });
    } catch (error) {
      this.worker.terminate();
      throw error;
    }
    return this;
  }

  #ask(type, rest) {
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#count, { resolve, reject });
      this.worker.postMessage({ id: this.#count, type, ...rest });
    });
  }

  #answer({ type, id, value, message }) {
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (type === "done") resolve(value);
    else reject(new Error(message));
  }

  #run(network, picture, { size, colour }) {
    const { square, place } = letterbox(picture, size, colour);
    return this.#ask("run", { network, square, channels: colour ? 3 : 1, size }).then((found) => ({ found, place }));
  }

  /** Whether a picture is like those the model was made for; null where nothing tells. */
  async likeness(picture) {
    if (!card.ood) return null;
    const { found } = await this.#run(DETECTOR, picture, card.ood);
    return likeness(found.score.data[0], card.ood, picture.tinted && !card.colour);
  }

  async explain(picture) {
    const { found, place } = await this.#run(MODEL, picture, card);
    const { probabilities, maps, fracture } = found;
    const [h, w] = maps.dims.slice(2);
    const told = { probabilities: probabilities.data, maps: maps.data, fracture: fracture?.data ?? null, h, w };
    return new Explanation(card, told, place);
  }
}
