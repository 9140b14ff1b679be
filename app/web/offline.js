// What the service worker is asked to do: keep everything for later, and give the page threads.

const LATER = ["vendor/dcmjs.min.js", "vendor/dcmjs-imaging.min.js", "vendor/dcmjs-native-codecs.wasm"];
const PATIENCE = 3000;

const controlled = () =>
  new Promise((resolve) => {
    if (navigator.serviceWorker.controller) return resolve(true);
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve(true), { once: true });
    setTimeout(() => resolve(false), PATIENCE);
  });

/**
 * Whether the service worker stands behind the page; where that gives it threads, the page is loaded again, once, unless
 * people are `busy` with it already.
 */
export async function settle(busy) {
  try {
    await navigator.serviceWorker.register("service-worker.js");
    if (!(await controlled())) return false;
    if (!crossOriginIsolated && !busy() && !sessionStorage.getItem("apart")) {
      sessionStorage.setItem("apart", "asked for");
      location.reload();
      await new Promise(() => {});
    }
    return true;
  } catch {
    return false; // no service workers, or no storage for them
  }
}

/** Keeps what the page has not needed yet. */
export const keepTheRest = () => Promise.all(LATER.map(async (name) => (await fetch(name)).arrayBuffer()));
