// One agent in every plot, the methods that are chosen, tables that sort. All data are those of the page: the
// CSV behind "Returns over the population" (agent, two coordinates, then a column of returns for each method).
(() => {
  "use strict";
  const WIDTH = 440, HEIGHT = 300, LEFT = 58, RIGHT = 12, TOP = 12, BOTTOM = 44;
  const root = document.getElementById("explore");
  const colours = JSON.parse(root.dataset.colours); // of methods, as in the figures
  const link = document.querySelector('a[download="maps.csv"]');

  const lines = decodeURIComponent(link.href.slice(link.href.indexOf(",") + 1)).trim().split("\n")
    .map(line => [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(m => (m[1] ?? m[2]).replaceAll('""', '"')));
  const [, xName, yName, ...names] = lines[0];
  const agents = lines.slice(1).map(([id, x, y, ...returns]) => ({id, x: +x, y: +y, returns: returns.map(Number)}));
  const tenth = Math.ceil(agents.length / 10);
  const sorted = names.map((_, m) => [...agents].sort((a, b) => a.returns[m] - b.returns[m]));
  let chosen = names.map(() => true), coloured = 0, pinned = null;

  const make = (tag, attributes = {}, text = "") => {
    const svg = ["svg", "circle", "line", "text", "polyline", "g"].includes(tag);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const short = value => Number(value.toPrecision(4)).toLocaleString("en");
  const range = values => {
    const low = Math.min(...values), high = Math.max(...values), room = (high - low || 1) * 0.04;
    return [low - room, high + room];
  };
  const scale = ([low, high], from, to) => value => from + (value - low) / (high - low) * (to - from);
  const methods = () => names.map((_, m) => m).filter(m => chosen[m]);
  const all = range(agents.flatMap(agent => agent.returns));

  function panel(name, xRange, yRange, xLabel, yLabel) {
    const svg = make("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name, "data-panel": name});
    const across = scale(xRange, LEFT, WIDTH - RIGHT), up = scale(yRange, HEIGHT - BOTTOM, TOP);
    const ticks = ([low, high]) => { // round numbers: a step is 1, 2 or 5 times a power of ten
      const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
      const step = power * [1, 2, 5, 10].find(times => times * power >= rough);
      const from = Math.ceil(low / step);
      return Array.from({length: Math.floor(high / step) - from + 1}, (_, i) => (from + i) * step);
    };
    for (const tick of ticks(yRange)) {
      svg.append(make("line", {x1: LEFT, x2: WIDTH - RIGHT, y1: up(tick), y2: up(tick), class: "grid"}));
      svg.append(make("text", {x: LEFT - 6, y: up(tick) + 4, "text-anchor": "end"}, short(tick)));
    }
    if (name !== "methods") for (const tick of ticks(xRange))
      svg.append(make("text", {x: across(tick), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle"}, short(tick)));
    svg.append(make("text", {x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle"}, xLabel));
    svg.append(make("text", {
      transform: `translate(12 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle"}, yLabel));
    const point = (agent, x, y, colour, method) => svg.append(make("circle", {
      cx: across(x), cy: up(y), r: 4, fill: colour, "data-agent": agent.id, "data-method": method}));
    return {svg, across, up, point};
  }

  function ranks() {
    const drawn = panel("sorted", [-2, 102], all, "per cent of the agents, lowest return first", "return");
    for (const m of methods())
      sorted[m].forEach((agent, i) => drawn.point(
        agent, (i + 0.5) / agents.length * 100, agent.returns[m], colours[names[m]], names[m]));
    return drawn.svg;
  }

  function plane() {
    const drawn = panel("plane", range(agents.map(a => a.x)), range(agents.map(a => a.y)), xName, yName);
    const [low, high] = range(agents.map(agent => agent.returns[coloured]));
    for (const agent of agents) {
      const share = (agent.returns[coloured] - low) / (high - low);
      drawn.point(agent, agent.x, agent.y, `hsl(${270 - 215 * share} 65% ${28 + 32 * share}%)`, names[coloured]);
    }
    return drawn.svg;
  }

  function strips() {
    const shown = methods();
    const drawn = panel("methods", [-0.6, shown.length - 0.4], all, "", "return");
    shown.forEach((m, at) => {
      agents.forEach((agent, i) => drawn.point(
        agent, at + ((i * 0.618) % 1 - 0.5) * 0.4, agent.returns[m], colours[names[m]], names[m]));
      drawn.svg.append(make("text", { // in two rows, for names are long
        x: drawn.across(at), y: HEIGHT - BOTTOM + 17 + at % 2 * 15, "text-anchor": "middle"}, names[m]));
    });
    return drawn.svg;
  }

  function show(id) {
    for (const circle of root.querySelectorAll("circle")) {
      const hot = circle.dataset.agent === id;
      circle.classList.toggle("hot", hot);
      circle.setAttribute("r", hot ? 8 : 4);
      if (hot) circle.parentNode.append(circle); // on top
    }
    const agent = agents.find(one => one.id === id);
    number.value = agent ? id : "";
    told.textContent = agent
      ? `Agent ${id} (${xName} ${short(agent.x)}, ${yName} ${short(agent.y)}): ` + methods().map(m => {
        const place = sorted[m].indexOf(agent);
        return `${names[m]} ${short(agent.returns[m])}${place < tenth ? " (worst tenth)" : ""}`;
      }).join("; ")
      : "Point at an agent, or give its number.";
  }

  function draw() {
    plots.replaceChildren(ranks(), strips(), plane());
    worst.replaceChildren(...methods().map(m => {
      const item = make("li", {}, `${names[m]}: `);
      sorted[m].slice(0, tenth).forEach(agent => {
        const button = make("button", {type: "button", "data-agent": agent.id}, agent.id);
        button.title = short(agent.returns[m]);
        item.append(button, " ");
      });
      return item;
    }));
    show(pinned);
  }

  const choices = make("p", {class: "choices"});
  names.forEach((name, m) => {
    const label = make("label"), box = make("input", {type: "checkbox", value: name, checked: ""});
    box.addEventListener("change", () => {
      chosen[m] = box.checked;
      if (!chosen.includes(true)) chosen[m] = box.checked = true; // one is always shown
      draw();
    });
    label.append(box, make("span", {style: `background: ${colours[names[m]]}`}), name);
    choices.append(label);
  });
  const settings = make("p", {class: "choices"});
  const number = make("input", {type: "number", min: 0, max: agents.length - 1, "aria-label": "number of an agent"});
  number.addEventListener("input", () => { pinned = number.value || null; show(pinned); });
  const select = make("select", {"aria-label": "method whose returns colour the plane"});
  names.forEach((name, m) => select.append(make("option", {value: m}, name)));
  select.addEventListener("change", () => { coloured = +select.value; draw(); });
  const first = make("label", {}, "agent "), second = make("label", {}, "colours of the plane: ");
  first.append(number); second.append(select); settings.append(first, second);
  const told = make("p", {class: "told", "aria-live": "polite"}), plots = make("div", {class: "plots"});
  const worst = make("ul", {class: "worst"});
  root.append(choices, settings, told, plots, make("h3", {}, `The worst tenth: ${tenth} agents of each method`), worst);

  const agentAt = event => event.target.closest("[data-agent]")?.dataset.agent ?? null;
  root.addEventListener("pointerover", event => { if (agentAt(event)) show(agentAt(event)); });
  root.addEventListener("pointerout", event => { if (agentAt(event)) show(pinned); });
  root.addEventListener("click", event => {
    const id = agentAt(event);
    if (id) { pinned = id === pinned ? null : id; show(pinned); }
  });
  draw();

  // Tables sort by a column: numbers by their size, the rest as text; a second click turns the order round.
  for (const table of document.querySelectorAll(".wide table")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.title = "sort";
      const sort = () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = row => {
          const text = row.cells[column].textContent.replaceAll(",", ""), value = parseFloat(text);
          return Number.isNaN(value) ? text : value;
        };
        const compare = (a, b) => {
          const [one, other] = [key(a), key(b)];
          if (typeof one !== typeof other) return typeof one === "string" ? 1 : -1; // text behind numbers
          const order = typeof one === "string" ? one.localeCompare(other) : one - other;
          return down ? -order : order;
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
    });
  }
})();
