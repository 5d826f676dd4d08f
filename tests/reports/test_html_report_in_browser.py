"""The page in Chromium: nothing leaves, nothing breaks, and every utterance opens."""

import pytest

from redifu.reports.html_report import render_report
from reports.test_html_report import EXPLANATION, LABELS, NASTY, dialogue, page_of, unsure_dialogue

WIDTHS = [1280, 390]


@pytest.fixture
def opened(browser, tmp_path):
    """Opens pages; what a page complained about or asked for is checked in the end."""
    complaints, requests, addresses = [], [], []

    def open_page(content, *, width=1280, **options):
        path = tmp_path / f"page-{len(addresses)}.html"
        path.write_text(content, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        addresses.append(path.as_uri())
        page.goto(path.as_uri())
        return page

    yield open_page
    assert (complaints, requests) == ([], addresses)


def card_of(page):
    return page.locator(".card").first.inner_text()


def press_until(page, key, selector):
    """Press a key until an element has the focus."""
    for _ in range(40):
        page.keyboard.press(key)
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"expected {key} to reach {selector}")


def parts_of(page, selector, text=None):
    """The parts, such as a label and its number, that can be seen in elements that hide what does not fit."""
    parts = page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)].flatMap((box) => {
            const frame = box.getBoundingClientRect();
            return [...box.querySelectorAll(":scope > :is(span, bdi)")].map((part) => {
                const { left, right, top, bottom } = part.getBoundingClientRect();
                return {
                    text: part.textContent, left, right,
                    lane: frame.top,
                    seen: frame.width > 0 && top < frame.bottom - 1,
                    inside: left >= frame.left - 0.5 && right <= frame.right + 0.5
                        && bottom <= frame.bottom + 2,
                };
            });
        })""",
        selector,
    )
    return [part for part in parts if part["seen"] and text in (None, part["text"])]


def test_the_details_say_that_and_why_the_model_is_not_sure(opened):
    page = opened(render_report([unsure_dialogue()], LABELS, streams=["text"], model_name="mood"))
    page.locator("button.utterance").first.click()
    card = card_of(page)
    assert "The model is not sure, so it gives no label." in card
    assert "too short <b>" in card
    assert "0.50" in card  # the probabilities stay


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_every_utterance_is_there_and_opens_on_a_click(opened, width, colour_scheme):
    page = opened(page_of(dialogue(6)), width=width, color_scheme=colour_scheme)
    assert page.locator("button.utterance").count() == page.locator(".transcript tbody tr").count() == 6
    # The page itself does not scroll sideways.
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("button.utterance[data-turn='3']").click()
    card = card_of(page)
    for said in (
        "B, utterance 4",
        "text 3",
        "calm",
        "0.50",
        "0.30",
        "+0.31",
        "\u22120.05",
        "without it: glad",
    ):
        assert said in card
    for said in (
        "trust: 40%",
        "ratio 17.3\u00a0dB, silence 13%",
        "visual is missing: no face",
        "25% A: text 0",
    ):
        assert said in card
    # A row of the transcript does the same, and so does what was attended.
    page.locator(".transcript tr[data-turn='1'] .what").click()
    assert "text 1" in card_of(page)
    page.locator(".card .source").first.click()
    assert "text 0" in card_of(page) and "None." in card_of(page)
    page.locator(".transcript tr[data-turn='2'] .what").click()
    assert page.locator("button.chosen").get_attribute("data-turn") == "2"
    assert page.locator("button.attended").get_attribute("data-turn") == "0"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_measure_is_shown_whole_or_not_at_all(opened, width):
    given, rows = dialogue(30)
    for turn, utterance in enumerate(given["utterances"]):
        utterance["end"] = utterance["start"] + 0.1 * (turn + 1)
    page = opened(page_of((given, rows)), width=width)
    for sign, few, most in (("17 dB", 5, 29), ("40%", 5, 29)):
        shown = parts_of(page, ".stream .whole", sign)
        assert few < len(shown) < most and all(part["inside"] for part in shown)
    assert page.locator(".stream .name").all_inner_texts() == [
        "text: trust",
        "audio: trust, signal-to-noise ratio below",
        "visual: trust",
    ]


def test_the_keyboard_reaches_every_utterance(opened):
    page = opened(page_of(dialogue(5)))
    press_until(page, "Tab", "button.utterance")
    seen = []
    for key in ("ArrowRight", "ArrowDown", "End", "ArrowRight", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        seen.append(page.evaluate("document.activeElement.dataset.turn"))
        assert f"utterance {int(seen[-1]) + 1}" in card_of(page)
    assert seen == ["1", "2", "4", "4", "3", "0"]


def test_pointing_shows_and_leaving_goes_back_to_what_was_chosen(opened):
    page = opened(page_of(dialogue(5)))
    page.locator("button.utterance[data-turn='1']").click()
    page.locator("button.utterance[data-turn='2']").hover()
    assert "text 2" in card_of(page)
    page.mouse.move(2, 2)
    assert "text 1" in card_of(page)


def test_an_utterance_without_an_emotion_says_so(opened):
    page = opened(page_of(dialogue(2)))
    page.locator("button.utterance[data-turn='1']").click()
    assert "cannot use any stream" in card_of(page)


def test_on_a_phone_the_details_open_and_close(opened):
    page = opened(page_of(dialogue(3)), width=390, has_touch=True, is_mobile=True)
    assert not page.locator(".card").is_visible()
    page.locator("button.utterance[data-turn='0']").tap()
    assert page.locator(".card").is_visible()
    page.get_by_role("button", name="Close").tap()
    assert not page.locator(".card").is_visible()


def test_what_people_said_is_shown_and_not_run(opened):
    given, rows = dialogue(3, name=NASTY)
    for utterance in given["utterances"]:
        utterance.update(speaker=NASTY, text=NASTY)
    page = opened(page_of((given, rows)))
    page.locator("button.utterance[data-turn='1']").click()
    assert card_of(page).count(NASTY) == 4  # speaker and text, of the utterance and of the one attended


def test_several_conversations_are_a_menu(opened):
    page = opened(page_of(*(dialogue(30, name=f"talk {number}") for number in range(4))))
    assert page.locator("header option").all_inner_texts() == [f"talk {number}" for number in range(4)]
    page.locator("header select").select_option("talk 2")
    assert abs(page.locator(".conversation").nth(2).bounding_box()["y"]) < 2


@pytest.mark.parametrize("width", WIDTHS)
def test_a_thousand_turns_can_be_gone_through(opened, width):
    page = opened(page_of(dialogue(1000)), width=width)
    scroll = page.locator(".scroll")
    ribbon = page.locator(".ribbon").bounding_box()
    page.mouse.click(ribbon["x"] + ribbon["width"] / 2, ribbon["y"] + 5)
    assert 0.45 < scroll.evaluate("(each) => each.scrollLeft / each.scrollWidth") < 0.55
    # What is chosen comes into view in both lists.
    page.locator("button.utterance[data-turn='500']").focus()
    page.keyboard.press("End")
    assert "utterance 1000" in card_of(page)
    for chosen in (page.locator("button.chosen"), page.locator("tr.chosen")):
        box = chosen.bounding_box()
        assert 0 <= box["x"] < width
    assert page.locator(".rows").evaluate("(each) => each.scrollTop > 1000") == (width > 900)


NAMES = ["Aleksandra", "Bartholomew-Constantine Featherstonehaugh", "\u05d3\u05d5\u05d3", "Ana"]
HEBREW = "\u05e9\u05dc\u05d5\u05dd, \u05de\u05d4 \u05e9\u05dc\u05d5\u05de\u05da (\u05d4\u05d9\u05d5\u05dd)?"


def meeting(number=500):
    """A long conversation: long names, right-to-left text, dense turns in the middle, all three labels."""
    given, rows = dialogue(number, name="meeting")
    start = 0.0
    for turn, utterance in enumerate(given["utterances"]):
        length = 0.3 if number // 4 < turn < number // 2 else 5.5
        text = HEBREW if turn % 7 == 3 else f"Caf\u00e9 {turn}"
        utterance.update(speaker=NAMES[turn * 7 % 11 % 4], text=text)
        utterance.update(start=start, end=start + 0.9 * length)
        start += length
        if turn < number - 1:
            rows[turn] = [0.2 + 0.1 * (turn % 3 == label) for label in range(3)]
    return given, rows


@pytest.mark.parametrize("width", [*WIDTHS, "print"])
def test_no_word_is_broken(opened, width):
    page = opened(page_of(meeting(60)), width=700 if width == "print" else width)
    page.emulate_media(media="print" if width == "print" else "screen")
    broken, seen = page.evaluate("""() => {
        const broken = [], seen = new Set();
        for (const element of document.querySelectorAll("bdi, th, .emotion, .name, li, label")) {
            for (const node of [...element.childNodes].filter((each) => each.nodeType === Node.TEXT_NODE)) {
                for (const { 0: word, index } of node.data.matchAll(/\\p{L}+/gu)) {
                    const range = document.createRange();
                    range.setStart(node, index);
                    range.setEnd(node, index + word.length);
                    const tops = new Set([...range.getClientRects()].map(({ top }) => Math.round(top)));
                    if (tops.size > 1) broken.push(word);
                    if (tops.size) seen.add(word);
                }
            }
        }
        return [broken, [...seen]];
    }""")
    assert broken == []
    assert {"Aleksandra", "Featherstonehaugh", "Ana", "calm", "Probability"} <= set(seen)


@pytest.mark.parametrize("width", [*WIDTHS, "print"])
def test_labels_of_dense_turns_are_whole_and_do_not_touch(opened, width):
    page = opened(page_of(meeting(120)), width=700 if width == "print" else width)
    page.emulate_media(media="print" if width == "print" else "screen")
    shown = parts_of(page, ".said")
    assert len(shown) > 60 and all(part["inside"] for part in shown)
    shown.sort(key=lambda part: (part["lane"], part["left"]))
    # A part ends in a gap of 6 pixels.
    for part, following in zip(shown, shown[1:], strict=False):
        assert part["lane"] != following["lane"] or part["right"] <= following["left"] + 0.5
    # Some have no room for a label.
    labels = [part for part in shown if part["text"] in ("calm", "glad", "cross")]
    assert len(labels) < page.locator(".said:visible").count()


def test_print_shows_the_whole_conversation(opened):
    given, rows = meeting()
    page = opened(page_of((given, rows)), width=700)
    page.get_by_role("searchbox").fill("nobody says this")
    page.emulate_media(media="print")
    assert not page.locator(".scroll, .find, .card, .ribbon").locator("visible=true").count()
    assert page.locator(".transcript tbody tr:visible").count() == 500
    assert (
        page.locator(".transcript .streams:visible").first.inner_text().startswith("text trusted 100%; audio")
    )
    strips = page.locator(".strip:visible")
    assert strips.count() > 10 and strips.first.locator("b").inner_text().startswith("0:00 to ")
    last = (
        strips.last.locator(".lane", has_text=given["utterances"][-1]["speaker"]).locator(".utterance").last
    )
    assert "no emotion" in last.text_content()
    for block in (strips.first.locator(".utterance").first, last):
        box = block.locator(".bar").bounding_box()
        assert box["width"] >= 6 and box["x"] >= 0 and box["x"] + box["width"] <= 700
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def chosen_turn(page):
    return int(page.locator("button.chosen").get_attribute("data-turn"))


@pytest.mark.parametrize("width", WIDTHS)
def test_search_and_filters_work_by_keyboard(opened, width):
    given, rows = meeting()
    page = opened(page_of((given, rows)), width=width)
    turns = range(500)
    texts = [utterance["text"] for utterance in given["utterances"]]
    speakers = [utterance["speaker"] for utterance in given["utterances"]]

    def check(expected):
        shown = page.locator(".transcript tbody tr:visible").evaluate_all(
            "(rows) => rows.map((row) => Number(row.dataset.turn))"
        )
        assert shown == expected and 0 < len(expected) < 500
        assert page.get_by_role("status").inner_text() == f"{len(expected)} of 500 utterances"

    press_until(page, "Tab", "input")
    page.keyboard.type("CAFE 4")  # without the accent
    found = [turn for turn in turns if texts[turn].startswith("Caf\u00e9 4")]
    check(found)
    page.keyboard.press("Tab")
    page.keyboard.type("Ale")
    found = [turn for turn in found if speakers[turn] == "Aleksandra"]
    check(found)
    page.keyboard.press("Tab")
    page.keyboard.type("glad")
    found = [turn for turn in found if turn % 3 == 1]
    check(found)
    press_until(page, "Tab", ".next")
    for turn in (*found, found[0]):
        page.keyboard.press("Enter")
        assert chosen_turn(page) == turn
        assert page.locator("tr.chosen").bounding_box()["y"] >= 0
        assert f"utterance {turn + 1}" in card_of(page)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert chosen_turn(page) == found[-1]
    assert page.get_by_role("status").inner_text() == f"{len(found)} of {len(found)}: Aleksandra, glad"
    # The arrow keys go through what was found.
    page.locator("button.chosen").focus()
    page.keyboard.press("ArrowLeft")
    assert chosen_turn(page) == found[-2]
    page.keyboard.press("Home")
    assert chosen_turn(page) == found[0]
    page.get_by_role("searchbox").fill("nobody says this")
    assert page.get_by_role("status").inner_text() == "0 of 500 utterances"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_speaker_can_be_jumped_to(opened, width):
    given, rows = meeting()
    page = opened(page_of((given, rows)), width=width)
    turns = [turn for turn, each in enumerate(given["utterances"]) if each["speaker"] == NAMES[1]]
    page.get_by_role("button", name=NAMES[1], exact=True).focus()
    for turn in turns[:3]:
        page.keyboard.press("Enter")
        assert chosen_turn(page) == turn
        row, card = page.locator("tr.chosen").bounding_box(), page.locator(".card").bounding_box()
        # Neither below the window nor below the details, which cover half of a phone.
        assert 0 <= row["y"] <= (801 if width > 900 else card["y"]) - row["height"]


def test_the_summary_counts_by_speaker(opened):
    given, rows = dialogue(6)
    rows[:4] = [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.4, 0.5, 0.1]]
    page = opened(page_of((given, rows)))
    texts = [text.split("\t") for text in page.locator(".summary tr").all_inner_texts()]
    assert texts == [
        ["Speaker", "Utterances", "Mean probability", "calm", "glad", "no emotion"],
        ["A", "3", "0.67", "2 67%", "1 33%", "0"],
        ["B", "3", "0.60", "0", "2 67%", "1 33%"],
    ]
    assert page.locator(".legend li").all_inner_texts() == ["calm 2", "glad 3", "no emotion 1"]


def test_text_has_the_direction_of_its_script(opened):
    given, rows = dialogue(4, name=HEBREW)
    explanation = {**EXPLANATION, "emotion_without": dict.fromkeys(("text", "audio"), HEBREW)}
    for utterance in given["utterances"][:-1]:
        utterance.update(speaker=HEBREW, text=HEBREW, label=HEBREW, explanation=explanation)
    page = opened(page_of((given, rows), labels=[HEBREW, "glad", "cross"], notice=HEBREW))
    page.locator("button.utterance[data-turn='1']").click()
    undirected, seen = page.evaluate("""() => {
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const undirected = [];
        let seen = 0;
        while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (element.tagName === "SCRIPT") continue;
            if (!/\\p{Script=Hebrew}/u.test(walker.currentNode.data)) continue;
            seen += 1;
            if (getComputedStyle(element).direction !== "rtl") undirected.push(element.outerHTML);
        }
        return [undirected, seen];
    }""")
    assert undirected == [] and seen > 30
    assert page.locator(".what").nth(3).evaluate("(each) => getComputedStyle(each).direction") == "ltr"


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_is_named_for_assistive_technology(opened, width):
    page = opened(page_of(dialogue(3)), width=width)
    page.locator("button.utterance[data-turn='1']").click()
    check = pytest.importorskip("playwright.sync_api").expect
    check(page.get_by_role("table", name="Speakers")).to_match_aria_snapshot("""
        - table "Speakers":
          - caption: Speakers
          - rowgroup:
            - row:
              - columnheader "Speaker"
              - columnheader "Utterances"
              - columnheader "Mean probability"
              - columnheader "calm"
              - columnheader "no emotion"
          - rowgroup:
            - row:
              - rowheader "A":
                - button "A"
              - cell "2"
              - cell "0.50"
              - cell "1 50%"
              - cell "1 50%"
            - row
        """)
    check(page.get_by_role("group", name="Timeline")).to_match_aria_snapshot("""
        - group "Timeline; the arrow keys move between utterances":
          - group "A":
            - 'button "A, utterance 1: calm, probability 0.50. text 0"'
            - 'button "A, utterance 3: no emotion. text 2"'
          - group "B":
            - 'button "B, utterance 2: calm, probability 0.50. text 1"'
        """)
    check(page.get_by_role("table", name="Utterances")).to_match_aria_snapshot("""
        - table "Utterances":
          - rowgroup:
            - row:
              - columnheader "Time"
              - columnheader "Speaker"
              - columnheader "Text"
              - columnheader "Emotion"
              - columnheader "Probability"
          - rowgroup:
            - row:
              - cell "0:00"
              - rowheader "A"
              - cell /text 0 text trusted 100%; audio trusted 40%, .* 17 dB; visual missing .no face./
              - cell "calm"
              - cell "0.50"
        """)
    details = page.get_by_role("complementary", name="Details of an utterance")
    assert details.get_by_role("listitem").all_inner_texts()
    check(details).to_match_aria_snapshot("""
        - heading "B, utterance 2, 0:02.0 to 0:03.5" [level=3]
        - heading "Probabilities" [level=4]
        - list:
          - listitem: calm 0.50
          - listitem: glad 0.30
          - listitem: cross 0.20
        - heading "Contribution of each stream" [level=4]
        - list:
          - listitem: /text \\+0.31/
          - listitem: /audio \u22120.05/
          - listitem: "visual is missing: no face"
        - heading "Earlier utterances attended to" [level=4]
        - list:
          - listitem:
            - 'button "25% A: text 0"'
        """)
    assert page.get_by_role("search", name="Find utterances").count() == 1
    for role, name in (("searchbox", "Search"), ("combobox", "Speaker"), ("combobox", "Emotion")):
        assert page.get_by_role(role, name=name).is_visible()


def test_without_its_script_the_page_can_be_read(opened):
    page = opened(page_of(dialogue(50)), java_script_enabled=False)
    assert page.get_by_text("JavaScript is turned off").is_visible()
    assert page.locator(".transcript tbody tr").last.is_visible()
    assert page.locator(".summary tbody th").all_inner_texts() == ["A", "B"]
    assert page.locator("button.utterance").count() == 50
    # What would not work is not there.
    for selector in (".find", ".card", ".ribbon", "header select"):
        assert not page.locator(selector).is_visible()


@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_text_can_be_read(opened, colour_scheme):
    """The contrast of WCAG's level AA, 4.5, of ink and soft ink on both backgrounds."""
    page = opened(page_of(dialogue(2)), color_scheme=colour_scheme)
    contrasts = page.evaluate("""() => {
        const light = (name) => {
            const probe = document.createElement("i");
            probe.style.color = `var(${name})`;
            document.body.append(probe);
            const channels = getComputedStyle(probe).color.match(/[0-9]+/g).slice(0, 3);
            const shares = channels.map((each) => each / 255);
            const linear = shares.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        };
        const contrast = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        return ["--ink", "--soft"].flatMap((ink) =>
            ["--page", "--sheet", "--wash"].map((ground) => contrast(light(ink), light(ground))));
    }""")
    assert len(contrasts) == 6 and min(contrasts) >= 4.5
