// The labelling page: shows a row, takes an answer by key or click, and shows the next once the server has kept it.
"use strict";
const find = (id) => document.getElementById(id);
const { mode, annotator: owner, words } = JSON.parse(find("settings").textContent);
const fill = (phrase, values) => phrase.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const STORED = "quality-judge-annotator";
const state = { who: owner || stored(), question: null, shownAt: 0, busy: false, order: [], picked: 0, moved: false, cut: null };

function stored() {
  try { return localStorage.getItem(STORED) || ""; } catch { return ""; }
}

async function ask(action, said = {}) {
  if (state.busy) return null;
  state.busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(action, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ annotator: state.who, ...said }),
    });
    const found = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(found.error || `HTTP ${response.status}`);
    complain("");
    return found;
  } catch (error) {
    const why = error instanceof TypeError ? words.unreachable : error.message;
    complain(fill(words.failed, { why }));
    return null;
  } finally {
    state.busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function complain(what) {
  find("error").textContent = what;
  find("error").hidden = !what;
}

function tell(what) {
  find("said").textContent = what;
}

// ---- what is shown

function show(found) {
  state.question = found.question;
  state.shownAt = performance.now();
  Object.assign(state, { picked: 0, moved: false, cut: null });
  find("finished").hidden = Boolean(found.question);
  find("texts").hidden = !found.question;
  for (const button of document.querySelectorAll(".answers button, .category, [data-key=s], [data-key=n]")) {
    button.disabled = !found.question;
    if (button.classList.contains("category")) button.setAttribute("aria-pressed", "false");
  }
  find("note").value = found.note || "";
  find("note-box").hidden = !found.note;
  const prompt = found.question ? found.question.prompt : "";
  find("prompt-box").hidden = !prompt;
  find("prompt").textContent = prompt;
  find("prompt").scrollTop = 0;
  find("texts").replaceChildren(...(found.question ? found.question.texts.map(panel) : []));
  state.order = found.question ? found.question.texts.map((_, place) => place) : [];
  if (mode === "rank") arrange();
  showProgress(found);
  focusText();
}

// A single text takes the focus, so that the arrow keys move it. Of several none may, for it would look like the chosen one.
function focusText() {
  const texts = find("texts").querySelectorAll(".row-text");
  if (texts.length === 1) texts[0].focus({ preventScroll: true });
  else document.activeElement?.blur();
}

function scroll(key) {
  const step = { ArrowDown: 60, ArrowUp: -60, " ": 300, PageDown: 300, PageUp: -300 }[key];
  if (step) for (const text of find("texts").querySelectorAll(".row-text")) text.scrollBy({ top: step });
  return Boolean(step);
}

function panel(text, place) {
  const box = element("div", "text");
  const body = element("div", "row-text", text);
  body.dir = "auto";
  body.tabIndex = 0;
  box.dataset.place = place;
  const letter = "ABCDEFGH"[place];
  if (mode === "pair") box.append(element("div", "letter", letter));
  if (mode === "rank") {
    const handle = element("div", "handle");
    handle.append(element("kbd", "", letter), element("span", "place", ""));
    handle.addEventListener("pointerdown", (event) => drag(event, box));
    box.append(handle);
  }
  box.append(body);
  return box;
}

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text; // never innerHTML: a row is somebody else's text
  return made;
}

function showProgress({ done, rows, skipped, experts, agreement }) {
  const line = [element("b", "", fill(words.progress, { done, rows }))];
  if (skipped) line.push(element("span", "", fill(words.skipped, { n: skipped })));
  if (experts > 1) line.push(element("span", "", fill(words.experts, { n: experts })));
  find("progress").replaceChildren(...line);
  const alpha = agreement.alpha === null ? null : agreement.alpha.toFixed(2).replace("-", "−");
  const phrase = alpha === null ? words.agreement_soon : words.agreement;
  find("agreement").textContent = agreement.rows ? fill(phrase, { alpha, n: agreement.rows }) : "";
  const bar = find("bar");
  bar.setAttribute("aria-valuenow", done);
  bar.setAttribute("aria-valuemax", rows);
  bar.firstElementChild.style.width = `${rows ? (100 * done) / rows : 0}%`;
}

// ---- answers

async function answer(said, spoken) {
  if (!state.question || state.busy) return;
  const note = find("note").value.trim();
  const found = await ask("answer", {
    key: state.question.key, answer: said, note, seconds: (performance.now() - state.shownAt) / 1000,
  });
  if (!found) return;
  const kept = said === null ? words.skip_saved : fill(words.saved, { answer: spoken });
  tell(note ? `${kept} · ${words.note_kept}` : kept);
  show(found);
}

async function undo() {
  const found = await ask("undo");
  if (!found) return;
  tell(found.undone ? words.undone : words.nothing_undone);
  show(found);
}

function label(key) {
  return document.querySelector(`.answers [data-key="${key}"] span`).textContent;
}

const ANSWERS = {
  "good-bad"(key) {
    const good = { g: true, 1: true, b: false, 2: false }[key];
    if (good !== undefined) answer(good, label(good ? "g" : "b"));
    return good !== undefined;
  },
  pair(key) {
    const place = { a: 0, 1: 0, b: 1, 2: 1 }[key];
    if (place !== undefined) answer(place, label("ab"[place]));
    return place !== undefined;
  },
  rank(key) {
    const texts = state.order.length;
    if (key === "Enter") {
      if (!state.moved) tell(words.put_in_order);
      else answer({ order: state.order, cut: state.cut }, fill(words.ranked, { order: state.order.map((at) => "ABCDEFGH"[at]).join(" ") }));
    } else if (key === "Backspace") pick(state.picked - 1);
    else if (/^[0-9]$/.test(key) && Number(key) <= texts) {
      state.cut = state.cut === Number(key) ? null : Number(key);
      arrange();
    } else if (/^[a-h]$/.test(key) && "abcdefgh".indexOf(key) < texts) choose("abcdefgh".indexOf(key));
    else return false;
    return true;
  },
  categories(key) {
    const button = key === "Enter" ? null : document.querySelector(`.category[data-key="${CSS.escape(key)}"]`);
    if (key === "Enter") {
      const chosen = [...document.querySelectorAll(".category[aria-pressed=true]")];
      answer(chosen.map((each) => each.dataset.code), chosen.map((each) => each.querySelector("b").textContent).join(", ") || words.none_apply);
    } else if (button) toggle(button);
    return key === "Enter" || Boolean(button);
  },
};

function toggle(button) {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  button.scrollIntoView({ block: "nearest" });
}

// ---- ranking: the first `picked` of `order` were chosen by letter; the rest stand as they were

function choose(place) {
  const at = state.order.indexOf(place);
  if (at < state.picked) return;
  state.order.splice(at, 1);
  state.order.splice(state.picked, 0, place);
  pick(state.picked + 1);
}

function pick(count) {
  state.picked = Math.max(count, 0);
  if (state.picked >= state.order.length - 1 && count > 0) {
    state.picked = state.order.length;
    state.moved = true;
  } else state.moved = false;
  arrange();
}

function arrange() {
  const boxes = new Map([...find("texts").querySelectorAll(".text")].map((box) => [Number(box.dataset.place), box]));
  const line = element("p", "cut", words.cut);
  const shown = state.order.map((place, at) => {
    const box = boxes.get(place);
    box.classList.toggle("picked", at < state.picked || state.moved);
    box.querySelector(".place").textContent = at + 1;
    box.querySelector(".place").title = fill(words.place, { n: at + 1 });
    return box;
  });
  if (state.cut !== null) shown.splice(state.cut, 0, line);
  const seen = shown.map((box) => (box.lastElementChild ? box.lastElementChild.scrollTop : 0));
  find("texts").replaceChildren(...shown);
  shown.forEach((box, at) => { if (box.lastElementChild) box.lastElementChild.scrollTop = seen[at]; });
}

function drag(event, box) {
  if (state.busy || event.button > 0) return;
  event.preventDefault();
  box.classList.add("dragging");
  const move = (now) => {
    const others = [...find("texts").querySelectorAll(".text")].filter((each) => each !== box);
    const middle = (each) => each.getBoundingClientRect().top + each.offsetHeight / 2;
    const at = others.filter((each) => middle(each) < now.clientY).length;
    const place = Number(box.dataset.place);
    if (state.order.indexOf(place) !== at) {
      state.order.splice(state.order.indexOf(place), 1);
      state.order.splice(at, 0, place);
      arrange();
    }
  };
  const end = () => {
    box.classList.remove("dragging");
    document.removeEventListener("pointermove", move);
    Object.assign(state, { picked: state.order.length, moved: true });
    arrange();
  };
  document.addEventListener("pointermove", move);
  document.addEventListener("pointerup", end, { once: true });
  document.addEventListener("pointercancel", end, { once: true });
}

// ---- keys

function pressed(event) {
  const plain = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // With a Chinese, Arabic or Cyrillic keyboard the key says another letter; where it lies says which is meant.
  const lies = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code);
  return /^[a-z0-9?]$/.test(plain) || !lies || (event.key.length > 1 && event.key !== "Process") ? plain : lies[1].toLowerCase();
}

function press(key) {
  if (key === "?" || key === "？") find("help").showModal();
  else if (key === "u") undo();
  else if (!state.question) return false;
  else if (key === "s") answer(null, "");
  else if (key === "n") {
    find("note-box").hidden = false;
    find("note").focus();
  } else return ANSWERS[mode](key);
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.target.id === "note") {
    if (event.key === "Enter" || event.key === "Escape") {
      event.preventDefault();
      find("note-box").hidden = !find("note").value.trim();
      focusText();
    }
    return;
  }
  const onButton = event.target.closest("button, a, summary") && (event.key === "Enter" || event.key === " ");
  if (onButton) return;
  if (document.activeElement === document.body && scroll(event.key)) event.preventDefault();
  if (event.repeat) return;
  if (press(pressed(event))) event.preventDefault();
});

for (const button of document.querySelectorAll("footer [data-key]")) button.addEventListener("click", () => press(button.dataset.key));
for (const button of document.querySelectorAll(".category")) {
  button.addEventListener("click", (event) => {
    toggle(button);
    if (event.detail) button.blur(); // after a click of the mouse, Enter saves
  });
}
find("help-open").addEventListener("click", () => find("help").showModal());

// ---- who labels

async function begin() {
  const found = await ask("next");
  const complaint = find("name-form").querySelector(".error");
  if (!found) {
    complaint.textContent = find("error").textContent;
    complaint.hidden = false;
    return;
  }
  complaint.hidden = true;
  try { if (!owner) localStorage.setItem(STORED, state.who); } catch { /* asked again next time */ }
  find("who").textContent = state.who;
  find("who").hidden = false;
  find("name-box").close();
  show(found);
}

function introduce() {
  find("name").value = state.who;
  find("name-box").showModal();
}

find("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.who = find("name").value;
  begin();
});
if (!owner) find("who").addEventListener("click", introduce);
if (state.who) begin();
else introduce();
