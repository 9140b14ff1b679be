// Heat and lines over a picture: app/explain/overlay.py on a canvas. No heat, no paint.

import { outlined } from "./explanation.js";

const rgb = (colour) => `rgb(${colour.join(" ")})`;

/** Lays heat (0 to 1, a value a pixel) over RGBA pixels: its opacity follows it. */
function heated(shown, heat, drawing) {
  const mixed = new ImageData(shown.width, shown.height);
  heat.forEach((hot, i) => {
    // The lowest fifth of the colours is nearly black, which on an X-ray reads as shadow.
    const colour = drawing.colours[Math.round((0.2 + 0.8 * hot) * 255)];
    const paint = drawing.opacity * hot;
    for (let c = 0; c < 3; c++) mixed.data[4 * i + c] = shown.data[4 * i + c] * (1 - paint) + colour[c] * paint;
    mixed.data[4 * i + 3] = 255;
  });
  return mixed;
}

function stroke(context, lines, colour, width) {
  Object.assign(context, { strokeStyle: rgb(colour), lineWidth: width, lineJoin: "round", lineCap: "round" });
  for (const line of lines) {
    context.beginPath();
    for (const [x, y] of line) context.lineTo(x + 0.5, y + 0.5);
    context.closePath();
    context.stroke();
  }
}

function ring(context, lines, colour, width, drawing) {
  stroke(context, lines, drawing.edge, width + 2);
  stroke(context, lines, colour, width);
}

/**
 * Paints a picture on a canvas of its size.
 *
 * @param shown RGBA pixels.
 * @param heat 0 to 1, a value a pixel; null for the picture alone.
 * @param regions the hottest ones, most heat first.
 * @param odds of a fracture, 0 to 1, a value a pixel; null where no line goes round it.
 * @param dashed whether it is a mere suspicion.
 */
export function paint(canvas, shown, { heat = null, regions = [], odds = null, dashed = false }, drawing) {
  const { width, height } = Object.assign(canvas, { width: shown.width, height: shown.height });
  const context = canvas.getContext("2d");
  context.putImageData(heat ? heated(shown, heat, drawing) : shown, 0, 0);
  const longest = Math.max(width, height);
  if (heat) ring(context, regions.map(({ line }) => line), drawing.contour, Math.max(1, Math.round(longest / 320)), drawing);
  if (odds) {
    const thick = Math.max(2, Math.round(longest / 300));
    if (dashed) context.setLineDash([5 * thick, 5 * thick]);
    const lines = outlined((i) => odds[i] >= 0.5, height, width).map(({ line }) => line);
    ring(context, lines, drawing.fracture, thick, drawing);
    context.setLineDash([]);
  }
}
