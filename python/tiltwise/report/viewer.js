(function () {
  let library = null;

  // The text of k3d is allowed by its hash: it is run as an inline script, never through eval.
  function k3d() {
    if (library === null) {
      library = unpacked(document.getElementById("k3d").textContent).then(function (buffer) {
        let made = null;
        window.define = function (name, needs, make) { made = make(); };
        window.define.amd = {};
        const script = document.createElement("script");
        script.textContent = new TextDecoder().decode(buffer);
        document.head.appendChild(script);
        delete window.define;
        if (made === null) throw new Error("the browser did not run k3d");
        return made;
      });
    }
    return library;
  }

  function floats(text, change) {
    return unpacked(text).then(function (buffer) { return Float32Array.from(new Uint8Array(buffer), change); });
  }

  function colours() {
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    return { clear: dark ? 0x1e2226 : 0xffffff, line: dark ? 0x363c43 : 0xdde1e6 };
  }

  function number(value) { return Number(value).toPrecision(3); }

  async function start(panel) {
    const data = JSON.parse(panel.querySelector("script").textContent);
    const slider = panel.querySelector("input"), shown = panel.querySelector("output");
    const canvas = panel.querySelector(".canvas");
    const lib = await k3d();
    // The surface looks outwards where the field is lower inside: turn the values over.
    const field = await floats(data.values, function (v) { return 255 - v; });
    const painted = data.colour ? await floats(data.colour, function (v) { return v; }) : null;
    const n = data.size, width = data.width, none = { data: new Float32Array(0), shape: [0] };
    const level = function (contour) { return 255 - 255 * (contour - data.low) / (data.high - data.low); };
    panel.classList.add("started");
    const look = colours();
    const viewer = new lib.K3D(lib.ThreeJsProvider, canvas, {
      antialias: 3, lighting: 1.5, cameraAutoFit: true, gridVisible: false, menuVisibility: false, axesHelper: 1.0,
      clearColor: look.clear, gridColor: look.line, labelColor: 0x8a8f98, cameraMode: "trackball", cameraFov: 40,
      cameraRotateSpeed: 1, cameraZoomSpeed: 1.2, cameraPanSpeed: 0.3, cameraDampingFactor: 0, renderOnChange: true,
      colorbarObjectId: 0, standaloneGUI: false
    });
    const surface = {
      id: 1, type: "MarchingCubes", level: level(data.contour), visible: true, color: 0x56b4e9, opacity: 1,
      wireframe: false, flat_shading: false, roughness: 0.5, metalness: 0,
      scalar_field: { data: field, shape: [n, n, n] },
      attribute: painted === null ? none : { data: painted, shape: [n, n, n] },
      color_map: { data: Float32Array.from(data.map || []), shape: [(data.map || []).length / 4, 4] },
      color_range: painted === null ? [] : [0, 255], opacity_function: none,
      spacings_x: none, spacings_y: none, spacings_z: none,
      model_matrix: { data: Float32Array.from([width, 0, 0, 0, 0, width, 0, 0, 0, 0, width, 0, 0, 0, 0, 1]), shape: [4, 4] }
    };
    await viewer.load({ objects: [surface] });
    const [x, y, z, side] = data.focus, far = 1.75 * side;
    viewer.setCamera([x + 0.35 * far, y - 0.8 * far, z + 0.5 * far, x, y, z, 0, 0, 1]);
    viewer.render();
    slider.min = data.low; slider.max = data.high; slider.step = (data.high - data.low) / 255;
    slider.value = data.contour;
    let waiting = false;
    function contour() {
      shown.textContent = number(slider.value);
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(function () {
        waiting = false;
        surface.level = level(Number(slider.value));
        viewer.reload(surface, { level: surface.level });
      });
    }
    shown.textContent = number(slider.value);
    slider.addEventListener("input", contour);
    panel.dataset.state = "drawn";
    panel.viewer = viewer;
  }

  document.querySelectorAll(".surface").forEach(function (panel) {
    const button = panel.querySelector("button");
    panel.hidden = false;
    button.addEventListener("click", function () {
      button.disabled = true;
      button.textContent = "Loading…";
      start(panel).then(function () { button.hidden = true; }).catch(function (error) {
        button.textContent = "This browser cannot show it: " + error.message;
        panel.dataset.state = "failed";
      });
    });
  });
})();
