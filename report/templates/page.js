"use strict";
// The report's page: tables that sort, filter, fold and download; figures whose points lead to rows; records to look at.
// Without this script the page shows everything, and its links lead to the files beside it.
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, attributes = {}, text = "") => {
    const made = Object.assign(document.createElement(tag), attributes);
    if (text) made.textContent = text;
    return made;
  };
  const narrow = matchMedia("(max-width: 44rem)");
  const json = (id) => JSON.parse(document.getElementById(id).textContent);

  // -- what the page carries along, compressed -------------------------------------------------------------------------

  const unpacked = {};
  const unpack = async (name) => {
    if (!unpacked[name]) {
      const bytes = Uint8Array.from(atob(document.getElementById(`packed:${name}`).textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      unpacked[name] = JSON.parse(await new Response(stream).text());
    }
    return unpacked[name];
  };
  const save = (text, name, type) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const paths = json("record-paths");
  const dialog = document.getElementById("record");
  const showRecord = async (number) => {
    const path = paths[number];
    const text = (await unpack(path.slice(0, path.lastIndexOf("/"))))[path];
    dialog.querySelector("h2").textContent = path;
    dialog.querySelector("pre").textContent = text;
    dialog.querySelector(".save").onclick = () => save(text, path.slice(path.lastIndexOf("/") + 1), "application/json");
    dialog.showModal();
    dialog.querySelector("pre").scrollTop = 0;
  };
  dialog.querySelector(".close").onclick = () => dialog.close();
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-record]");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    showRecord(Number(link.dataset.record));
  });

  // -- tables ----------------------------------------------------------------------------------------------------------

  const rowsOf = (block) => all("tbody tr", block);
  const compare = (place, sign) => (a, b) => {
    const [x, y] = [a.cells[place], b.cells[place]];
    const [u, v] = [x.dataset.sort, y.dataset.sort];
    if (u !== undefined && v !== undefined) return sign * (Number(u) - Number(v));
    if (u !== undefined || v !== undefined) return u !== undefined ? -1 : 1; // what has no value comes last
    return sign * x.textContent.localeCompare(y.textContent, "en", { numeric: true });
  };

  const addSorting = (block, initial, tools) => {
    // Where rows stand below each other there are no headings to press.
    const label = make("label", { className: "by" }, "sort by ");
    const select = make("select");
    select.append(make("option", { value: "" }, "–"));
    label.append(select);
    tools.append(label);
    select.onchange = () => all("thead th", block)[select.value]?.querySelector("button").click();
    all("thead th", block).forEach((heading, place) => {
      if (heading.classList.contains("record")) return;
      select.append(make("option", { value: place }, heading.textContent));
      const button = make("button", { type: "button", className: "sort", title: "sort" });
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.onclick = () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")];
        all("thead th[aria-sort]", block).forEach((each) => each.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", next);
        const rows = next === "none" ? initial : [...initial].sort(compare(place, next === "ascending" ? 1 : -1));
        block.querySelector("tbody").append(...rows);
      };
    });
  };

  const filter = (block) => {
    const chosen = all("select[name]", block).filter((each) => each.value).map((each) => [each.name, each.value]);
    const rows = rowsOf(block);
    rows.forEach((row) => {
      const values = JSON.parse(row.dataset.values);
      row.hidden = !chosen.every(([key, value]) => values[key] === value);
    });
    const shown = rows.filter((row) => !row.hidden).length;
    const said = block.querySelector(".count");
    if (said) said.textContent = chosen.length ? `${shown} of ${rows.length} rows` : "";
  };

  const addFilters = (block, tools) => {
    const names = Object.entries(JSON.parse(block.dataset.filters));
    for (const [key, words] of names) {
      const label = make("label", {}, `${words} `);
      const select = make("select", { name: key });
      const values = new Set(rowsOf(block).map((row) => JSON.parse(row.dataset.values)[key]));
      select.append(make("option", { value: "" }, "all"));
      select.append(...[...values].map((value) => make("option", { value }, value)));
      select.onchange = () => filter(block);
      label.append(select);
      tools.append(label);
    }
    if (names.length) {
      const said = make("span", { className: "count" });
      said.setAttribute("role", "status");
      tools.append(said);
    }
  };

  // Hide columns, the least important ones first, until the table fits; a button shows them all.
  const fit = (block) => {
    const [scroll, table] = [block.querySelector(".scroll"), block.querySelector("table")];
    if (!scroll.clientWidth) return; // inside something that is closed
    const hide = (place, on) => all("tr", table).forEach((row) => row.cells[place].classList.toggle("folded", on));
    const order = block.dataset.fold.split(" ").filter(Boolean).map(Number);
    order.forEach((place) => hide(place, false));
    const button = block.querySelector(".more");
    const folded = [];
    if (narrow.matches) folded.push(...block.dataset.secondary.split(" ").filter(Boolean).map(Number));
    else {
      const queue = [...order];
      while (table.scrollWidth > scroll.clientWidth + 1 && queue.length) {
        folded.push(queue.shift());
        hide(folded.at(-1), true);
      }
    }
    const open = button.getAttribute("aria-expanded") === "true";
    order.forEach((place) => hide(place, !open && folded.includes(place)));
    const names = folded.map((place) => table.tHead.rows[0].cells[place].textContent.trim());
    button.hidden = !folded.length;
    button.title = names.join(", ");
    const columns = `${folded.length} column${folded.length === 1 ? "" : "s"}`;
    button.textContent = open ? `Hide ${columns}` : `Show ${columns} more`;
  };

  const blocks = all(".table");
  for (const block of blocks) {
    const initial = rowsOf(block);
    const tools = make("div", { className: "tools" });
    if (initial.length > 1) addSorting(block, initial, tools);
    addFilters(block, tools);
    const more = make("button", { type: "button", className: "more", hidden: true });
    more.setAttribute("aria-expanded", "false");
    more.onclick = () => {
      more.setAttribute("aria-expanded", String(more.getAttribute("aria-expanded") !== "true"));
      fit(block);
    };
    const download = make("button", { type: "button", className: "download" }, "csv");
    download.setAttribute("aria-label", "download as csv");
    download.onclick = async () => {
      const [heading, ...lines] = (await unpack("csv"))[block.id];
      const shown = rowsOf(block).filter((row) => !row.hidden).map((row) => lines[initial.indexOf(row)]);
      save([heading, ...shown].join(""), `${block.id}.csv`, "text/csv");
    };
    tools.append(more, download);
    block.prepend(tools);
  }
  const fitAll = () => blocks.forEach(fit);
  let width = 0;
  new ResizeObserver(() => {
    if (width !== innerWidth) {
      width = innerWidth;
      fitAll();
    }
  }).observe(document.documentElement);
  all("details").forEach((each) => each.addEventListener("toggle", () => all(".table", each).forEach(fit)));

  // -- figures ---------------------------------------------------------------------------------------------------------

  const tip = document.getElementById("tip");
  const REACH = 14; // pixels around a point
  const nearest = (drawing, x, y) => {
    let found = null;
    let best = REACH;
    for (const point of all(".point", drawing)) {
      const box = point.getBoundingClientRect();
      const [dx, dy] = [Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom)];
      const inside = Math.hypot(x - (box.left + box.right) / 2, y - (box.top + box.bottom) / 2) / 1e6;
      if (Math.hypot(dx, dy) + inside < best) [found, best] = [point, Math.hypot(dx, dy) + inside];
    }
    return found;
  };
  let current = null;
  const showTip = (point, x, y) => {
    current?.classList.remove("on");
    current = point;
    tip.hidden = !point;
    if (!point) return;
    point.classList.add("on");
    tip.textContent = point.dataset.tip + (point.dataset.row ? " (click: its row)" : "");
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, y - tip.offsetHeight - 12)}px`;
  };
  const leave = () => showTip(null);

  // A row may be folded away, filtered out, or in a column that is not shown.
  const showRow = (id) => {
    const row = document.getElementById(id);
    if (!row) return;
    for (let each = row.closest("details"); each; each = each.parentElement.closest("details")) each.open = true;
    const block = row.closest(".table");
    if (block && row.hidden) {
      all("select[name]", block).forEach((each) => (each.value = ""));
      filter(block);
    }
    all("tr.target").forEach((each) => each.classList.remove("target"));
    if (row.tagName === "TR") row.classList.add("target");
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" });
  };
  const follow = (point) => {
    if (!point?.dataset.row) return;
    leave();
    history.pushState(null, "", `#${point.dataset.row}`);
    showRow(point.dataset.row);
  };

  for (const drawing of all(".drawing")) {
    const points = all(".point", drawing);
    drawing.addEventListener("pointermove", (event) => {
      const point = event.target.closest(".point") ?? nearest(drawing, event.clientX, event.clientY);
      showTip(point, event.clientX, event.clientY);
      drawing.style.cursor = point?.dataset.row ? "pointer" : "";
    });
    drawing.addEventListener("pointerleave", leave);
    drawing.addEventListener("click", (event) =>
      follow(event.target.closest(".point") ?? nearest(drawing, event.clientX, event.clientY)),
    );
    drawing.addEventListener("focusin", (event) => {
      const box = event.target.closest(".point")?.getBoundingClientRect();
      if (box) showTip(event.target.closest(".point"), box.right, box.top);
    });
    drawing.addEventListener("focusout", leave);
    drawing.addEventListener("keydown", (event) => {
      const place = points.indexOf(event.target.closest(".point"));
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (place >= 0 && step) {
        event.preventDefault();
        points[(place + step + points.length) % points.length].focus();
      } else if (place >= 0 && event.key === "Enter") follow(points[place]);
      else if (event.key === "Escape") leave();
    });
  }

  // -- the whole page --------------------------------------------------------------------------------------------------

  const toHash = () => location.hash && showRow(decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", toHash);
  addEventListener("popstate", toHash);
  const contents = document.getElementById("contents");
  const wide = matchMedia("(min-width: 70rem)");
  const openContents = () => (contents.open = wide.matches);
  wide.addEventListener("change", openContents);
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("main details:not([open])");
    closed.forEach((each) => (each.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((each) => (each.open = false)));
  openContents();
  fitAll();
  if (location.hash) toHash();
  document.documentElement.dataset.ready = "true";
})();
