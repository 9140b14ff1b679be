// Arrow keys step through the types as they do through any group of radio buttons; Gradio gives each its own name, so
// that browsers take them for ten groups of one.
() => {
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
};
