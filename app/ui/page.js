() => {
  // Gradio translates what it lays out; what it does not is looked up here, by the English. Where the page does not
  // speak the browser's language it is English, whatever Gradio says.
  const known = window.gradio_config?.i18n_translations ?? {};
  const words = known[navigator.language.split("-")[0]];
  if (!words) document.documentElement.lang = "en";
  const foreign = words && words !== known.en;
  const tell = () => {
    for (const caption of document.querySelectorAll("#examples .caption-label")) {
      const told = (foreign && words[caption.textContent.trim()]) || caption.textContent;
      if (told !== caption.textContent) caption.textContent = told;
      // Gradio calls every picture of a gallery "Thumbnail", with its number.
      caption.closest("button")?.setAttribute("aria-label", told.trim());
    }
    if (!foreign) return;
    for (const part of document.querySelectorAll(".english:not([lang])")) Object.assign(part, { lang: "en", dir: "ltr" });
  };
  if (foreign) document.title = words[document.title] ?? document.title;
  new MutationObserver(tell).observe(document.body, { childList: true, subtree: true });
  tell();

  // Arrow keys step through the types as they do through any group of radio buttons; Gradio gives each its own name, so
  // that browsers take them for ten groups of one.
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab") {
      const radios = document.querySelectorAll("#types input[type=radio]");
      for (const radio of radios) radio.tabIndex = radio.checked ? 0 : -1;
    }
    const step = steps[event.key];
    const group = event.target.closest?.("#types");
    if (!step || !group || event.target.type !== "radio") return;
    event.preventDefault();
    group.classList.add("all");
    const radios = [...group.querySelectorAll("input[type=radio]")];
    const next = radios[(radios.indexOf(event.target) + step + radios.length) % radios.length];
    next.focus();
    next.click();
  });

  // Gradio's field for pictures takes one picture at a time, and is silent about everything else. So whatever is chosen,
  // dropped or pasted goes through the hidden field for files, which takes anything, and the server says what it is.
  const field = () => document.querySelector("#xray-input");
  const choosing = (event) => event.target.matches?.("#xray-input input[type=file]");
  const take = (files) => {
    const input = document.querySelector("#files")?.previousElementSibling;
    if (input?.type !== "file" || !files.length) return;
    const carried = new DataTransfer();
    for (const file of files) carried.items.add(file);
    input.files = carried.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    window.scrollTo({ top: 0 });
    busy();
  };
  const busy = () => {
    const all = document.querySelector("#workbench");
    all.classList.add("busy");
    all.dataset.doing = words?.["Reading…"] ?? "Reading…";
    const done = new MutationObserver(() => {
      all.classList.remove("busy");
      done.disconnect();
    });
    for (const told of document.querySelectorAll("#message, #bench"))
      done.observe(told, { childList: true, subtree: true });
    done.observe(all, { childList: true });
    done.observe(document.querySelector(".toast-wrap") ?? document.body, { childList: true });
  };
  const stop = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  const inFolder = async (entry) => {
    if (entry.isFile) return [await new Promise((found, failed) => entry.file(found, failed))];
    const reader = entry.createReader();
    const all = [];
    for (;;) {
      const some = await new Promise((found, failed) => reader.readEntries(found, failed));
      if (!some.length) return all;
      // What systems put into folders, and the table of contents of a disc, are no slices.
      for (const each of some) if (!/^(\.|DICOMDIR$)/.test(each.name)) all.push(...(await inFolder(each)));
    }
  };

  window.addEventListener(
    "click",
    (event) => {
      if (choosing(event)) Object.assign(event.target, { accept: "", multiple: true });
    },
    true,
  );
  window.addEventListener(
    "change",
    (event) => {
      if (!choosing(event)) return;
      stop(event);
      take([...event.target.files]);
      event.target.value = "";
    },
    true,
  );
  window.addEventListener(
    "drop",
    async (event) => {
      if (!event.target.closest?.("#workbench") || !event.dataTransfer?.files.length) return;
      stop(event);
      const files = [...event.dataTransfer.files];
      const folders = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
      const found = folders.some((entry) => entry?.isDirectory)
        ? (await Promise.all(folders.filter(Boolean).map(inFolder))).flat()
        : files;
      take(found);
    },
    true,
  );
  window.addEventListener(
    "dragover",
    (event) => {
      if (event.target.closest?.("#workbench")) event.preventDefault();
    },
    true,
  );
  window.addEventListener(
    "paste",
    (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length || !field()?.offsetParent || event.target.closest?.("textarea, [contenteditable]")) return;
      stop(event);
      take(files);
    },
    true,
  );

  document.addEventListener("click", (event) => {
    const on = (place) => event.target.closest?.(place);
    if (on("#another")) document.querySelector("#files")?.click();
    if (on("#types")) hide(false);
    if (on("#all-types")) document.querySelector("#types")?.classList.toggle("all");
    if (on("#examples button, #random-xray")) window.scrollTo({ top: 0 });
    const link = on("a[data-tab]");
    if (link) {
      event.preventDefault();
      document.querySelector(`#${link.dataset.tab}-button`)?.click();
    }
  });

  // The X-ray lies under its heatmap, which is hidden while the button is held, and by a click until the next one.
  const pair = () => document.querySelector("#pair");
  const hide = (hidden) => {
    pair()?.classList.toggle("bare", hidden);
    const button = document.querySelector("#hold");
    const told = hidden ? "Show heat" : "Hide heat";
    if (button) button.textContent = (foreign && words[told]) || told;
  };
  // Where no fracture is seen, heat would be taken for one: it waits until it is asked for.
  let judged;
  const judge = () => {
    const verdict = document.querySelector("#verdict .verdict");
    // What is opened in it changes it too, but not what it says.
    if (!verdict || !pair() || verdict.textContent === judged) return;
    judged = verdict.textContent;
    hide(Boolean(verdict.querySelector(".presence.none")));
  };
  new MutationObserver(judge).observe(document.body, { childList: true, subtree: true });
  const HELD = 400;
  let pressed;
  const press = () => {
    pressed ??= { since: performance.now(), hidden: pair()?.classList.contains("bare") };
    hide(true);
  };
  const release = () => {
    if (!pressed) return;
    const held = performance.now() - pressed.since > HELD;
    hide(!held && !pressed.hidden);
    pressed = undefined;
  };
  const holds = (event) => event.target.closest?.("#hold");
  document.addEventListener("pointerdown", (event) => holds(event) && press());
  for (const end of ["pointerup", "pointercancel", "blur"]) window.addEventListener(end, release);
  document.addEventListener("keydown", (event) => {
    if (holds(event) && (event.key === " " || event.key === "Enter")) press();
  });
  document.addEventListener("keyup", release);

  // The wheel, with Ctrl as in maps, or a pinch, which browsers tell as one, magnifies; then dragging moves.
  const view = { scale: 1, x: 0, y: 0 };
  const show = () => {
    const pair = document.querySelector("#pair");
    if (view.scale === 1) Object.assign(view, { x: 0, y: 0 });
    pair?.style.setProperty("--view", `translate(${view.x}px, ${view.y}px) scale(${view.scale})`);
    pair?.classList.toggle("magnified", view.scale > 1);
  };
  document.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey || !event.target.closest?.("#pair")) return;
      event.preventDefault();
      view.scale = Math.min(8, Math.max(1, view.scale * Math.exp(-event.deltaY / 200)));
      show();
    },
    { passive: false },
  );
  document.addEventListener("dblclick", (event) => {
    if (!event.target.closest?.("#pair")) return;
    view.scale = view.scale > 1 ? 1 : 2.5;
    show();
  });
  let dragged;
  document.addEventListener("pointerdown", (event) => {
    if (view.scale > 1 && event.target.closest?.("#pair")) dragged = [event.clientX - view.x, event.clientY - view.y];
  });
  document.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    [view.x, view.y] = [event.clientX - dragged[0], event.clientY - dragged[1]];
    show();
  });
  window.addEventListener("pointerup", () => (dragged = undefined));

  // Whoever drives the page, as tests do, can wait for this.
  document.documentElement.dataset.ready = "";
};
