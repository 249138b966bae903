"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const charts = [...document.querySelectorAll(".chart")];

  const PAPER = 660;
  let printing = false;

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function layoutOf(layout, width) {
    const ink = colour("--ink"), grid = colour("--grid"), line = colour("--line"), narrow = width < 520;
    const size = narrow ? 11 : 12.5;
    const axis = (own) => ({
      gridcolor: grid, linecolor: line, zerolinecolor: line, automargin: true,
      ...own, title: { font: { size }, standoff: 8, ...(own && own.title) },
    });
    return {
      ...layout,
      width,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", size, color: ink },
      margin: { l: 52, r: 14, t: 14, b: 48, ...layout.margin },
      height: layout.height + (narrow && layout.showlegend !== false ? 90 : 0),
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", traceorder: "normal", font: { size: narrow ? 11 : 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: ink },
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: line, font: { color: ink } },
    };
  }

  function draw(chart) {
    const views = data.charts[chart.dataset.chart];
    const select = chart.querySelector("select");
    const view = views[select ? select.value : Object.keys(views)[0]];
    const plot = chart.querySelector(".plot");
    const width = printing ? PAPER : Math.floor(plot.getBoundingClientRect().width);
    if (!width) return;
    const traces = structuredClone(view.data);
    const config = {
      displaylogo: false,
      displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    };
    Plotly.react(plot, traces, layoutOf(structuredClone(view.layout), width), config);
  }

  const drawAll = () => charts.forEach(draw);
  charts.forEach((chart) => {
    const select = chart.querySelector("select");
    if (select) select.addEventListener("change", () => draw(chart));
  });
  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 120); });

  const themes = ["auto", "dark", "light"];
  const button = document.getElementById("theme");
  function setTheme(theme) {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    button.querySelector("span").textContent = theme;
    button.dataset.now = theme;
    drawAll();
  }
  button.addEventListener("click", () => setTheme(themes[(themes.indexOf(button.dataset.now) + 1) % themes.length]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  let before = "auto";
  window.addEventListener("beforeprint", () => { before = button.dataset.now; printing = true; setTheme("light"); });
  window.addEventListener("afterprint", () => { printing = false; setTheme(before); });

  document.querySelectorAll("input[name=protocol]").forEach((input) =>
    input.addEventListener("change", () => { document.body.className = input.value; }));

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  function shares(kept, length, layer, head) {
    const sum = new Float32Array(length), stride = Math.ceil(length / 8);
    const layers = layer < 0 ? kept.layers : [kept.layers[layer]];
    let counted = 0;
    for (const text of layers) {
      const packed = bytes(text);
      if (!kept.heads) {
        for (let at = 0; at < length; at++) sum[at] += packed[at] / 255;
        counted++;
        continue;
      }
      for (let h = 0; h < kept.heads; h++) {
        if (head >= 0 && h !== head) continue;
        for (let at = 0; at < length; at++) sum[at] += (packed[h * stride + (at >> 3)] >> (7 - (at & 7))) & 1;
        counted++;
      }
    }
    return sum.map((value) => value / counted);
  }

  function paint(picture, image, share) {
    const canvas = picture.querySelector("canvas"), context = canvas.getContext("2d");
    const pixels = context.createImageData(image.columns, image.rows);
    let total = 0;
    for (let token = 0; token < image.stop - image.start; token++) {
      const kept = share[image.start + token];
      total += kept;
      const warm = Math.sqrt(kept);
      const mix = [18 + 237 * warm, 24 + 126 * warm, 34 - 34 * warm, 255 * (0.72 - 0.27 * warm)];
      pixels.data.set(mix, 4 * token);
    }
    context.putImageData(pixels, 0, 0);
    picture.querySelector(".share").textContent = `${Math.round((100 * total) / (image.stop - image.start))} %`;
  }

  document.querySelectorAll(".sample").forEach((sample) => {
    const view = data.samples[sample.dataset.sample];
    const prompt = sample.querySelector(".prompt");
    const pictures = [];
    for (const [number, item] of view.flow.entries()) {
      if ("text" in item) {
        const span = document.createElement("span");
        const inner = item.text.trim() === "" && item.text.includes("\n") && "image" in (view.flow[number + 1] || {});
        span.textContent = inner ? "↵" : item.text;
        if (item.at >= 0) { span.className = "token"; span.dataset.at = item.at; }
        prompt.append(span);
        continue;
      }
      const image = view.images[item.image];
      const picture = document.createElement("span");
      picture.className = "picture";
      const shown = document.createElement(image.source ? "img" : "span");
      if (image.source) { shown.src = image.source; shown.alt = `image ${item.image + 1}`; } else shown.className = "absent";
      picture.append(shown);
      if (view.kept.length) {
        const canvas = document.createElement("canvas");
        canvas.width = image.columns;
        canvas.height = image.rows;
        const share = document.createElement("span");
        share.className = "share";
        picture.append(canvas, share);
      }
      prompt.append(picture);
      pictures.push([picture, image]);
    }
    if (!view.kept.length) return;
    const positions = view.flow.filter((item) => "at" in item).map((item) => item.at);
    const length = 1 + Math.max(...positions, ...view.images.map((image) => image.stop - 1));
    const picks = ["strategy", "layer", "head"].map((name) => sample.querySelector(`.pick-${name}`));
    const tokens = [...prompt.querySelectorAll(".token")];
    function show() {
      const [strategy, layer, head] = picks.map((pick) => Number(pick.value));
      const share = shares(view.kept[strategy], length, layer, head);
      for (const token of tokens) {
        const kept = share[Number(token.dataset.at)];
        token.style.setProperty("--share", kept.toFixed(3));
        token.classList.toggle("gone", kept === 0);
      }
      pictures.forEach(([picture, image]) => paint(picture, image, share));
      const mean = (list) => (100 * list.reduce((sum, at) => sum + share[at], 0)) / Math.max(1, list.length);
      const inImages = new Set(pictures.flatMap(([, image]) => Array.from({ length: image.stop - image.start }, (_, k) => image.start + k)));
      const text = positions.filter((at) => !inImages.has(at));
      sample.querySelector("output").textContent =
        `kept: ${mean(text).toFixed(0)} % of the text, ${mean([...inImages]).toFixed(0)} % of the image tokens`;
    }
    picks.forEach((pick) => pick.addEventListener("change", show));
    show();
  });

  setTheme("auto");
})();
