() => {
  // Arrow keys step through the types as they do through any group of radio buttons; Gradio gives each its own name, so
  // that browsers take them for ten groups of one.
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  document.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    const group = event.target.closest?.("#types");
    if (!step || !group || event.target.type !== "radio") return;
    event.preventDefault();
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
    busy();
  };
  const busy = () => {
    field().classList.add("busy");
    const done = new MutationObserver(() => {
      field().classList.remove("busy");
      done.disconnect();
    });
    done.observe(document.querySelector("#verdict"), { childList: true, subtree: true });
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
      if (!event.target.closest?.("#xray-input") || !event.dataTransfer?.files.length) return;
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
      if (event.target.closest?.("#xray-input")) event.preventDefault();
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

  // Whoever drives the page, as tests do, can wait for this.
  document.documentElement.dataset.ready = "";
};
