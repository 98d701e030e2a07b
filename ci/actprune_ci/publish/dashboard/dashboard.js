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

  // the lists of machines, metrics and figures, each with what the one before leaves
  function chosen(groups, show) {
    function lists() {
      fill($("machine"), unique(groups.map((g) => g.machine)).map((m) => [m, m]));
      const here = groups.filter((g) => g.machine === $("machine").value);
      fill($("metric"), unique(here.map((g) => g.metric)).sort(leading("time")).map((m) => [m, m]));
      const left = here.filter((g) => g.metric === $("metric").value && fits(g.title));
      fill($("figure"), left.map((g) => [groups.indexOf(g), g.title]));
      shown();
    }
    function shown() {
      const group = groups[Number($("figure").value)];
      if ($("figure").value === "" || !group) return draw([], {});
      show(group);
    }
    function open(group) {  // the one that a link names
      if (!group) return lists();
      lists();
      $("machine").value = group.machine;
      lists();
      $("metric").value = group.metric;
      lists();
      $("figure").value = groups.indexOf(group);
      shown();
    }
    ["machine", "metric", "filter"].forEach((id) => $(id).addEventListener("input", lists));
    $("figure").addEventListener("input", shown);
    return { open, shown };
  }

  const line = (y, name, i) => ({
    x: DATA.commits.map((_, at) => at), y, name: plain(name), text: DATA.commits, mode: "lines+markers",
    connectgaps: true, marker: { size: 5 }, line: { color: COLOURS[i % COLOURS.length] },
    hovertemplate: "%{text}: %{y:.5g}<extra>%{fullData.name}</extra>",
  });

  function overCommits(title) {
    const step = Math.max(1, Math.ceil(DATA.commits.length / 12));
    const at = DATA.commits.map((_, i) => i).filter((i) => i % step === 0);
    return layout(
      { title: { text: "commit" }, tickvals: at, ticktext: at.map((i) => DATA.commits[i].slice(0, 7)) },
      { title: { text: plain(title) } });
  }

  const measure = (group) => group.metric + " (" + (group.unit === "s" ? "ms" : group.unit) + ")";

  function formats() {
    const { open, shown } = chosen(DATA.formats, (group) => {
      const dense = group.series.dense;
      $("relative-label").hidden = !dense;
      const relative = dense && $("relative").checked;
      const specs = Object.keys(group.series).sort(leading("dense"));
      const traces = specs.map((spec, i) => line(relative
        ? group.series[spec].map((v, at) => v === null || !dense[at] ? null : v / dense[at])
        : scaled(group.series[spec], group.unit), spec, i));
      draw(traces, overCommits(relative ? group.metric + ", ratio to dense" : measure(group)));
    });
    $("relative").addEventListener("input", shown);
    open();
  }

  function figures() {
    const { open } = chosen(FIGURES, (group) => {
      const names = Object.keys(group.series).sort();
      const traces = names.map((name, i) => line(scaled(group.series[name], group.unit), name || group.title, i + 3));
      const shape = overCommits(measure(group));
      shape.showlegend = true;
      shape.shapes = group.changes.flatMap(([first, last, limit, worse]) => {
        const color = worse ? "#d55e00" : "#6b7785";
        const [y] = scaled([limit], group.unit);
        return [
          { type: "rect", xref: "x", yref: "paper", x0: first, x1: last, y0: 0, y1: 1, fillcolor: color, opacity: 0.15, line: { width: 0 } },
          { type: "line", xref: "x", x0: Math.max(0, first - 20), x1: Math.min(DATA.commits.length - 1, last + 20), y0: y, y1: y, line: { color, width: 1.5, dash: "dot" } },
        ];
      });
      draw(traces, shape);
    });
    const named = () => FIGURES[Number(location.hash.slice(1) || NaN)];
    addEventListener("hashchange", () => open(named()));
    open(named());
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

  ({ formats, figures, pareto, regressions }[document.body.dataset.page] || (() => {}))();
})();
