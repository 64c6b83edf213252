// Arrows or trails on a canvas, one frame at a time; see `tiltwise.report.film`.
(function () {
  const UNKNOWN = -32768, LEFT = 46, BELOW = 34, GAP = 12, BAR = 26;

  async function numbers(packed) {
    const view = new DataView(await unpacked(packed.data)), out = new Float32Array(view.byteLength / 2);
    for (let i = 0; i < out.length; i++) {
      const value = view.getInt16(2 * i, true);
      out[i] = value === UNKNOWN ? NaN : value * packed.scale;
    }
    return out;
  }

  // 1, 2 or 5 times a power of ten, at most `value`
  function round(value) {
    const power = Math.pow(10, Math.floor(Math.log10(value)));
    return power * (value >= 5 * power ? 5 : value >= 2 * power ? 2 : 1);
  }

  function arrow(pen, x, y, dx, dy) {
    const length = Math.hypot(dx, dy), head = Math.min(6, 0.5 * length);
    if (length < 0.5) { pen.fillRect(x - 0.75, y - 0.75, 1.5, 1.5); return; }
    const ux = dx / length, uy = dy / length, ex = x + dx, ey = y + dy;
    pen.beginPath();
    pen.moveTo(x, y); pen.lineTo(ex, ey);
    pen.moveTo(ex - head * (ux + 0.5 * uy), ey - head * (uy - 0.5 * ux));
    pen.lineTo(ex, ey);
    pen.lineTo(ex - head * (ux - 0.5 * uy), ey - head * (uy + 0.5 * ux));
    pen.stroke();
  }

  async function start(film) {
    const data = JSON.parse(film.querySelector("script").textContent);
    const points = await numbers(data.points), dims = data.dims, count = data.count;
    for (const layer of data.layers) layer.numbers = await numbers(layer.values);
    const canvas = film.querySelector("canvas"), pen = canvas.getContext("2d");
    const frame = film.querySelector(".frame input"), label = film.querySelector(".frame output");
    const longer = film.querySelector(".longer input"), times = film.querySelector(".longer output");
    const play = film.querySelector("button"), boxes = [...film.querySelectorAll(".layers input")];
    const last = data.labels.length - 1;
    frame.max = last; frame.value = data.start;

    function at(values, f, p, axis) { return values[(f * count + p) * dims + axis]; }
    function point(f, p, axis) { return points[(data.still ? p : f * count + p) * dims + axis]; }
    function factor() { return data.magnify * Math.pow(10, Number(longer.value) / 20); }

    function draw() {
      const style = getComputedStyle(film), ink = style.getPropertyValue("--ink"), soft = style.getPropertyValue("--soft");
      const line = style.getPropertyValue("--line"), width = film.clientWidth, f = Number(frame.value), by = factor();
      const [left, right] = data.panels[0].x, scale = Math.min((width - LEFT - GAP) / (right - left), 460 / Math.max(
        ...data.panels.map(function (panel) { return panel.y[1] - panel.y[0]; })));
      const heights = data.panels.map(function (panel) { return scale * (panel.y[1] - panel.y[0]); });
      const height = heights.reduce(function (sum, own) { return sum + own + BELOW + GAP; }, BAR);
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
      canvas.style.height = height + "px";
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.font = "11px system-ui, sans-serif";
      const bar = round(90 / (scale * by)), long = bar * by * scale;
      pen.fillStyle = ink; pen.fillRect(LEFT, 12, long, 3);
      pen.fillText(Number(bar.toPrecision(1)) + " Å of " + (data.kind === "arrows" ? "an arrow" : "a path"), LEFT + long + 8, 17);
      let top = BAR;
      data.panels.forEach(function (panel, number) {
        const [low, high] = panel.y, bottom = top + heights[number];
        const X = function (x) { return LEFT + (x - left) * scale; }, Y = function (y) { return bottom - (y - low) * scale; };
        axes(panel, X, Y, [left, right], [low, high], scale, line, soft);
        pen.save();
        pen.beginPath(); pen.rect(LEFT, top, (right - left) * scale, heights[number]); pen.clip();
        data.layers.forEach(function (layer, index) {
          if (boxes.length && !boxes[index].checked) return;
          const [a, b] = panel.axes;
          if (data.kind === "trails") trails(layer, f, by, a, b, X, Y, scale, soft);
          else arrows(layer, f, by, a, b, X, Y, scale, style.getPropertyValue(layer.colour));
        });
        pen.restore();
        top = bottom + BELOW + GAP;
      });
      label.textContent = data.labels[f];
      times.textContent = "×" + Number(by.toPrecision(2));
      film.dataset.frame = f;
    }

    function axes(panel, X, Y, [left, right], [low, high], scale, line, soft) {
      // the colours of trails begin dark: on white, as in the picture beside them
      if (data.kind === "trails") { pen.fillStyle = "#fff"; pen.fillRect(X(left), Y(high), X(right) - X(left), Y(low) - Y(high)); }
      pen.strokeStyle = line; pen.lineWidth = 1; pen.fillStyle = soft;
      pen.strokeRect(X(left), Y(high), X(right) - X(left), Y(low) - Y(high));
      const step = round(2 * 80 / scale);
      pen.textAlign = "center";
      for (let x = Math.ceil(left / step) * step; x <= right; x += step) {
        pen.beginPath(); pen.moveTo(X(x), Y(low)); pen.lineTo(X(x), Y(low) + 4); pen.stroke();
        pen.fillText(String(Math.round(x)), X(x), Y(low) + 15);
      }
      pen.fillText(panel.names[0], (X(left) + X(right)) / 2, Y(low) + 29);
      pen.textAlign = "right";
      for (let y = Math.ceil(low / step) * step; y <= high; y += step) {
        pen.beginPath(); pen.moveTo(X(left) - 4, Y(y)); pen.lineTo(X(left), Y(y)); pen.stroke();
        pen.fillText(String(Math.round(y)), X(left) - 6, Y(y) + 4);
      }
      pen.textAlign = "left";
      pen.save(); pen.translate(10, (Y(low) + Y(high)) / 2 + 14); pen.rotate(-Math.PI / 2);
      pen.fillText(panel.names[1], 0, 0); pen.restore();
    }

    function arrows(layer, f, by, a, b, X, Y, scale, colour) {
      pen.strokeStyle = pen.fillStyle = colour; pen.lineWidth = 1.6;
      for (let p = 0; p < count; p++) {
        const x = point(f, p, a), y = point(f, p, b), dx = at(layer.numbers, f, p, a), dy = at(layer.numbers, f, p, b);
        if (isFinite(x + y + dx + dy)) arrow(pen, X(x), Y(y), by * dx * scale, -by * dy * scale);
      }
    }

    function trails(layer, f, by, a, b, X, Y, scale, soft) {
      for (let p = 0; p < count; p++) {
        const x = X(point(f, p, a)), y = Y(point(f, p, b));
        const place = function (k) {
          return [x + by * scale * at(layer.numbers, k, p, a), y - by * scale * at(layer.numbers, k, p, b)];
        };
        pen.strokeStyle = soft; pen.lineWidth = 1;
        pen.beginPath(); pen.arc(x, y, 2, 0, 7); pen.stroke();
        pen.lineWidth = 1.6;
        for (let k = 1; k <= f; k++) {
          pen.strokeStyle = data.colours[k];
          pen.beginPath(); pen.moveTo(...place(k - 1)); pen.lineTo(...place(k)); pen.stroke();
        }
        pen.fillStyle = data.colours[f];
        pen.beginPath(); pen.arc(...place(f), 2.5, 0, 7); pen.fill();
      }
    }

    let waiting = false, timer = 0;
    function soon() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(function () { waiting = false; draw(); });
    }
    function stop() { clearInterval(timer); timer = 0; play.textContent = "Play"; }
    play.addEventListener("click", function () {
      if (timer) { stop(); return; }
      if (Number(frame.value) === last) frame.value = 0;
      play.textContent = "Stop";
      timer = setInterval(function () {
        frame.value = Number(frame.value) + 1;
        if (Number(frame.value) === last) stop();
        soon();
      }, 200);
      soon();
    });
    frame.addEventListener("input", function () { if (timer) stop(); soon(); });
    longer.addEventListener("input", soon);
    boxes.forEach(function (box) { box.addEventListener("change", soon); });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
    film.hidden = false;
    new ResizeObserver(soon).observe(film);
    draw();
    film.dataset.state = "drawn";
  }

  document.querySelectorAll(".film").forEach(function (film) {
    start(film).catch(function (error) { film.dataset.state = "failed"; console.error(error); });
  });
})();
