// Keeps the page and its model on the device, so that both work offline, and asks the browser for threads, which only
// pages apart from all others get. Every export is a version of its own.

const VERSION = "$version";
const PAGE = $page_files;
const HEADERS = {
  "Content-Security-Policy": "$policy", // of workers too, which the page's own does not reach
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => {
  const keep = async () => (await caches.open(VERSION)).addAll(PAGE.map((name) => new Request(name, { cache: "reload" })));
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  const tidy = async () => {
    for (const name of await caches.keys()) if (name !== VERSION) await caches.delete(name);
    await self.clients.claim();
  };
  event.waitUntil(tidy());
});

function apart(response) {
  const { status, statusText } = response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status, statusText, headers });
}

async function answer(event) {
  const cache = await caches.open(VERSION);
  const kept = await cache.match(event.request, { ignoreSearch: true });
  if (kept) return apart(kept);
  const response = await fetch(event.request);
  // What fails to be kept, for want of room, still gets to the page.
  if (response.status === 200) event.waitUntil(cache.put(event.request, response.clone()).catch(() => {}));
  return apart(response);
}

self.addEventListener("fetch", (event) => {
  const here = new URL(event.request.url).origin === self.location.origin;
  if (here && event.request.method === "GET") event.respondWith(answer(event));
});
