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

  // What is dropped on the film and is no picture to a browser goes where DICOM files are opened.
  document.addEventListener(
    "drop",
    (event) => {
      const files = [...(event.dataTransfer?.files ?? [])];
      const input = document.querySelector("#dicom")?.previousElementSibling;
      if (!event.target.closest?.("#film-input") || input?.type !== "file" || !files.length) return;
      if (files.every((file) => file.type.startsWith("image/") && file.type !== "image/dicom")) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
    true,
  );
};
