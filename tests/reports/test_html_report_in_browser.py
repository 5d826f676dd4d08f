"""The page in Chromium: nothing leaves, nothing breaks, and every utterance opens."""

import pytest

from reports.test_html_report import NASTY, dialogue, page_of

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


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_every_utterance_is_there_and_opens_on_a_click(opened, width, colour_scheme):
    page = opened(page_of(dialogue(6)), width=width, color_scheme=colour_scheme)
    assert page.locator("button.utterance").count() == page.locator(".transcript li").count() == 6
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
        "trusted to 40 %",
        "ratio 17.3\u00a0dB, silence 13\u00a0%",
        "visual is missing: no face",
        "25 % A: text 0",
    ):
        assert said in card
    # A row of the transcript does the same, and so does what was attended.
    page.locator(".transcript li[data-turn='1'] .what").click()
    assert "text 1" in card_of(page)
    page.locator(".card .source").first.click()
    assert "text 0" in card_of(page) and "None." in card_of(page)
    page.locator(".transcript li[data-turn='2'] .what").click()
    assert page.locator("button.chosen").get_attribute("data-turn") == "2"
    assert page.locator("button.attended").get_attribute("data-turn") == "0"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_measure_is_shown_whole_or_not_at_all(opened, width):
    given, rows = dialogue(30)
    for turn, utterance in enumerate(given["utterances"]):
        utterance["end"] = utterance["start"] + 0.1 * (turn + 1)
    page = opened(page_of((given, rows)), width=width)
    shown = page.evaluate("""() => [...document.querySelectorAll(".cell span")]
        .filter((each) => each.textContent === "17 dB" && each.offsetWidth)
        .map((each) => each.offsetWidth + each.offsetLeft <= each.parentElement.clientWidth)""")
    assert 5 < len(shown) < 29 and all(shown)
    assert page.locator(".stream .name").all_inner_texts() == [
        "text",
        "audio, signal-to-noise ratio",
        "visual",
    ]


def test_the_keyboard_reaches_every_utterance(opened):
    page = opened(page_of(dialogue(5)))
    page.keyboard.press("Tab")
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
    assert "can use no stream" in card_of(page)


def test_on_a_phone_the_details_open_and_close(opened):
    page = opened(page_of(dialogue(3)), width=390, has_touch=True, is_mobile=True)
    assert not page.locator(".card").is_visible()
    page.locator("button.utterance[data-turn='0']").tap()
    assert page.locator(".card").is_visible()
    page.get_by_role("button", name="close").tap()
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
    for chosen in (page.locator("button.chosen"), page.locator("li.chosen")):
        box = chosen.bounding_box()
        assert 0 <= box["x"] < width
    assert page.locator("ol.transcript").evaluate("(each) => each.scrollTop > 1000") == (width > 900)


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
