// Three planes through one point of a volume. Axes are counted as in the arrays: 0 is z, 1 is y, 2 is x.
(() => {
  "use strict";

  const section = document.getElementById("planes");
  if (!section) return;
  const setup = JSON.parse(document.getElementById("setup").textContent);
  const { shape, columns, planes, names, origin, steps, unit, digits } = setup.volume;
  const canvases = [...section.querySelectorAll("canvas")];
  const state = {
    stage: setup.volume.hasAfter ? "after" : "before",
    point: shape.map((n) => Math.floor(n / 2)),
  };
  const clamped = (value, high) => Math.min(Math.max(Math.round(value), 0), high);

  // The gray levels of a volume from the picture of its slices.
  const levels = (image) => {
    const [depth, height, width] = shape;
    const sheet = document.createElement("canvas");
    Object.assign(sheet, { width: image.naturalWidth, height: image.naturalHeight });
    const on = sheet.getContext("2d", { willReadFrequently: true });
    on.drawImage(image, 0, 0);
    const { data } = on.getImageData(0, 0, sheet.width, sheet.height);
    const found = new Uint8Array(depth * height * width);
    for (let z = 0; z < depth; z++) {
      const top = Math.floor(z / columns) * height;
      const left = (z % columns) * width;
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          found[(z * height + y) * width + x] = data[4 * ((top + y) * sheet.width + left + x)];
        }
      }
    }
    return found;
  };
  const volumes = {};

  const index = (z, y, x) => (z * shape[1] + y) * shape[2] + x;

  const draw = () => {
    const fixed = volumes.fixed;
    const moving = state.stage === "fixed" ? fixed : volumes[state.stage];
    canvases.forEach((canvas, k) => {
      const { across, down, right } = planes[k];
      const [height, width] = [shape[down], shape[right]];
      Object.assign(canvas, { width, height });
      const on = canvas.getContext("2d");
      const result = on.createImageData(width, height);
      const at = [...state.point];
      for (let v = 0; v < height; v++) {
        for (let u = 0; u < width; u++) {
          [at[down], at[right]] = [v, u];
          const voxel = index(...at);
          result.data.set([fixed[voxel], moving[voxel], fixed[voxel], 255], 4 * (v * width + u));
        }
      }
      on.putImageData(result, 0, 0);
      on.fillStyle = "rgba(255, 255, 0, 0.55)";
      on.fillRect(0, state.point[down], width, 1);
      on.fillRect(state.point[right], 0, 1, height);
      canvas.parentElement.querySelector("output").textContent = `${state.point[across] + 1} of ${shape[across]}`;
    });
    for (const button of section.querySelectorAll("button[data-stage]")) {
      button.setAttribute("aria-pressed", String(button.dataset.stage === state.stage));
    }
    const world = origin.map((o, axis) => o + state.point.reduce((sum, at, k) => sum + at * steps[axis][k], 0));
    const words = [2, 1, 0].map((axis) => `${names[axis]} ${world[axis].toFixed(digits)}`);
    document.getElementById("cursor").textContent = `fixed world: ${words.join(", ")} ${unit}`;
    section.dataset.point = state.point.join();
  };

  const move = (changes) => {
    state.point = state.point.map((at, axis) => clamped(at + (changes[axis] ?? 0), shape[axis] - 1));
    draw();
  };

  const put = (canvas, event) => {
    const { down, right } = planes[canvas.dataset.plane];
    const box = canvas.getBoundingClientRect();
    const [v, u] = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    state.point[down] = clamped(v * shape[down] - 0.5, shape[down] - 1);
    state.point[right] = clamped(u * shape[right] - 0.5, shape[right] - 1);
    draw();
  };

  for (const canvas of canvases) {
    const { across, down, right } = planes[canvas.dataset.plane];
    const KEYS = {
      ArrowUp: { [down]: -1 }, ArrowDown: { [down]: 1 }, ArrowLeft: { [right]: -1 }, ArrowRight: { [right]: 1 },
      PageUp: { [across]: -1 }, PageDown: { [across]: 1 },
    };
    let drags = false;
    canvas.addEventListener("pointerdown", (event) => {
      drags = true;
      if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
      put(canvas, event);
    });
    canvas.addEventListener("pointermove", (event) => drags && put(canvas, event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drags = false));
    canvas.addEventListener("keydown", (event) => {
      if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(KEYS[event.key]);
    });
  }
  section.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-stage]");
    if (!button) return;
    state.stage = button.dataset.stage;
    draw();
  });

  addEventListener("load", () => {
    for (const image of section.querySelectorAll("img[data-volume]")) volumes[image.dataset.volume] = levels(image);
    draw();
    section.dataset.ready = "true";
  });
})();
