"use strict";
// The page that draws records as its reader chooses. What is chosen stands in the address, after the `#`.
(async () => {
  const bytes = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { experiments } = JSON.parse(await new Response(stream).text());
  const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
  const PREFERRED = ["step_s", "call_s", "forward_s", "epoch_s", "peak_memory_bytes"];
  const MOST_PANELS = 12;
  const MOST_CHOICES = 200; // of a filter
  const [channels, filters, said, plot] = ["channels", "filters", "said", "plot"].map((id) => document.getElementById(id));

  // -- words and numbers -----------------------------------------------------------------------------------------------

  const words = (name) => name.replaceAll("_", " ");
  const UNITS = {
    s: [[1e-9, "ns"], [1e-6, "µs"], [1e-3, "ms"], [1, "s"]],
    bytes: [[1, "B"], [2 ** 10, "KiB"], [2 ** 20, "MiB"], [2 ** 30, "GiB"], [2 ** 40, "TiB"]],
  };
  const unitOf = (metric) => (/_per_s$/.test(metric) ? "" : /_s$/.test(metric) ? "s" : /_bytes$/.test(metric) ? "bytes" : "");
  const digits = (value, most) => String(Number(value.toPrecision(most)));
  const text = (metric, value, most = 4) => {
    if (value === null) return "–";
    const units = UNITS[unitOf(metric)];
    if (!units) return Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? d3.format(`.${most}~s`)(value) : digits(value, most);
    const [size, name] = units.findLast(([each]) => Math.abs(value) >= each) ?? units[0];
    return `${digits(value / size, most)} ${name}`;
  };
  const number = (value) => (value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : null);

  // -- what is chosen --------------------------------------------------------------------------------------------------

  const names = Object.keys(experiments);
  const kept = new Map();
  const valuesOf = (name, axis) => {
    const key = `${name} ${axis}`;
    if (!kept.has(key)) {
      const place = experiments[name].axes.indexOf(axis);
      kept.set(key, [...new Set(experiments[name].points.map((point) => point[0][place]))]);
    }
    return kept.get(key);
  };
  const isNumeric = (name, axis) => valuesOf(name, axis).every((value) => number(value) !== null);
  const varying = (name) => experiments[name].axes.filter((axis) => valuesOf(name, axis).length > 1);
  const defaults = (name) => {
    const { axes, metrics, points } = experiments[name];
    const ways = varying(name);
    const numeric = ways.filter((axis) => isNumeric(name, axis));
    const widest = numeric.toSorted((a, b) => valuesOf(name, b).length - valuesOf(name, a).length)[0];
    const count = (metric) => points.filter((point) => metrics.indexOf(metric) in point[1]).length;
    const x = widest ?? ways[0] ?? axes[0];
    const y = PREFERRED.find((metric) => metrics.includes(metric)) ?? metrics.toSorted((a, b) => count(b) - count(a))[0];
    const drawn = points.filter((point) => metrics.indexOf(y) in point[1]); // published machines have few metrics
    const differs = (axis) => new Set(drawn.map((point) => point[0][axes.indexOf(axis)])).size > 1;
    return {
      e: name,
      x,
      y,
      c: ways.find((axis) => axis !== x && differs(axis) && valuesOf(name, axis).length <= COLORS.length) ?? "",
      p: "",
      lx: widest ? "1" : "",
      ly: "1",
    };
  };
  const read = () => {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const name = names.includes(given.e) ? given.e : names.includes("end_to_end") ? "end_to_end" : names[0];
    const state = { ...defaults(name), ...given, e: name };
    const { axes, metrics } = experiments[name];
    const known = { x: [...axes, ...metrics], y: metrics, c: ["", ...axes], p: ["", ...axes] };
    for (const [key, allowed] of Object.entries(known)) if (!allowed.includes(state[key])) state[key] = defaults(name)[key];
    return state;
  };
  let state = {};
  const write = (change) => {
    state = change.e && change.e !== state.e ? defaults(change.e) : { ...state, ...change };
    history.replaceState(null, "", `#${new URLSearchParams(state)}`);
    show();
  };

  // -- controls --------------------------------------------------------------------------------------------------------

  const choice = (label, key, options, told = words) => {
    const made = document.createElement("label");
    const select = document.createElement("select");
    select.name = key;
    for (const value of options) select.append(new Option(value === "" ? "–" : told(value), value, false, state[key] === value));
    select.onchange = () => write({ [key]: select.value });
    made.append(`${label} `, select);
    return made;
  };
  const tick = (label, key) => {
    const made = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", name: key, checked: state[key] === "1" });
    box.onchange = () => write({ [key]: box.checked ? "1" : "" });
    made.append(box, ` ${label}`);
    return made;
  };
  const controls = () => {
    const { axes, metrics } = experiments[state.e];
    const ways = varying(state.e);
    channels.replaceChildren(
      channels.firstElementChild,
      choice("experiment", "e", names, (name) => experiments[name].title),
      choice("x", "x", [...axes, ...metrics]),
      choice("y", "y", metrics),
      choice("colour", "c", ["", ...ways]),
      choice("panel", "p", ["", ...ways.filter((axis) => valuesOf(state.e, axis).length <= MOST_PANELS)]),
      tick("log x", "lx"),
      tick("log y", "ly"),
    );
    const given = ways.filter((axis) => valuesOf(state.e, axis).length <= MOST_CHOICES).map((axis) => choice(words(axis), `f.${axis}`, ["", ...valuesOf(state.e, axis)], (value) => value));
    given.forEach((label) => (label.querySelector("option").textContent = "all"));
    filters.replaceChildren(filters.firstElementChild, ...given);
    filters.hidden = !given.length;
  };

  // -- drawing ---------------------------------------------------------------------------------------------------------

  const data = () => {
    const { axes, metrics, points } = experiments[state.e];
    const value = (point, name) => {
      if (axes.includes(name)) return [point[0][axes.indexOf(name)], null, null, ""];
      return point[1][metrics.indexOf(name)] ?? null;
    };
    const isAxis = axes.includes(state.x);
    const asNumber = isAxis && isNumeric(state.e, state.x);
    const ways = varying(state.e);
    const chosen = axes.map((axis, place) => [place, state[`f.${axis}`]]).filter(([, wanted]) => wanted);
    const found = [];
    for (const point of points) {
      if (chosen.some(([place, wanted]) => wanted !== point[0][place])) continue;
      const [x, y] = [value(point, state.x), value(point, state.y)];
      if (!x || !y) continue;
      const shown = axes.map((axis, place) => [axis, point[0][place]]).filter(([axis]) => ways.includes(axis));
      const interval = y[1] === null ? "" : ` [${text(state.y, y[1])}, ${text(state.y, y[2])}]`;
      found.push({
        x: asNumber ? Number(x[0]) : x[0],
        y: y[0],
        low: y[1],
        high: y[2],
        color: state.c ? value(point, state.c)[0] : "",
        panel: state.p ? value(point, state.p)[0] : "",
        marks: y[3],
        title: [
          `${words(state.y)}: ${text(state.y, y[0])}${interval}`,
          ...(isAxis ? [] : [`${words(state.x)}: ${text(state.x, x[0])}`]),
          shown.map(([axis, each]) => `${words(axis)} ${each}`).join(", "),
          y[3] ? `warnings: ${y[3]}` : "no warning",
          `${point[2]}${point[3] > 1 ? ` and ${point[3] - 1} more` : ""}`,
        ].join("\n"),
      });
    }
    return found;
  };
  const show = () => {
    controls();
    const every = data();
    const isNumber = every.every((each) => typeof each.x === "number");
    const logX = isNumber && state.lx === "1";
    const logY = state.ly === "1";
    const drawn = every.filter((each) => (!logX || each.x > 0) && (!logY || each.y > 0));
    const left = every.length - drawn.length;
    said.textContent = `${drawn.length} of ${experiments[state.e].points.length} points${left ? `; ${left} at or below 0 have no place on a logarithmic axis` : ""}.`;
    const panels = new Set(drawn.map((each) => each.panel));
    const down = panels.size > 4;
    const facet = state.p ? { [down ? "fy" : "fx"]: "panel" } : {};
    const place = { x: "x", y: "y", ...facet };
    const stroke = state.c ? "color" : COLORS[0];
    const isMetric = experiments[state.e].metrics.includes(state.x);
    const xs = isMetric ? [] : [...new Set(drawn.map((each) => each.x))];
    const order = (values) => [...new Set(values)].sort((a, b) => (number(a) ?? 0) - (number(b) ?? 0));
    plot.replaceChildren(
      Plot.plot({
        width: Math.max(340, Math.min(plot.clientWidth || innerWidth - 40, 1400)),
        height: down ? 90 + 170 * panels.size : 520,
        marginLeft: 76,
        marginBottom: 44,
        marginTop: state.p ? 58 : 34,
        ...(down ? { marginRight: 150 } : {}),
        grid: true,
        style: { fontSize: "12px", background: "#fff" },
        x: {
          label: words(state.x),
          ...(isNumber ? { type: logX ? "log" : "linear", insetLeft: 24, insetRight: 24 } : { type: "point", padding: 0.6 }),
          ...(isNumber ? { ticks: 0 < xs.length && xs.length <= 12 ? xs : 6, tickFormat: (value) => text(isMetric ? state.x : "", value, 3) } : {}),
        },
        y: { label: words(state.y), type: logY ? "log" : "linear", nice: true, ticks: 7, tickFormat: (v) => text(state.y, v, 3) },
        fx: { label: words(state.p) },
        fy: { label: words(state.p) },
        color: state.c ? { type: "categorical", domain: order(drawn.map((each) => each.color)), range: COLORS, legend: true, label: words(state.c) } : {},
        marks: [
          Plot.ruleX(drawn.filter((each) => each.low !== null && (!logY || each.low > 0)), { x: "x", y1: "low", y2: "high", ...facet, stroke, strokeOpacity: 0.7 }),
          Plot.dot(drawn.filter((each) => !each.marks), { ...place, fill: stroke, stroke: "white", strokeWidth: 0.5, r: 4.5, ariaLabel: "title" }),
          Plot.dot(drawn.filter((each) => each.marks), { ...place, fill: "white", stroke, strokeWidth: 1.5, r: 4.2, ariaLabel: "title" }),
          Plot.tip(drawn, Plot.pointer({ ...place, title: "title", fontSize: 12, lineWidth: 34, maxRadius: 30 })),
        ],
      }),
    );
    document.documentElement.dataset.ready = "true";
  };
  const restore = () => {
    state = read();
    show();
  };
  if (!names.length) {
    said.textContent = "There is no record yet.";
    document.documentElement.dataset.ready = "true";
    return;
  }
  addEventListener("hashchange", restore);
  restore();
})();
