"use strict";
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const {columns, counted} = report;
  const $ = (id) => document.getElementById(id);
  const PAGE_ROWS = 50;

  // --- Text and numbers. Strings of the data reach the page through append() only, which makes text nodes.

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  function draw(tag, attributes = {}, ...children) {
    const node = document.createElementNS($("curve").namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const grouped = new Intl.NumberFormat("en");
  const whole = (value) => grouped.format(value);
  const words = {notation: "compact", compactDisplay: "long", maximumSignificantDigits: 3};
  const rounded = new Intl.NumberFormat("en", words);
  const about = (value) => (value < 1e6 ? whole(value) : rounded.format(value));
  const plural = (value, noun) => `${whole(value)} ${noun}${value === 1 ? "" : "s"}`;
  const twoDigits = new Intl.NumberFormat("en", {minimumSignificantDigits: 2, maximumSignificantDigits: 2});

  // Two significant digits of what is missing to 0 or to 100 %, never rounded to either.
  function percent(share) {
    if (share === null || Number.isNaN(share)) return "–";
    const value = 100 * share;
    if (value === 0 || value === 100) return `${value}\u202f%`;
    if (value > 0 && value < 0.0001) return "<\u202f0.0001\u202f%";
    if (value > 99 && value < 100) {
      const digits = Math.min(6, Math.max(1, 1 - Math.floor(Math.log10(100 - value))));
      return `${Math.min(value, 99.999999).toFixed(digits)}\u202f%`;
    }
    return `${value < 1 ? twoDigits.format(value) : value.toFixed(1)}\u202f%`;
  }
  const shareOf = (count) => (counted ? count / counted : null);
  function bytes(value) {
    const [unit, name] = value >= 1e9 ? [1e9, "GB"] : [1e6, "MB"];
    return `${(value / unit).toFixed(value >= 1e10 || value < 1e9 ? 1 : 2)}\u00a0${name}`;
  }

  // A token as nodes: what cannot be seen is named, and the direction of its script stays inside it.
  const NAMED = {" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"};
  const MEANT = Object.fromEntries(Object.entries(NAMED).map(([char, mark]) => [mark, char]));
  const HIDDEN = /<0x[89A-F][0-9A-F]>|[\p{C}\p{Z}\u034f\u115f\u1160\u3164\ufe00-\ufe0f]/gu;
  function tokenNodes(text) {
    const emoji = /\p{Extended_Pictographic}|[\u{1f1e6}-\u{1f1ff}\u20e3]/u.test(text);
    const box = make("bdi");
    let from = 0;
    for (const found of text.matchAll(HIDDEN)) {
      const piece = found[0];
      if (emoji && (piece === "\u200d" || piece === "\ufe0f" || piece.codePointAt(0) > 0xe0000)) continue;
      if (found.index > from) box.append(text.slice(from, found.index));
      const code = `U+${piece.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
      const shown = piece.length > 2 ? piece : NAMED[piece] ?? code;
      box.append(make("span", {class: piece === " " ? "mark space" : "mark"}, shown));
      from = found.index + piece.length;
    }
    const rest = text.slice(from);
    if (rest) box.append(/^\p{M}/u.test(rest) ? `◌${rest}` : rest);
    return box;
  }
  function stateNodes(stays) {
    return [make("i", {class: `swatch ${stays ? "kept" : "removed"}`}), stays ? "kept" : "removed"];
  }

  // --- Headline

  function fillHeadline() {
    const removed = report.tokens - report.kept;
    document.title = `${report.title} · vocabulary report`;
    $("title").append(report.title);
    $("command").append(report.command);
    $("lede").append(
      make("strong", {class: "kept-text"}, whole(report.kept)), ` of ${whole(report.tokens)} tokens stay`,
    );
    if (counted) {
      $("lede").append(
        " and cover ", make("strong", {}, percent(report.kept_counted / counted)),
        ` of the ${about(counted)} counted.`,
      );
    } else $("lede").append("; nothing was counted.");
    $("strip").setAttribute(
      "aria-label", `Kept tokens in the order of their ids: ${whole(report.kept)} of ${whole(report.tokens)}`,
    );
    const width = report.strip.length;
    $("strip").setAttribute("viewBox", `0 0 ${width} 1`);
    const steps = report.strip.map((share, at) => `M${at} 1v${-share}h1.02v${share}z`).join("");
    $("strip").append(
      draw("rect", {width, height: 1, fill: "var(--removed)"}),
      draw("path", {d: steps, fill: "var(--kept)"}),
    );
    const idAt = (row) => (columns.ids ? columns.ids[row] : row);
    $("strip-first").append(`token ${idAt(0) ?? 0}`);
    $("strip-last").append(`token ${whole(idAt(report.tokens - 1) ?? 0)}`);
    const parts = report.by_closure ? `, ${whole(report.by_closure)} of them only as parts of others` : "";
    $("legend-kept").append(`${whole(report.kept)} kept${parts}`);
    $("legend-removed").append(`${whole(removed)} removed`);
    const facts = [
      ["Tokens counted", counted ? whole(counted) : "none"],
      ["Kept", `${whole(report.kept)} (${percent(report.kept / report.tokens)})`],
      ["Removed", `${whole(removed)} (${percent(removed / report.tokens)})`],
      ...report.facts,
    ];
    $("facts").append(
      ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
  }

  // --- Coverage curve

  const FLOOR = 1e-5; // share not covered at which the logarithmic axis ends
  let cursor = null; // index of the point under the pointer

  function curveScales(width, height) {
    const box = {left: 66, right: width - 14, top: 16, bottom: height - 46};
    const log = document.querySelector("[name=x-scale]:checked").value === "log";
    const left = document.querySelector("[name=y-scale]:checked").value === "left";
    const all = Math.max(2, report.tokens);
    const across = (size) => (log ? Math.log(size) / Math.log(all) : size / all);
    const up = (share) => (left ? Math.log(Math.max(1 - share, FLOOR)) / Math.log(FLOOR) : share);
    return {
      box, log, left,
      x: (size) => box.left + across(size) * (box.right - box.left),
      y: (share) => box.bottom - up(share) * (box.bottom - box.top),
    };
  }
  function xTicks(log) {
    if (log) return [1, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((size) => size <= report.tokens);
    const unit = 10 ** Math.floor(Math.log10(report.tokens));
    const step = [unit / 5, unit / 2, unit].find((size) => report.tokens / size <= 8) ?? unit;
    return Array.from({length: Math.floor(report.tokens / step) + 1}, (_, at) => at * step);
  }
  function drawCurve() {
    const svg = $("curve"), {width, height} = svg.getBoundingClientRect();
    if (!report.curve.length || !width) return;
    const {box, log, left, x, y} = curveScales(width, height);
    const chosen = report.kept_counted / counted;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute(
      "aria-label",
      "Share of the corpus covered against vocabulary size; " +
        `the kept ${whole(report.kept)} tokens cover ${percent(chosen)}`,
    );
    svg.replaceChildren();
    const shares = left ? [0, 0.9, 0.99, 0.999, 0.9999, 0.99999] : [0, 0.2, 0.4, 0.6, 0.8, 1];
    for (const share of shares) {
      const missing = Number((100 * (1 - share)).toPrecision(2));
      const label = `${left && missing < 0.002 ? "≤ " : ""}${left ? missing : Math.round(100 * share)} %`;
      svg.append(
        draw("line", {class: "grid", x1: box.left, x2: box.right, y1: y(share), y2: y(share)}),
        draw("text", {x: box.left - 10, y: y(share) + 4.5, "text-anchor": "end"}, label),
      );
    }
    const compact = (size) => (width > 560 || size < 1000 ? whole(size) : `${size / 1000}k`);
    for (const size of xTicks(log)) {
      const anchor = x(size) > box.right - 20 ? "end" : "middle";
      svg.append(
        draw("line", {class: "axis", x1: x(size), x2: x(size), y1: box.bottom, y2: box.bottom + 5}),
        draw("text", {x: x(size), y: box.bottom + 20, "text-anchor": anchor}, compact(size)),
      );
    }
    const places = report.curve.map(([size, share]) => `${x(size).toFixed(1)} ${y(share).toFixed(1)}`);
    const line = `M${places.join("L")}`;
    svg.append(
      draw("text", {x: box.right, y: height - 4, "text-anchor": "end"}, "tokens, most counted first"),
      draw("path", {class: "area", d: `${line}V${box.bottom}H${x(report.curve[0][0]).toFixed(1)}Z`}),
      draw("path", {class: "line", d: line}),
    );
    const at = {x: x(report.kept), y: y(chosen)};
    const before = at.x > (box.left + box.right) / 2;
    svg.append(
      draw("path", {class: "guide", fill: "none", d: `M${box.left} ${at.y}H${at.x}V${box.bottom}`}),
      draw("circle", {class: "chosen", cx: at.x, cy: at.y, r: 7}),
      draw("text", {
        class: "chosen-label",
        x: at.x + (before ? -12 : 12),
        y: box.bottom - 16,
        "text-anchor": before ? "end" : "start",
      }, `kept: ${whole(report.kept)} · ${left ? `${percent(1 - chosen)} not covered` : percent(chosen)}`),
      draw("line", {id: "cursor", class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden"}),
      draw("circle", {id: "cursor-dot", class: "cursor-dot", r: 5, visibility: "hidden"}),
    );
    showPoint(cursor);
  }
  function showPoint(at) {
    cursor = at;
    const shown = at !== null;
    for (const id of ["cursor", "cursor-dot"]) $(id).setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) {
      $("curve-value").textContent =
        `The kept ${whole(report.kept)} tokens cover ${percent(report.kept_counted / counted)}; ` +
        `the ${whole(report.kept)} most counted ones would cover ${percent(report.best_share)}.`;
      return;
    }
    const {width, height} = $("curve").getBoundingClientRect();
    const {x, y} = curveScales(width, height), [size, share, count] = report.curve[at];
    for (const name of ["x1", "x2"]) $("cursor").setAttribute(name, x(size));
    $("cursor-dot").setAttribute("cx", x(size));
    $("cursor-dot").setAttribute("cy", y(share));
    $("curve-value").textContent = size === 1
      ? `The most counted token covers ${percent(share)}; it was counted ${plural(count, "time")}.`
      : `The ${whole(size)} most counted tokens cover ${percent(share)}; ` +
        `the last of them was counted ${plural(count, "time")}.`;
  }
  function nearestPoint(event) {
    const {left, width, height} = $("curve").getBoundingClientRect();
    const {x} = curveScales(width, height), place = event.clientX - left;
    const distance = ([size]) => Math.abs(x(size) - place);
    const distances = report.curve.map(distance);
    return distances.indexOf(Math.min(...distances));
  }
  function startCurve() {
    if (!report.curve.length) {
      $("coverage-text").append("Nothing was counted: the text of the tokens alone decided.");
      $("coverage").hidden = true;
      return;
    }
    const missed = counted - report.kept_counted;
    $("coverage-text").append(
      "The line is the best that any vocabulary of a size can do on this corpus: the most counted tokens first. " +
      `The dot is this choice. It leaves out ${plural(missed, "occurrence")} (${percent(shareOf(missed))}), ` +
      "which are then spelled in smaller pieces.",
    );
    for (const input of document.querySelectorAll("#coverage input")) input.addEventListener("change", drawCurve);
    const svg = $("curve"), last = report.curve.length - 1;
    svg.addEventListener("pointermove", (event) => showPoint(nearestPoint(event)));
    svg.addEventListener("pointerdown", (event) => showPoint(nearestPoint(event)));
    svg.addEventListener("pointerleave", () => showPoint(null));
    svg.addEventListener("blur", () => showPoint(null));
    svg.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowRight: 1, PageUp: 20, PageDown: -20, Home: -last, End: last}[event.key];
      if (!step) return;
      event.preventDefault();
      showPoint(Math.min(last, Math.max(0, (cursor ?? Math.round(last / 2)) + step)));
    });
    new ResizeObserver(drawCurve).observe(svg);
  }

  // --- Groups, largest removed tokens, sizes

  // titles: [text, class] per column; rows: nodes or strings per cell, the first one is the row's name.
  function table(titles, rows, className) {
    const head = titles.map(([text, kind]) => make("th", {scope: "col", role: "columnheader", class: kind}, text));
    const body = rows.map((cells) => make("tr", {role: "row"}, ...cells.map((cell, at) => {
      const attributes = at ? {role: "cell"} : {scope: "row", role: "rowheader"};
      if (titles[at][1]) attributes.class = titles[at][1];
      if (titles[at][2]) attributes["data-label"] = titles[at][2];
      return make(at ? "td" : "th", attributes, ...(Array.isArray(cell) ? cell : [cell]));
    })));
    return make(
      "table", {class: className, role: "table"},
      make("thead", {role: "rowgroup"}, make("tr", {role: "row"}, ...head)),
      make("tbody", {role: "rowgroup"}, ...body),
    );
  }
  function bar(parts, largest) {
    const track = make("div", {class: "track", "aria-hidden": "true"});
    for (const [name, value] of parts) {
      if (!value) continue;
      const piece = make("i", {class: name});
      piece.style.width = `${(100 * value) / largest}%`;
      track.append(piece);
    }
    return track;
  }
  const orZero = (value) => (value ? whole(value) : make("span", {class: "zero"}, "0"));
  function showGroups(id, groups, field, limit) {
    const largest = Math.max(...groups.map(([, kept, removed]) => kept + removed));
    const titles = [["Name", ""], ["", "bar"], ["Kept", "number"], ["Removed", "number"], ["Share", "number"]];
    const rowOf = ([name, kept, removed, keptCount, removedCount]) => {
      const wrapped = name.replaceAll("_", "_\u200b"); // a long name may be cut there
      const open = make("button", {type: "button", class: "link"}, wrapped);
      open.addEventListener("click", () => openTokens(field, name));
      const pieces = [["kept", kept], ["removed", removed]];
      const share = percent(shareOf(keptCount + removedCount));
      return [open, bar(pieces, largest), orZero(kept), orZero(removed), share];
    };
    const fill = (shown) => $(id).replaceChildren(table(titles, shown.map(rowOf), "narrow"));
    fill(groups.slice(0, limit));
    if (groups.length <= limit) return;
    const more = make("button", {type: "button", class: "link more"}, `Show all ${groups.length}`);
    more.addEventListener("click", () => {
      fill(groups);
      $(id).querySelectorAll("tbody button")[limit].focus();
    });
    $(id).append(more);
  }
  function showLargest() {
    const tokens = report.largest_removed;
    if (!tokens.length) {
      $("largest-text").append("No removed token was counted.");
      return;
    }
    const sum = tokens.reduce((total, token) => total + token[2], 0);
    $("largest-text").append(
      `These ${whole(tokens.length)} are ${percent(sum / (counted - report.kept_counted))} of all that was removed. ` +
      "Text that uses them can still be encoded, from smaller tokens, down to single bytes.",
    );
    const titles = [
      ["Token", "token"], ["Id", "number", "id"], ["Count", "number main"], ["Share", "number"], ["", "bar"],
      ["Script", ""], ["Why", ""],
    ];
    $("largest").append(table(titles, tokens.map(([id, text, count, , , script, reason]) => [
      tokenNodes(text), String(id), whole(count), percent(shareOf(count)),
      bar([["removed", count]], tokens[0][2]), script, reason,
    ]), "stacked largest"));
  }
  function showSizes() {
    const {old_rows: before, new_rows: after, share} = report.sizes[0];
    const fits = share !== null; // the tokenizer is the family's own
    const wider = report.sizes.find((size) => size.old_rows > before);
    const more = wider ? ` (${whole(wider.old_rows)} from ${wider.name} up)` : "";
    $("sizes-text").append(
      `Weights of the embeddings and the output head in bfloat16, for the sizes of ${report.family}. ` +
      "The smaller models use one matrix for both. " +
      (fits
        ? `Rows go from ${whole(before)}${more} to ${whole(after)}, the kept tokens rounded up to 64.`
        : `This is no tokenizer of ${report.family}: the old rows are its own ${whole(report.tokens)} tokens rounded up to 64, ` +
          `${whole(before)}, the new ones ${whole(after)}, and the other weights of its models are not known here.`),
    );
    const titles = [
      ["Model", ""], ["Matrices", "number", "matrices"], ["Before", "number", "before"],
      ["After", "number", "after"], ["", "bar"], ["Saved", "number main", "saves"],
      ...(fits ? [["Of the model", "number", "of the model"]] : []),
    ];
    $("sizes").append(table(titles, report.sizes.map((size) => [
      size.name, size.matrices === 1 ? "1, tied" : String(size.matrices),
      bytes(size.old_bytes), bytes(size.new_bytes),
      bar([["kept", size.new_bytes], ["removed", size.saved_bytes]], size.old_bytes), bytes(size.saved_bytes),
      ...(fits ? [percent(size.share)] : []),
    ]), "stacked sizes"));
  }

  // --- All tokens: filter, sort, one page of rows at a time

  const kinds = columns.kind_names; // [stays, category, script, reason]
  const total = columns.texts.length;
  const idOf = (row) => (columns.ids ? columns.ids[row] : row);
  const KIND_FIELDS = {state: 0, category: 1, script: 2, reason: 3};
  const kindTotals = kinds.map(() => 0);
  for (const kind of columns.kinds) kindTotals[kind] += 1;
  let sorting = {key: "count", descending: true}, rows = [], page = 0, lower = null;
  const orders = new Map();

  // Rows in the order of a column; equal ones by count, then by id.
  function order({key, descending}) {
    const name = `${key} ${descending}`;
    if (!orders.has(name)) {
      const {counts, texts} = columns, sign = descending ? -1 : 1;
      let values = {id: null, count: counts, token: texts}[key];
      if (values === undefined) {
        const named = kinds.map((kind) => kind[KIND_FIELDS[key]]);
        const sorted = [...new Set(named)].sort();
        values = columns.kinds.map((kind) => sorted.indexOf(named[kind]));
      }
      const compare = values === null
        ? (one, other) => sign * (one - other)
        : (one, other) => (values[one] === values[other]
          ? counts[other] - counts[one] || one - other
          : values[one] < values[other] ? -sign : sign);
      orders.set(name, Uint32Array.from({length: total}, (_, row) => row).sort(compare));
    }
    return orders.get(name);
  }
  function filters() {
    const [, first, last] = $("id-query").value.match(/^\s*#?(\d+)\s*(?:[-–]\s*(\d+))?\s*$/) ?? [];
    return {
      text: $("query").value.normalize("NFC").toLowerCase().replace(/[␣↵␍⇥]/g, (mark) => MEANT[mark]),
      state: document.querySelector("[name=state]:checked").value,
      category: $("category").value, script: $("script").value, reason: $("reason").value,
      badId: $("id-query").value.trim() !== "" && first === undefined,
      first: first === undefined ? -Infinity : Number(first),
      last: first === undefined ? Infinity : Number(last ?? first),
    };
  }
  const fits = (kind, wanted, except) => Object.entries(KIND_FIELDS).every(
    ([field, at]) => field === except || wanted[field] === "" || String(kind[at]) === wanted[field],
  );
  // Each list shows how many tokens a choice would leave beside the other choices.
  function fillChoices(wanted) {
    for (const field of ["script", "category", "reason"]) {
      const sums = new Map();
      kinds.forEach((kind, at) => {
        const name = kind[KIND_FIELDS[field]];
        if (fits(kind, wanted, field)) sums.set(name, (sums.get(name) ?? 0) + kindTotals[at]);
      });
      if (wanted[field] && !sums.has(wanted[field])) sums.set(wanted[field], 0);
      const sorted = [...sums].sort((one, other) => other[1] - one[1]);
      $(field).replaceChildren(
        make("option", {value: ""}, "Any"),
        ...sorted.map(([name, sum]) => make("option", {value: name}, `${name} (${whole(sum)})`)),
      );
      $(field).value = wanted[field];
    }
  }
  function search() {
    const wanted = filters();
    fillChoices(wanted);
    const allowed = kinds.map((kind) => fits(kind, wanted));
    if (wanted.text && !lower) lower = columns.texts.map((text) => text.toLowerCase());
    rows = [];
    let occurrences = 0;
    if (!wanted.badId) {
      for (const row of order(sorting)) {
        if (!allowed[columns.kinds[row]] || (wanted.text && !lower[row].includes(wanted.text))) continue;
        if (idOf(row) < wanted.first || idOf(row) > wanted.last) continue;
        rows.push(row);
        occurrences += columns.counts[row];
      }
    }
    $("found").textContent = wanted.badId
      ? "Give an id such as 3837, or a range such as 0-255."
      : `${plural(rows.length, "token")}, ${percent(shareOf(occurrences))} of everything counted`;
    showPage(0);
  }
  const TITLES = [
    ["token", "Token", "23%"], ["id", "Id", "8%"], ["count", "Count", "12%"], ["count", "Share", "9%"],
    ["state", "State", "9%"], ["script", "Script", "10%"], ["category", "Category", "13%"], ["reason", "Rule", "16%"],
  ];
  function fillTitles() {
    const titles = TITLES.map(([key, text, width]) => {
      const number = ["Id", "Count", "Share"].includes(text);
      const cell = make("th", {scope: "col", role: "columnheader", class: number ? "number" : ""});
      cell.style.width = width;
      if (text === "Share") {
        cell.append(text);
        return cell;
      }
      if (sorting.key === key) cell.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
      const button = make("button", {type: "button", "data-sort": key}, text);
      button.addEventListener("click", () => {
        sorting = {key, descending: sorting.key === key ? !sorting.descending : key === "count"};
        fillTitles();
        search();
        document.querySelector(`[data-sort=${key}]`).focus();
      });
      cell.append(button);
      return cell;
    });
    $("table").tHead.replaceChildren(make("tr", {role: "row"}, ...titles));
  }
  function showPage(wanted) {
    const last = Math.max(0, Math.ceil(rows.length / PAGE_ROWS) - 1);
    page = Math.min(last, Math.max(0, wanted));
    const shown = rows.slice(page * PAGE_ROWS, (page + 1) * PAGE_ROWS);
    $("table").tBodies[0].replaceChildren(...shown.map((row) => {
      const [stays, category, script, reason] = kinds[columns.kinds[row]], count = columns.counts[row];
      const cell = (kind, ...content) => make("td", {role: "cell", class: kind}, ...content);
      const id = cell("number", String(idOf(row)));
      id.setAttribute("data-label", "id");
      return make(
        "tr", {role: "row"},
        make("th", {scope: "row", role: "rowheader", class: "token"}, tokenNodes(columns.texts[row])),
        id, cell("number main", whole(count)), cell("number", percent(shareOf(count))),
        cell("state", ...stateNodes(stays)), cell("", script), cell("", category), cell("", reason),
      );
    }));
    $("page").value = page + 1;
    $("page-count").textContent = `of ${whole(last + 1)}`;
    $("first").disabled = $("previous").disabled = page === 0;
    $("next").disabled = $("last").disabled = page === last;
  }
  function openTokens(field, name) {
    $("filters").reset();
    fillChoices(filters());
    $(field).value = name;
    search();
    $("tokens").scrollIntoView();
    $("tokens").focus({preventScroll: true});
  }
  function startTokens() {
    let waiting = 0;
    $("filters").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(search, 80);
    });
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("filters").addEventListener("reset", () => setTimeout(search));
    $("first").addEventListener("click", () => showPage(0));
    $("previous").addEventListener("click", () => showPage(page - 1));
    $("next").addEventListener("click", () => showPage(page + 1));
    $("last").addEventListener("click", () => showPage(Infinity));
    $("page").addEventListener("change", () => showPage((Number.parseInt($("page").value, 10) || 1) - 1));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
      event.preventDefault();
      $("query").focus();
      $("query").select();
    });
    fillTitles();
    search();
  }

  fillHeadline();
  startCurve();
  showGroups("by-script", report.by_script, "script", 22);
  showGroups("by-category", report.by_category, "category", 10);
  showGroups("by-reason", report.by_reason, "reason", 12);
  showLargest();
  showSizes();
  startTokens();
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // ms until it can be used
})();
