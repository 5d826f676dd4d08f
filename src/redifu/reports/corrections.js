const LABELS = JSON.parse(document.body.dataset.labels);
const RETURNED = ["speaker", "text", "audio", "video", "start", "end", "label", "words", "text_confidence", "overlap"];
let unsaved = false;

const correcting = () => document.body.classList.contains("correcting");

// Names, texts and labels of a conversation that readers correct in the page.
function startCorrections(section, utterances, { buttons, rows, jump, renamed }) {
  const given = utterances.map(({ text }) => text ?? "");
  // What stands between the speaker and the text in the name of a button.
  const between = buttons.map((button, turn) => {
    const { speaker, text } = utterances[turn];
    const name = button.getAttribute("aria-label");
    return name.slice(speaker.length, name.length - (text || "").length);
  });

  function retitle(turn) {
    const { speaker, text } = utterances[turn];
    buttons[turn].setAttribute("aria-label", speaker + between[turn] + (text || ""));
    unsaved = true;
  }

  function startName(old, cell) {
    const turns = [...utterances.keys()].filter((turn) => utterances[turn].speaker === old);
    const shown = [...section.querySelectorAll(":is(.who, .name, .summary tbody th) bdi")].filter((each) => each.textContent === old);
    const lane = buttons[turns[0]].closest(".lane");
    const input = make("input", "rename");
    input.value = old;
    input.dir = "auto";
    input.setAttribute("aria-label", `Name of ${old}`);
    input.addEventListener("change", () => {
      const name = input.value.trim() || utterances[turns[0]].speaker;
      input.value = name;
      for (const each of shown) each.textContent = name;
      lane.setAttribute("aria-label", name);
      for (const turn of turns) {
        utterances[turn].speaker = name;
        retitle(turn);
      }
      renamed();
    });
    cell.append(input);
  }

  [...new Set(utterances.map(({ speaker }) => speaker))].forEach((speaker, number) => startName(speaker, section.querySelectorAll(".summary tbody th")[number]));

  function textField(turn) {
    const field = make("textarea");
    field.rows = 3;
    field.dir = "auto";
    field.value = utterances[turn].text ?? "";
    field.addEventListener("input", () => {
      utterances[turn].text = field.value.trim() || null;
      // Confidence, times and probabilities are those of the words that were recognised.
      utterances[turn].corrected = field.value !== given[turn];
      rows[turn].querySelector(".what").textContent = utterances[turn].text || "(no text)";
      retitle(turn);
    });
    return make("label", "", "Text", field);
  }

  function labelField(turn) {
    const { label } = utterances[turn];
    const labels = [null, ...new Set([...LABELS, ...(label === null ? [] : [label])])];
    const select = make("select", "", ...labels.map((each) => make("option", "", each ?? "none")));
    for (const option of select.options) option.dir = "auto";
    select.selectedIndex = labels.indexOf(label);
    select.addEventListener("change", () => {
      utterances[turn].label = labels[select.selectedIndex];
      unsaved = true;
    });
    return make("label", "", "Label ", select);
  }

  // The text in the details of an utterance, with its marks, or the fields that correct it.
  function quote(turn) {
    if (correcting()) return make("div", "", textField(turn), labelField(turn));
    const text = rows[turn].querySelector(".what").cloneNode(true).childNodes;
    const said = make("blockquote", "", ...text);
    said.dir = "auto";
    return said;
  }

  function corrected() {
    const id = section.getAttribute("aria-label");
    const turns = utterances.map((utterance, turn) => {
      if (!["text", "audio", "video"].some((name) => utterance[name])) {
        jump(turn);
        throw new Error(`Utterance ${turn + 1} of ${id} has neither text nor a recording; write its text first.`);
      }
      const left = utterance.corrected ? ["words", "text_confidence"] : [];
      const names = RETURNED.filter((name) => utterance[name] !== null && !left.includes(name));
      return Object.fromEntries(names.map((name) => [name, utterance[name]]));
    });
    const { split } = section.dataset;
    return { id, ...(split === undefined ? {} : { split }), utterances: turns };
  }

  return { quote, corrected };
}

function startDownload(conversations) {
  const [toggle, save, status] = [".correct", ".save", "[role=alert]"].map((each) => document.querySelector(`.corrections ${each}`));
  toggle.hidden = !conversations.length;
  toggle.addEventListener("click", () => {
    const on = document.body.classList.toggle("correcting");
    toggle.setAttribute("aria-pressed", on);
    save.hidden = document.querySelector(".hint").hidden = !on;
    for (const { update } of conversations) update();
  });
  save.addEventListener("click", () => {
    status.textContent = "";
    let content;
    try {
      content = conversations.map(({ corrected }) => corrected());
    } catch (error) {
      status.textContent = error.message;
      return;
    }
    const link = document.createElement("a");
    link.download = "corrected.json";
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content.length === 1 ? content[0] : content, null, 2), "\n"], { type: "application/json" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    unsaved = false;
  });
  addEventListener("beforeunload", (event) => unsaved && event.preventDefault());
}
