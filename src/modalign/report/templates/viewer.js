// The viewer: two pictures in one canvas. Lengths are CSS pixels unless a name says otherwise.
(() => {
  "use strict";

  const setup = JSON.parse(document.getElementById("setup").textContent);
  const viewer = document.getElementById("viewer");
  const canvas = viewer.querySelector("canvas");
  const context = canvas.getContext("2d");
  const caption = document.getElementById("shown");
  const position = document.getElementById("position");
  const option = viewer.querySelector(".option");
  const slider = option.querySelector("input");
  const pause = viewer.querySelector(".pause");
  const pictures = new Map([...viewer.querySelectorAll("img[data-layer]")].map((i) => [i.dataset.layer, i]));
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  const MODES = ["overlay", "swipe", "checkerboard", "blend", "flicker", "side"];
  const LARGEST_ZOOM = 40;
  const OPTIONS = {
    swipe: { words: "Divider", min: 0, max: 100, step: 1, show: (v) => `${v} %` },
    checkerboard: { words: "Tiles", min: 2, max: 40, step: 1, show: (v) => `${v}` },
    blend: { words: "Moving", min: 0, max: 100, step: 1, show: (v) => `${v} %` },
    flicker: { words: "Changes", min: 0.5, max: 3, step: 0.5, show: (v) => `${v} a second` },
  };
  const state = {
    mode: setup.refused ? "side" : "overlay",
    stage: setup.hasAfter && !setup.refused ? "after" : "before",
    source: "originals",
    plane: 0,
    zoom: 1, // 1: all is seen
    x: 0.5, // what is in the middle, as a fraction of the picture
    y: 0.5,
    swipe: 50,
    checkerboard: 8,
    blend: 50,
    flicker: 1.5,
    shown: "fixed",
    running: !calm,
  };

  const plane = () => setup.planes[state.plane];
  const isRejected = () => setup.refused && state.stage === "after";
  const clamped = (value, low, high) => Math.min(Math.max(value, low), high);

  // --- pictures

  const picture = (role, form = "colour") => {
    const key = `${state.plane}/${state.source}/${role}`;
    return pictures.get(`${key}/${form}`) ?? pictures.get(`${key}/colour`);
  };

  const composed = { key: "", image: null };
  const composition = (make, form, amount) => {
    const key = [state.mode, state.plane, state.source, state.stage, amount].join();
    if (composed.key !== key) {
      const image = make(picture("fixed", form), picture(state.stage, form), plane(), amount);
      Object.assign(composed, { key, image });
    }
    return composed.image;
  };

  // --- drawing

  const name = (role) => (role === "fixed" ? "fixed" : `moving, ${isRejected() ? setup.rejected : state.stage}`);

  // [picture, its label, left and right edge as fractions of the canvas]
  const panes = () => {
    const moving = state.stage;
    switch (state.mode) {
      case "overlay":
        return [[composition(compose.overlay, "gray"), "", 0, 1]];
      case "checkerboard":
        return [[composition(compose.checkerboard, "colour", state.checkerboard), "", 0, 1]];
      case "blend":
        return [[composition(compose.blend, "colour", state.blend / 100), "", 0, 1]];
      case "swipe":
        return [
          [picture("fixed"), name("fixed"), 0, state.swipe / 100],
          [picture(moving), name(moving), state.swipe / 100, 1],
        ];
      case "flicker": {
        const role = state.shown === "fixed" ? "fixed" : moving;
        return [[picture(role), name(role), 0, 1]];
      }
      default:
        return [
          [picture("fixed"), name("fixed"), 0, 0.5],
          [picture(moving), name(moving), 0.5, 1],
        ];
    }
  };

  // The field that pictures are fitted into: halves have one each, the two parts of a swipe share one.
  const field = (left = 0) => {
    const half = state.mode === "side" ? 2 : 1;
    return { left: left * canvas.clientWidth, width: canvas.clientWidth / half, height: canvas.clientHeight };
  };

  const placement = (place) => {
    const fit = Math.min(place.width / plane().width, place.height / plane().height);
    const scale = fit * state.zoom;
    return {
      scale,
      left: place.left + place.width / 2 - state.x * plane().width * scale,
      top: place.height / 2 - state.y * plane().height * scale,
    };
  };

  const chip = (words, x, align, isBad = false, y = 10) => {
    context.font = "600 13px system-ui, sans-serif";
    const width = context.measureText(words).width + 16;
    const left = align === "right" ? x - width : x;
    context.fillStyle = isBad ? "#b3261e" : "rgba(17, 20, 24, 0.78)";
    context.fillRect(left, y, width, 24);
    context.fillStyle = "#fff";
    context.textBaseline = "middle";
    context.fillText(words, left + 8, y + 12.5);
  };

  const scaleBar = (scale) => {
    const goal = (110 / scale) * plane().spacing;
    const power = 10 ** Math.floor(Math.log10(goal));
    const nice = [5, 2, 1].find((n) => n * power <= goal) * power;
    const bar = (nice / plane().spacing) * scale;
    const words = `${Number(nice.toPrecision(3))} ${plane().unit}`;
    const top = canvas.clientHeight - 40;
    chip(words, 10, "left", false, top - 2);
    context.fillStyle = "rgba(17, 20, 24, 0.78)";
    context.fillRect(10, top + 22, bar + 8, 10);
    context.fillStyle = "#fff";
    context.fillRect(14, top + 25, bar, 4);
  };

  // As high as the picture needs at the width of its field, within the window: half as high for side by side, and the
  // same in all other modes, so that nothing jumps.
  const resize = () => {
    const wanted = (field().width * plane().height) / plane().width;
    canvas.style.height = `${Math.round(clamped(wanted, 160, Math.max(160, 0.72 * innerHeight)))}px`;
  };

  const draw = () => {
    resize();
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const [image, words, from, to] of panes()) {
      const left = from * canvas.clientWidth;
      const right = to * canvas.clientWidth;
      const { scale, left: x, top: y } = placement(field(state.mode === "side" ? from : 0));
      context.save();
      context.beginPath();
      context.rect(left, 0, right - left, canvas.clientHeight);
      context.clip();
      context.imageSmoothingEnabled = scale * ratio < 3; // show single pixels where they are large
      context.imageSmoothingQuality = "high";
      context.drawImage(image, x, y, plane().width * scale, plane().height * scale);
      if (words) chip(words, from ? right - 10 : left + 10, from ? "right" : "left", isRejected() && words !== "fixed");
      context.restore();
      if (from) {
        context.fillStyle = "rgba(255, 255, 255, 0.9)";
        context.fillRect(left - 1, 0, 2, canvas.clientHeight);
      }
    }
    if (isRejected() && !["swipe", "flicker", "side"].includes(state.mode)) {
      chip(setup.rejected, canvas.clientWidth - 10, "right", true);
    }
    if (state.mode === "overlay") {
      swatch("#ff00ff", "fixed only", 10);
      swatch("#00ff00", "moving only", 40);
    }
    scaleBar(placement(field()).scale);
    tell();
  };

  const swatch = (colour, words, top) => {
    chip(`     ${words}`, 10, "left", false, top);
    context.fillStyle = colour;
    context.fillRect(17, top + 7, 10, 10);
  };

  // --- words

  const WORDS = {
    overlay: () => "Overlay: fixed in magenta, moving in green, white and gray where they agree",
    swipe: () => "Swipe: fixed left of the divider, moving right of it; drag the divider",
    checkerboard: () => "Checkerboard: tiles of fixed and moving in turn, fixed in the upper left corner",
    blend: () => `Blend: ${100 - state.blend} % fixed, ${state.blend} % moving`,
    flicker: () => "Flicker: fixed and moving in turn",
    side: () => "Side by side: fixed left, moving right",
  };

  const describe = () => {
    const stage = isRejected() ? setup.rejected : `${state.stage} the alignment`;
    const source = state.source === "originals" ? "Originals" : "Representations";
    return `${WORDS[state.mode]()}. ${[source, stage, plane().title].filter(Boolean).join(", ")}.`;
  };

  const tell = () => {
    const words = describe();
    if (caption.textContent !== words) caption.textContent = words;
    canvas.setAttribute("aria-label", words);
    const { scale, left, top } = placement(field());
    const { mode, stage, source, zoom, shown, running } = state;
    const seen = { mode, stage, source, plane: state.plane, zoom, shown, running, scale, left, top };
    Object.assign(canvas.dataset, seen, { rejected: isRejected() });
  };

  const controls = () => {
    for (const button of viewer.querySelectorAll("button[data-state]")) {
      button.setAttribute("aria-pressed", String(String(state[button.dataset.state]) === button.dataset.value));
    }
    const setting = OPTIONS[state.mode];
    option.hidden = !setting;
    pause.hidden = state.mode !== "flicker";
    pause.textContent = state.running ? "Pause" : "Go on";
    if (!setting) return;
    Object.assign(slider, { min: setting.min, max: setting.max, step: setting.step });
    slider.value = state[state.mode];
    option.querySelector("span").textContent = setting.words;
    option.querySelector("output").textContent = setting.show(state[state.mode]);
  };

  // --- changes

  let timer = 0;
  let last = "";
  const update = (changes) => {
    Object.assign(state, changes);
    state.zoom = clamped(state.zoom, 0.5, LARGEST_ZOOM);
    [state.x, state.y] = [clamped(state.x, 0, 1), clamped(state.y, 0, 1)];
    const rhythm = `${state.mode === "flicker" && state.running} ${state.flicker}`;
    if (rhythm !== last) {
      last = rhythm;
      clearInterval(timer);
      if (rhythm.startsWith("true")) timer = setInterval(alternate, 1000 / state.flicker);
    }
    controls();
    draw();
  };

  const alternate = () => update({ shown: state.shown === "fixed" ? "moving" : "fixed" });

  const zoomBy = (factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) => {
    const place = field(state.mode === "side" && x > canvas.clientWidth / 2 ? 0.5 : 0);
    const centred = x === canvas.clientWidth / 2;
    const old = placement(place);
    const zoom = clamped(state.zoom * factor, 0.5, LARGEST_ZOOM);
    const scale = (old.scale * zoom) / state.zoom;
    const under = [(x - old.left) / old.scale, (y - old.top) / old.scale];
    update({
      zoom,
      x: centred ? state.x : (under[0] - (x - place.left - place.width / 2) / scale) / plane().width,
      y: centred ? state.y : (under[1] - (y - place.height / 2) / scale) / plane().height,
    });
  };

  const panBy = (x, y) => {
    const { scale } = placement(field());
    update({ x: state.x + x / scale / plane().width, y: state.y + y / scale / plane().height });
  };

  const fit = () => update({ zoom: 1, x: 0.5, y: 0.5 });
  const next = { before: "after", after: "before", originals: "representations", representations: "originals" };
  const flickerOrPause = () => update(state.mode === "flicker" ? { running: !state.running } : { mode: "flicker" });

  const KEYS = {
    b: () => setup.hasAfter && update({ stage: next[state.stage] }),
    r: () => setup.hasRepresentations && update({ source: next[state.source] }),
    p: () => update({ plane: (state.plane + 1) % setup.planes.length }),
    0: fit,
    "+": () => zoomBy(1.25),
    "=": () => zoomBy(1.25),
    "-": () => zoomBy(0.8),
    " ": flickerOrPause,
    arrowleft: () => panBy(-40, 0),
    arrowright: () => panBy(40, 0),
    arrowup: () => panBy(0, -40),
    arrowdown: () => panBy(0, 40),
    ...Object.fromEntries(MODES.map((mode, i) => [String(i + 1), () => update({ mode })])),
  };

  document.addEventListener("keydown", (event) => {
    const isHere = viewer.contains(document.activeElement) || viewer.matches(":hover");
    if (!isHere || event.ctrlKey || event.metaKey || event.altKey) return;
    const onControl = event.target.matches("input, button, summary, a");
    if (onControl && /^( |Enter|Arrow.*)$/.test(event.key)) return;
    const act = KEYS[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });

  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { state: key, value, zoom } = button.dataset;
    if (key) update({ [key]: key === "plane" ? Number(value) : value });
    if (zoom) ({ in: () => zoomBy(1.25), out: () => zoomBy(0.8), fit })[zoom]();
    if (button === pause) flickerOrPause();
  });

  slider.addEventListener("input", () => update({ [state.mode]: Number(slider.value) }));

  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return; // the page scrolls
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    },
    { passive: false },
  );

  // --- pointers: one drags the picture or the divider, two pinch

  const pointers = new Map();
  let divides = false;
  const distance = () => Math.hypot(...[0, 1].map((k) => [...pointers.values()].reduce((a, b) => a[k] - b[k])));

  canvas.addEventListener("pointerdown", (event) => {
    const divider = (state.swipe / 100) * canvas.clientWidth;
    divides = state.mode === "swipe" && Math.abs(event.offsetX - divider) < 24;
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
  });

  canvas.addEventListener("pointermove", (event) => {
    drag(event);
    locate(event);
  });

  const drag = (event) => {
    const old = pointers.get(event.pointerId);
    if (!old) return;
    const apart = pointers.size === 2 ? distance() : 0;
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (pointers.size === 2) zoomBy(distance() / Math.max(apart, 1), event.offsetX, event.offsetY);
    else if (divides) update({ swipe: clamped(Math.round((100 * event.offsetX) / canvas.clientWidth), 0, 100) });
    else panBy(old[0] - event.offsetX, old[1] - event.offsetY);
  };

  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }

  const locate = (event) => {
    const place = field(state.mode === "side" && event.offsetX > canvas.clientWidth / 2 ? 0.5 : 0);
    const { scale, left, top } = placement(place);
    const x = (event.offsetX - left) / scale - 0.5; // a whole index is the centre of a pixel
    const y = (event.offsetY - top) / scale - 0.5;
    const { axes, origin, right, down, unit, spacing } = plane();
    const digits = clamped(Math.ceil(1 - Math.log10(spacing)), 0, 6);
    const at = origin.map((o, k) => `${axes[k]} ${(o + x * right[k] + y * down[k]).toFixed(digits)}`);
    position.textContent = `fixed world: ${at.join(", ")} ${unit}`;
  };
  canvas.addEventListener("pointerleave", () => (position.textContent = ""));

  // --- start

  const start = () => {
    viewer.dataset.ready = "true";
    new ResizeObserver(draw).observe(canvas);
    addEventListener("beforeprint", draw);
    update({});
  };
  addEventListener("load", start); // then all pictures are there
})();
