// The networks, apart from the page so that it stays awake while they compute: ONNX Runtime on the GPU, or in WebAssembly.

let ort;
let sessions;

/** The bytes of a file, told piece by piece as they come. */
async function fetched(name, tell) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  const parts = [];
  const reader = response.body.getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    parts.push(piece.value);
    tell(piece.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Loads the runtime and its networks. */
async function start({ backend, runtime, code, networks, threads }) {
  const tell = (bytes) => postMessage({ type: "fetched", bytes });
  const [binary, ...files] = await Promise.all([code, ...networks].map((name) => fetched(name, tell)));
  postMessage({ type: "starting" });
  ort = await import(runtime);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.numThreads = threads;
  const how = { executionProviders: [backend] };
  sessions = {};
  for (const [i, name] of networks.entries()) sessions[name] = await ort.InferenceSession.create(files[i], how);
  ort.env.wasm.wasmBinary = undefined;
}

/** Everything a network says of a square of brightness, by the name of the output. */
async function run({ network, square, channels, size }) {
  const brightness = new ort.Tensor("float32", square, [1, channels, size, size]);
  const found = await sessions[network].run({ brightness });
  return Object.fromEntries(Object.entries(found).map(([name, { data, dims }]) => [name, { data: data.slice(), dims }]));
}

onmessage = async ({ data: { id, type, ...rest } }) => {
  try {
    postMessage({ type: "done", id, value: await { start, run }[type](rest) });
  } catch (error) {
    postMessage({ type: "failed", id, message: String(error?.message ?? error) });
  }
};
