const UNSURE = 0.5; // as marked in the text
const UNITS = { snr: "\u00a0dB", duration: "\u00a0s", clipping: "%", silence: "%", face_share: "%", face_size: "%", brightness: "%", sharpness: "" };
const ABOUT_MEDIA = { snr: "signal-to-noise ratio", face_share: "frames with a face", face_size: "face size" };

function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

const bdi = (text) => make("bdi", "", text); // keeps right-to-left text from reordering its surroundings
const colourOf = (emotion) => `e${LABELS.indexOf(emotion)}`;
const emotionMark = (emotion) => make("span", "emotion", make("span", `colour ${colourOf(emotion)}`), bdi(emotion));
const percent = (share) => `${(100 * share).toFixed(0)}%`;

function gauge(className, left, width) {
  const filled = make("i");
  filled.style.left = `${left}%`;
  filled.style.width = `${width}%`;
  return make("div", `gauge ${className}`, filled);
}

function makeButton(className, choose, ...content) {
  const button = make("button", className, ...content);
  button.type = "button";
  button.addEventListener("click", choose);
  return button;
}

function clock(seconds) {
  const rest = (seconds % 60).toFixed(1).padStart(4, "0");
  return `${Math.floor(seconds / 60)}:${rest}`;
}

function scoresOf(utterance) {
  const ranked = Object.entries(utterance.scores).sort((one, other) => other[1] - one[1]);
  return make("ul", "scores", ...ranked.map(([label, score]) =>
    make("li", "", emotionMark(label), gauge(colourOf(label), 0, 100 * score), make("span", "number", score.toFixed(2)))));
}

function measuresOf(quality) {
  return Object.entries(quality).map(([name, value]) => {
    const unit = UNITS[name];
    const said = unit === "%" ? percent(value) : `${value.toPrecision(3)}${unit}`;
    return `${ABOUT_MEDIA[name] || name} ${said}`;
  }).join(", ");
}

function shareOf(explanation, stream, share) {
  const item = make("li", "share");
  if (share === null) {
    item.append(make("b", "", stream), " is the only stream; without it there is no label.");
  } else {
    const left = 50 + 50 * Math.min(share, 0);
    const signed = (share < 0 ? "\u2212" : "+") + Math.abs(share).toFixed(2);
    item.append(make("div", "scores", make("b", "", stream), gauge("both", left, 50 * Math.abs(share)), make("span", "number", signed)));
    item.append(make("div", "soft", "without it: ", bdi(explanation.emotion_without[stream])));
  }
  if (explanation.reliability) item.append(make("div", "soft", `trust: ${percent(explanation.reliability[stream])}`));
  const measures = measuresOf(explanation.quality[stream] || {});
  if (measures) item.append(make("div", "soft", measures));
  return item;
}

function sharesOf(explanation) {
  const shares = Object.entries(explanation.contributions).map(([stream, share]) => shareOf(explanation, stream, share));
  const missing = Object.entries(explanation.missing).map(([stream, reason]) =>
    make("li", "share", make("b", "", stream), make("span", "soft", " is missing: ", bdi(reason))));
  return make("ul", "", ...shares, ...missing);
}

function attendedOf(explanation, utterances, choose) {
  if (explanation.attended === null) return make("p", "soft", "This model has no attention weights to show.");
  if (!explanation.attended.length) return make("p", "soft", "None.");
  return make("ul", "", ...explanation.attended.map(({ turn, weight }) => {
    const { speaker, text } = utterances[turn];
    const share = make("b", "", weight < 0.005 ? "below 1% " : `${percent(weight)} `);
    return make("li", "", makeButton("source", () => choose(turn), share, bdi(speaker), ": ", bdi(text || "(no text)")));
  }));
}

// What was recognised, for those who cannot point at the underlined words.
function recognisedOf({ words, text_confidence, overlap, corrected }) {
  const unsure = (words || []).filter(({ probability }) => !corrected && probability < UNSURE).map(({ word, probability }) => `${word.trim()} ${percent(probability)}`);
  const said = [
    text_confidence !== null && !corrected && `The text was recognised with confidence ${percent(text_confidence)}.`,
    unsure.length && `Unsure of: ${unsure.join(", ")}.`,
    overlap && `Others speak in ${percent(overlap)} of this utterance.`,
  ].filter(Boolean).join(" ");
  return said ? [make("p", "soft", bdi(said))] : [];
}

function fillCard([head, details], utterances, turn, { quote, choose, close }) {
  const { speaker, start, end, label, emotion, reasons, explanation } = utterances[turn];
  const closing = makeButton("close", close, "\u00d7");
  closing.setAttribute("aria-label", "Close");
  const times = [start, end].filter((time) => time !== null).map(clock).join(" to ");
  head.replaceChildren(closing, make("h3", "", bdi(speaker), make("span", "soft", `, utterance ${turn + 1}${times && `, ${times}`}`)));
  const parts = [quote, ...recognisedOf(utterances[turn])];
  if (explanation === null) {
    parts.push(make("p", "soft", "The model cannot use any stream of this utterance, so it gives no label."));
  } else {
    parts.push(make("p", "label", emotion === null ? "The model is not sure, so it gives no label." : emotionMark(emotion)));
    if (label !== null) parts.push(make("p", "soft", "label in the data: ", bdi(label)));
    parts.push(make("h4", "", "Probabilities"), scoresOf(utterances[turn]));
    parts.push(make("h4", "", "Contribution of each stream"), sharesOf(explanation));
    parts.push(make("h4", "", "Earlier utterances attended to"), attendedOf(explanation, utterances, choose));
  }
  if (reasons.length) parts.push(make("h4", "", "Why to doubt this"), make("ul", "", ...reasons.map((each) => make("li", "", bdi(each)))));
  details.replaceChildren(...parts);
  details.parentElement.scrollTop = 0;
}

function keepInView(box, element) {
  if (box.scrollWidth > box.clientWidth) {
    const inside = element.getBoundingClientRect().left - box.getBoundingClientRect().left;
    if (inside < 0 || inside > box.clientWidth - 110) box.scrollLeft += inside - box.clientWidth / 3;
  }
  if (box.scrollHeight > box.clientHeight + 4 && getComputedStyle(box).overflowY === "auto") {
    const inside = element.getBoundingClientRect().top - box.getBoundingClientRect().top;
    if (inside < 40 || inside > box.clientHeight - 60) box.scrollTop += inside - box.clientHeight / 3;
  }
}

function start(section) {
  const utterances = JSON.parse(section.querySelector("script").textContent);
  const [scroll, timeline, box, body, card] = [".scroll", ".timeline", ".rows", ".transcript tbody", ".card"].map((each) => section.querySelector(each));
  const buttons = [...timeline.querySelectorAll("button")].sort((one, other) => one.dataset.turn - other.dataset.turn);
  const rows = [...body.rows];
  const parts = [make("div"), make("div", "", ...card.childNodes)];
  const player = "plays" in section.dataset ? startPlayer(utterances) : null;
  card.append(parts[0], ...(player ? [player.box] : []), parts[1]);
  let found = [...utterances.keys()];
  let chosen = null;
  let marked = [];

  function show(turn) {
    for (const [element, name] of marked) element.classList.remove(name);
    marked = [[buttons[turn], "chosen"], [rows[turn], "chosen"]];
    for (const { turn: earlier, weight } of (utterances[turn].explanation || {}).attended || []) {
      if (weight >= 0.01) marked.push([buttons[earlier], "attended"], [rows[earlier], "attended"]);
    }
    for (const [element, name] of marked) element.classList.add(name);
    fillCard(parts, utterances, turn, { quote: corrections.quote(turn), choose, close });
  }

  function choose(turn) {
    for (const button of timeline.querySelectorAll("[tabindex='0']")) button.tabIndex = -1;
    buttons[turn].tabIndex = 0;
    chosen = turn;
    player?.choose(turn);
    for (const open of document.querySelectorAll(".card.open")) open.classList.remove("open");
    card.classList.add("open");
    show(turn);
    keepInView(scroll, buttons[turn]);
    keepInView(box, rows[turn]);
  }

  function jump(turn) {
    choose(turn);
    rows[turn].scrollIntoView({ block: "nearest" });
  }

  function close() {
    card.classList.remove("open");
    buttons[chosen].focus({ preventScroll: true });
  }

  function narrow(turns) {
    found = turns;
    const kept = new Set(turns);
    rows.forEach((row, turn) => { row.hidden = !kept.has(turn); });
    buttons.forEach((button, turn) => button.classList.toggle("other", !kept.has(turn)));
    if (turns.length && !kept.has(chosen)) {
      for (const button of buttons) button.tabIndex = button === buttons[turns[0]] ? 0 : -1;
    }
  }

  const turnOf = (event) => event.target.closest("[data-turn]")?.dataset.turn;
  for (const list of [timeline, body]) {
    list.addEventListener("click", (event) => {
      if (!turnOf(event)) return;
      choose(Number(turnOf(event)));
      player?.restart();
    });
  }
  const busy = () => correcting() || player?.playing();
  timeline.addEventListener("mouseover", (event) => turnOf(event) && !busy() && show(Number(turnOf(event))));
  timeline.addEventListener("mouseleave", () => chosen !== null && !busy() && show(chosen));
  timeline.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && choose(Number(turnOf(event))));
  timeline.addEventListener("keydown", (event) => {
    const here = Number(turnOf(event));
    const after = () => found.find((turn) => turn > here);
    const before = () => found.findLast((turn) => turn < here);
    const next = { ArrowRight: after, ArrowDown: after, ArrowLeft: before, ArrowUp: before, Home: () => found[0], End: () => found.at(-1) }[event.key];
    if (!next) return;
    event.preventDefault();
    buttons[next() ?? here].focus({ preventScroll: true });
  });
  buttons[0].tabIndex = 0;
  startRibbon(section.querySelector(".ribbon"), scroll);
  const refind = startFind(section.querySelector(".find"), utterances, { narrow, jump, current: () => chosen });
  startSummary(section.querySelector(".summary"), utterances, { jump, current: () => chosen });
  const update = () => chosen !== null && show(chosen);
  const corrections = startCorrections(section, utterances, { buttons, rows, jump, renamed: () => { refind(); update(); } });
  return { update, corrected: corrections.corrected };
}

// The next of these turns after the current one (or before it); wraps around at the end.
function following(turns, current, back = false) {
  if (back) return turns.findLast((turn) => current !== null && turn < current) ?? turns.at(-1);
  return turns.find((turn) => current === null || turn > current) ?? turns[0];
}

const plain = (text) => (text || "").normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

function startFind(bar, utterances, { narrow, jump, current }) {
  const [search, bySpeaker, byEmotion, output] = ["input", ".by-speaker", ".by-emotion", "output"].map((each) => bar.querySelector(each));
  let found = [...utterances.keys()];

  function fill(select, name) {
    const values = [...new Set(utterances.map((utterance) => utterance[name]))];
    const before = Math.max(select.selectedIndex, 0);
    select.replaceChildren(make("option", "", "All"), ...values.map((value) => make("option", "", value ?? "no emotion")));
    for (const option of select.options) option.dir = "auto";
    select.selectedIndex = before < select.length ? before : 0;
    return (utterance) => !select.selectedIndex || utterance[name] === values[select.selectedIndex - 1];
  }

  const fillBoth = () => [fill(bySpeaker, "speaker"), fill(byEmotion, "emotion")];
  let tests = fillBoth();

  function filter() {
    const wanted = plain(search.value.trim());
    found = [...utterances.keys()].filter((turn) => plain(utterances[turn].text).includes(wanted) && tests.every((test) => test(utterances[turn])));
    output.textContent = found.length < utterances.length ? `${found.length} of ${utterances.length} utterances` : "";
    narrow(found);
  }

  function step(back) {
    if (!found.length) return;
    const turn = following(found, current(), back);
    jump(turn);
    const { speaker, emotion } = utterances[turn];
    output.replaceChildren(`${found.indexOf(turn) + 1} of ${found.length}: `, bdi(speaker), ", ", bdi(emotion ?? "no emotion"));
  }

  for (const field of [search, bySpeaker, byEmotion]) field.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => event.key === "Enter" && step(event.shiftKey));
  bar.querySelector(".previous").addEventListener("click", () => step(true));
  bar.querySelector(".next").addEventListener("click", () => step(false));
  return () => {
    tests = fillBoth();
    filter();
  };
}

function startSummary(table, utterances, { jump, current }) {
  const speakers = [...new Set(utterances.map(({ speaker }) => speaker))];
  [...table.querySelectorAll("tbody bdi")].forEach((name, number) => {
    const turns = [...utterances.keys()].filter((turn) => utterances[turn].speaker === speakers[number]);
    const button = makeButton("", () => jump(following(turns, current())));
    button.title = "Go to this speaker\u2019s next utterance";
    name.replaceWith(button);
    button.append(name);
  });
}

function startRibbon(ribbon, scroll) {
  if (!ribbon) return;
  const frame = ribbon.querySelector("b");
  const follow = () => {
    frame.style.left = `${(100 * scroll.scrollLeft) / scroll.scrollWidth}%`;
    frame.style.width = `${(100 * scroll.clientWidth) / scroll.scrollWidth}%`;
  };
  scroll.addEventListener("scroll", follow);
  addEventListener("resize", follow);
  ribbon.addEventListener("click", (event) => {
    const { left, width } = ribbon.getBoundingClientRect();
    scroll.scrollLeft = ((event.clientX - left) / width) * scroll.scrollWidth - scroll.clientWidth / 2;
  });
  follow();
}

document.body.classList.add("scripted");
const sections = [...document.querySelectorAll(".conversation")];
startDownload(sections.map(start));
if (sections.length > 1) {
  const menu = document.querySelector("header label");
  const select = menu.querySelector("select");
  select.append(...sections.map((section) => make("option", "", section.getAttribute("aria-label"))));
  for (const option of select.options) option.dir = "auto";
  select.addEventListener("change", () => sections[select.selectedIndex].scrollIntoView());
  menu.hidden = false;
}
