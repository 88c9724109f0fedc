// Two pictures of one size as one; what is transparent shows nothing.
const compose = (() => {
  "use strict";

  const sheet = ({ width, height }) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
  };

  // The mean of red, green and blue, stretched from what is black in overlays to what is white; 0 where transparent.
  const grayLevels = (image, size) => {
    const [, on] = sheet(size);
    on.drawImage(image, 0, 0, size.width, size.height);
    const { data } = on.getImageData(0, 0, size.width, size.height);
    const { black = 0, white = 255 } = image.dataset;
    const gain = 255 / (white - black);
    const levels = new Uint8ClampedArray(data.length / 4);
    for (let i = 0; i < data.length; i += 4) {
      levels[i / 4] = data[i + 3] && gain * ((data[i] + data[i + 1] + data[i + 2]) / 3 - black);
    }
    return levels;
  };

  // The fixed picture in magenta, the moving one in green.
  const overlay = (fixed, moving, size) => {
    const [canvas, on] = sheet(size);
    const [magenta, green] = [grayLevels(fixed, size), grayLevels(moving, size)];
    const result = on.createImageData(size.width, size.height);
    magenta.forEach((level, i) => result.data.set([level, green[i], level, 255], 4 * i));
    on.putImageData(result, 0, 0);
    return canvas;
  };

  // Square tiles in turn, so many along the longer side; the first is of the fixed picture.
  const checkerboard = (fixed, moving, size, tiles) => {
    const [canvas, on] = sheet(size);
    const { width, height } = size;
    const edge = (k) => Math.round((k * Math.max(width, height)) / tiles);
    on.drawImage(fixed, 0, 0, width, height);
    on.beginPath();
    for (let row = 0; edge(row) < height; row++) {
      for (let column = (row + 1) % 2; edge(column) < width; column += 2) {
        on.rect(edge(column), edge(row), edge(column + 1) - edge(column), edge(row + 1) - edge(row));
      }
    }
    on.clip();
    on.clearRect(0, 0, width, height);
    on.drawImage(moving, 0, 0, width, height);
    return canvas;
  };

  // A share of the moving picture, and the rest of the fixed one; dimmed where one of them shows nothing.
  const blend = (fixed, moving, size, share) => {
    const [canvas, on] = sheet(size);
    on.globalCompositeOperation = "lighter";
    for (const [image, part] of [[fixed, 1 - share], [moving, share]]) {
      on.globalAlpha = part;
      on.drawImage(image, 0, 0, size.width, size.height);
    }
    return canvas;
  };

  return { overlay, checkerboard, blend };
})();
