"use strict";
(function () {
  const COLOURS = ["#6b7785", "#d55e00", "#b8860b", "#0072b2", "#009e73", "#a8438f", "#4b3fa7", "#7a5230"];
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const $ = (id) => document.getElementById(id);
  const unique = (values) => [...new Set(values)];
  // what the others are held to comes first
  const leading = (first) => (a, b) => (b === first) - (a === first) || (a < b ? -1 : 1);
  const words = () => ($("filter") ? $("filter").value : "").toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (text) => words().every((word) => text.toLowerCase().includes(word));

  // plotly takes tags and entities for its own
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

  function fill(select, options) {
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    if (options.some(([value]) => String(value) === before)) select.value = before;
  }

  function layout(x, y) {
    const ink = dark ? "#ddd" : "#222", line = dark ? "#444" : "#ddd";
    const axis = { gridcolor: line, zerolinecolor: line, automargin: true };
    return {
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { color: ink },
      margin: { t: 20, r: 20 }, hovermode: "closest",
      xaxis: { ...axis, ...x }, yaxis: { ...axis, ...y },
      legend: { orientation: "h", y: -0.25 },
    };
  }

  function draw(traces, shape) {
    const none = traces.length === 0;
    $("empty").hidden = !none;
    $("chart").hidden = none;
    if (!none) Plotly.react("chart", traces, shape, { responsive: true, displaylogo: false });
  }

  function scaled(values, unit) {
    return unit === "s" ? values.map((v) => v === null ? null : v * 1000) : values;
  }

  function formats() {
    const groups = DATA.formats;
    function lists() {
      fill($("machine"), unique(groups.map((g) => g.machine)).map((m) => [m, m]));
      const here = groups.filter((g) => g.machine === $("machine").value);
      fill($("metric"), unique(here.map((g) => g.metric)).sort(leading("time")).map((m) => [m, m]));
      const left = here.filter((g) => g.metric === $("metric").value && fits(g.title));
      fill($("figure"), left.map((g) => [groups.indexOf(g), g.title]));
      show();
    }
    function show() {
      const group = groups[Number($("figure").value)];
      if ($("figure").value === "" || !group) return draw([], {});
      const dense = group.series.dense;
      $("relative-label").hidden = !dense;
      const relative = dense && $("relative").checked;
      const specs = Object.keys(group.series).sort(leading("dense"));
      const traces = specs.map((spec, i) => {
        const raw = group.series[spec];
        const y = relative
          ? raw.map((v, at) => v === null || !dense[at] ? null : v / dense[at])
          : scaled(raw, group.unit);
        return {
          x: DATA.commits.map((_, at) => at), y, name: plain(spec), text: DATA.commits, mode: "lines+markers",
          connectgaps: true, marker: { size: 5 }, line: { color: COLOURS[i % COLOURS.length] },
          hovertemplate: "%{text}: %{y:.5g}<extra>%{fullData.name}</extra>",
        };
      });
      const unit = group.unit === "s" ? "ms" : group.unit;
      const step = Math.max(1, Math.ceil(DATA.commits.length / 12));
      const at = DATA.commits.map((_, i) => i).filter((i) => i % step === 0);
      draw(traces, layout(
        { title: { text: "commit" }, tickvals: at, ticktext: at.map((i) => DATA.commits[i].slice(0, 7)) },
        { title: { text: plain(relative ? group.metric + ", ratio to dense" : group.metric + " (" + unit + ")") } }));
    }
    ["machine", "metric", "filter"].forEach((id) => $(id).addEventListener("input", lists));
    ["figure", "relative"].forEach((id) => $(id).addEventListener("input", show));
    lists();
  }

  function pareto() {
    const groups = DATA.pareto;
    function lists() {
      fill($("machine"), unique(groups.map((g) => g.machine)).map((m) => [m, m]));
      const here = groups.filter((g) => g.machine === $("machine").value);
      fill($("figure"), here.map((g) => [groups.indexOf(g), g.title]));
      show();
    }
    function show() {
      const group = groups[Number($("figure").value)];
      if ($("figure").value === "" || !group) return draw([], {});
      const traces = [];
      unique(group.points.map((p) => p.spec)).sort(leading("dense")).forEach((spec, i) => {
        const points = group.points.filter((p) => p.spec === spec);
        const trace = (some, name, more) => ({
          x: some.map((p) => p.saved), y: some.map((p) => p.accuracy), mode: "markers", name: plain(spec),
          text: some.map((p) => DATA.commits[p.row] + ", " + p.seeds + " seeds"), showlegend: name,
          legendgroup: spec, hovertemplate: "%{text}: %{y:.2f} % at %{x:.3f}<extra>%{fullData.name}</extra>",
          ...more,
        });
        const color = COLOURS[i % COLOURS.length];
        const last = points.slice(-1);
        traces.push(trace(points.slice(0, -1), false, { marker: { size: 6, color, opacity: 0.2 } }));
        traces.push(trace(last, true, {
          marker: { size: 12, color },
          error_y: { type: "data", array: last.map((p) => p.spread), thickness: 1.5, color },
        }));
      });
      draw(traces, layout(
        { title: { text: "saved bytes, ratio to dense" }, rangemode: "tozero" },
        { title: { text: "accuracy (%)" } }));
    }
    $("machine").addEventListener("input", lists);
    $("figure").addEventListener("input", show);
    lists();
  }

  function regressions() {
    const rows = [...document.querySelectorAll("table.filtered tbody tr")];
    if (!$("filter")) return;
    function show() {
      rows.forEach((row) => { row.hidden = !fits(row.textContent); });
      $("count").textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length;
    }
    $("filter").addEventListener("input", show);
    show();
  }

  ({ formats, pareto, regressions }[document.body.dataset.page] || (() => {}))();
})();
