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
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", traceorder: "normal", font: { size: narrow ? 11 : 12 }, ...(narrow && { entrywidth: 0.46, entrywidthmode: "fraction" }) },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: ink },
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: line, font: { color: ink } },
    };
  }

  const config = () => ({
    displaylogo: false,
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  });

  function draw(chart) {
    const plot = chart.querySelector(".plot");
    const width = printing ? PAPER : Math.floor(plot.getBoundingClientRect().width);
    if (!width) return;
    const view = chart.dataset.chart ? chosenView(chart) : differencesView(chart.closest(".budget"));
    plot.hidden = !view;
    if (view) Plotly.react(plot, structuredClone(view.data), layoutOf(structuredClone(view.layout), width), config());
  }

  function chosenView(chart) {
    const views = data.charts[chart.dataset.chart], names = Object.keys(views);
    if (names.length === 1) return views[names[0]];
    const picks = [...chart.querySelectorAll("select")].map((select) => select.value);
    return views[picks.join(" | ")] ?? views[names.find((name) => picks.every((pick) => name.split(" | ").includes(pick)))];
  }

  const points = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(1);
  const protocol = () => document.querySelector("input[name=protocol]:checked").value;
  const tablesOf = (budget) => [...budget.querySelectorAll("table[data-table]")];

  function differencesView(budget) {
    const shown = tablesOf(budget).find((table) => table.closest(`.${protocol()}-only`));
    const { rows, columns, against } = data.tables[shown.dataset.table];
    const baseline = Number(budget.querySelector(".pick-baseline").value);
    const column = columns.indexOf(budget.querySelector(".pick-column").value);
    budget.querySelector(".baseline-name").textContent = rows[baseline].name;
    const traces = rows
      .map((row, place) => ({ row, entry: against[baseline][place][column] }))
      .filter(({ entry }) => entry)
      .reverse()
      .map(({ row, entry: [value, low, high] }) => ({
        x: [value], y: [row.name], mode: "markers", type: "scatter", name: row.name,
        error_x: low === null ? undefined : { type: "data", array: [high - value], arrayminus: [value - low], thickness: 2, width: 5 },
        marker: { color: row.colour, size: 11 },
        hovertemplate: "%{y}: %{x:+.1f} points<extra></extra>",
      }));
    const zero = { type: "line", x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper", line: { width: 1.5, dash: "dot", color: "#7d8590" } };
    const axis = { title: { text: `difference from ${rows[baseline].name}, points` }, zeroline: false };
    const layout = { showlegend: false, height: 70 + 34 * traces.length, margin: { l: 96, r: 16, t: 8, b: 44 }, xaxis: axis, shapes: [zero] };
    return traces.length ? { data: traces, layout } : null;
  }

  function compare(budget) {
    const pick = budget.querySelector(".pick-baseline");
    const baseline = pick ? Number(pick.value) : 0;
    for (const table of tablesOf(budget)) {
      const { rows, against } = data.tables[table.dataset.table];
      table.querySelectorAll("tr.run").forEach((line, place) => {
        line.classList.toggle("baseline", place === baseline && rows.length > 1);
        line.querySelectorAll("td.score").forEach((cell, column) => {
          const entry = against[baseline][place][column];
          const [value, low, high, n] = entry ?? [];
          cell.classList.toggle("up", low !== null && low > 1e-10);
          cell.classList.toggle("down", high !== null && high < -1e-10);
          const interval = low === null ? "" : ` [${points(low)}, ${points(high)}]`;
          cell.title = entry ? `${points(value)} points${interval} against ${rows[baseline].name} over ${n} samples` : `${cell.dataset.n} samples`;
        });
      });
    }
    budget.querySelectorAll(".chart").forEach(draw);
  }

  const drawAll = () => charts.forEach(draw);
  charts.forEach((chart) => chart.querySelectorAll("select").forEach((select) => select.addEventListener("change", () => draw(chart))));
  document.querySelectorAll(".budget").forEach((budget) => {
    budget.querySelector(".pick-baseline")?.addEventListener("change", () => compare(budget));
    compare(budget);
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
    input.addEventListener("change", () => { document.body.className = input.value; drawAll(); }));

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
        const heated = document.createElement("span");
        heated.className = "heated";
        heated.append(shown.cloneNode());
        const canvas = document.createElement("canvas");
        canvas.width = image.columns;
        canvas.height = image.rows;
        const share = document.createElement("span");
        share.className = "share";
        heated.append(canvas, share);
        picture.append(heated);
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
    const raw = sample.querySelector(".pick-raw");
    const beside = () => prompt.classList.toggle("heat-only", !raw.checked);
    raw.addEventListener("change", beside);
    beside();
    show();
  });

  setTheme("auto");
})();
