// The page: takes a picture in, shows the verdict beside the heatmap, and lets people choose another type.

import { hotRegions } from "./explanation.js";
import { Model } from "./model.js";
import { keepTheRest, settle } from "./offline.js";
import { paint } from "./paint.js";
import { onScreen, read } from "./picture.js";
import { alternative, bars, description, element, point, verdict, warningOf } from "./verdict.js";
import { Refusal, card, say } from "./words.js";

const $ = (selector) => document.querySelector(selector);
const MEGABYTE = 2 ** 20;

let result = null; // of the picture on the page: its pixels, its explanation, and the class whose heat is shown
let newest = 0; // number of the picture that people gave last
let heatShown = true;

function progress(told, share) {
  $("#progress").hidden = told === null;
  if (told === null) return;
  $("#doing").textContent = told;
  if (share === undefined) $("#progress progress").removeAttribute("value");
  else $("#progress progress").value = share;
}

function message(told) {
  $("#message").hidden = told === null;
  $("#message").replaceChildren(told ?? "");
}

/** Says that nothing can be told of a picture; people may insist where there is a way. */
function refuse(told, insist = null) {
  result = null;
  document.body.dataset.state = "refused";
  $("#bench").hidden = true;
  message(told);
  if (insist) {
    $("#message").append(element("button", "", say("anyway")));
    $("#message button").addEventListener("click", insist);
  }
  scrollTo({ top: 0 });
  document.dispatchEvent(new CustomEvent("refused", { detail: told }));
}

function redraw() {
  const { explanation, shown, chosen } = result;
  const { width, height } = shown;
  const { seen } = explanation;
  // Bright heat, and rings, would mark what the verdict says is not there.
  const dimmed = seen === "none";
  const drawing = { ...card.drawing, opacity: card.drawing.opacity * (dimmed ? card.drawing.dimmed : 1) };
  const heat = explanation.heat(chosen, height, width);
  const regions = hotRegions(heat, height, width, drawing);
  const ringed = dimmed ? [] : regions;
  const outline = heatShown && (seen === "suspicious" || seen === "definite");
  const odds = outline ? explanation.fractureOdds(height, width) : null;
  paint($("#picture"), shown, { heat: heatShown ? heat : null, regions: ringed, odds, dashed: seen === "suspicious" }, drawing);
  $("#picture").setAttribute("aria-label", alternative(explanation, chosen, regions, heatShown));
  $("#legend").classList.toggle("off", !heatShown);
  $("#legend .hottest").hidden = !heatShown || !ringed.length;
  $("#legend .seen").hidden = !outline;
  $("#legend .aside").hidden = !heatShown || !dimmed;
  const type = card.classes[chosen].short;
  $("#legend strong").textContent = dimmed ? say("if_type", { type: type.toLowerCase() }) : `${type}:`;
  $("#legend .seen").textContent = card.words.outlined[seen] ?? "";
  const colours = card.drawing[dimmed ? "legend_dimmed" : "legend"].map((colour) => `rgb(${colour.join(" ")})`).join(", ");
  $("#legend i").style.background = `linear-gradient(to right, ${colours})`;
  $("#legend .seen").classList.toggle("dashed", seen === "suspicious");
  const scale = say("scale", { count: explanation.fullColour.toFixed(0) });
  Object.assign($("#legend .scale"), { ariaLabel: scale, title: scale });
  $("#point").replaceChildren();
  $("#map").textContent = warningOf(explanation, chosen);
  $("#aid div").replaceChildren(...description(chosen, regions));
}

function showHeat(shown) {
  heatShown = shown;
  $("#heat").textContent = say(shown ? "hide" : "show");
  $("#heat").setAttribute("aria-pressed", String(!shown));
}

function showEvery(every) {
  $("#types").classList.toggle("all", every);
  $("#every").textContent = say(every ? "fewer" : "every");
  $("#every").setAttribute("aria-expanded", String(every));
}

function choose(chosen) {
  result.chosen = chosen;
  showHeat(true);
  redraw();
}

/** What stands at the point of the picture that was clicked. */
function tellPoint({ offsetX, offsetY, target }) {
  const scale = Math.max(target.width / target.clientWidth, target.height / target.clientHeight);
  const [x, y] = [
    0.5 + ((offsetX - target.clientWidth / 2) * scale) / target.width,
    0.5 + ((offsetY - target.clientHeight / 2) * scale) / target.height,
  ];
  const inside = Math.min(x, y) >= 0 && Math.max(x, y) < 1;
  $("#point").replaceChildren(...(inside ? point(result.explanation, x, y) : []));
}

/** The whole way of a picture, from the file to the page; `anyway` also where it is unlike any that the model knows. */
async function explain(file, anyway = false) {
  const number = ++newest;
  const late = () => number !== newest;
  message(null);
  document.body.dataset.state = "looking";
  try {
    const picture = await read(file);
    if (late()) return;
    const shown = onScreen(picture);
    $("#queue").hidden = false;
    const model = await loading;
    $("#queue").hidden = true;
    if (late()) return;
    progress(say("looking"));
    const likeness = await model.likeness(picture);
    if (late()) return;
    if (likeness === "out-of-distribution" && !anyway) return refuse(say("rejected"), () => explain(file, true));
    const explanation = await model.explain(picture);
    if (late()) return;
    result = { explanation, shown, chosen: explanation.ranking[0] };
    document.body.dataset.state = "explained";
    $("#bench").hidden = false;
    $("#verdict").replaceChildren(...verdict(explanation, picture, likeness));
    $("#types").replaceChildren($("#types legend"), ...bars(explanation, choose));
    $("#every").hidden = card.classes.length <= 3;
    // Where no fracture is seen, heat would be taken for one: it waits until it is asked for.
    showHeat(explanation.seen !== "none");
    showEvery(false);
    redraw();
    scrollTo({ top: 0 });
    document.dispatchEvent(new CustomEvent("explained", { detail: { explanation, likeness } }));
  } catch (error) {
    if (late()) return;
    if (!(error instanceof Refusal)) console.error(error);
    refuse(error instanceof Refusal ? error.message : say("failed"));
  } finally {
    if (!late() && loaded) progress(null);
  }
}

function takeFrom(input) {
  input.addEventListener("change", () => {
    if (input.files.length) explain(input.files[0]);
    input.value = ""; // the same file may come again
  });
}

async function paste() {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((each) => each.startsWith("image/"));
      if (type) return explain(await item.getType(type));
    }
  } catch {
    // Not allowed, or nothing there: the same to people.
  }
  message(say("no_picture"));
}

function listen() {
  document.querySelectorAll("input[type=file]").forEach(takeFrom);
  $("#another").addEventListener("click", () => $("#drop input").click());
  $("#picture").addEventListener("click", tellPoint);
  $("#paste").hidden = !navigator.clipboard?.read;
  $("#paste").addEventListener("click", paste);
  $("#heat").addEventListener("click", () => (showHeat(!heatShown), redraw()));
  $("#every").addEventListener("click", () => showEvery(!$("#types").classList.contains("all")));
  document.querySelectorAll("#examples button").forEach((button) => {
    button.addEventListener("click", async () => explain(await (await fetch(button.dataset.file)).blob()));
  });
  addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) explain(clipboardData.files[0]);
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      $("#drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) explain(event.dataTransfer.files[0]);
    });
  }
}

async function load(kept) {
  const tell = (told) => {
    if (told === "starting") return progress(say("starting"));
    const [done, all] = [told.done, told.all].map((bytes) => Math.round(bytes / MEGABYTE));
    progress(say("loading", { done, all }), told.done / told.all);
  };
  const model = await Model.load(tell);
  const threads = model.threads > 1 ? say("threads", { count: model.threads }) : say("one_thread");
  const how = model.backend === "webgpu" ? say("webgpu") : say("wasm", { threads });
  $("#device").textContent = say("device", { how });
  if (kept) keepTheRest().then(() => $("#device").append(` ${say("offline")}`), () => {});
  return model;
}

let loaded = false;
const loading = settle(() => newest > 0)
  .then(load)
  .catch((error) => {
    console.error(error);
    throw new Refusal(say(globalThis.WebAssembly ? "unloadable" : "needs_support"));
  })
  .finally(() => progress(null));
listen();
loading.then(
  () => {
    loaded = true;
    document.documentElement.dataset.ready = "";
  },
  (refusal) => message(refusal.message),
);
