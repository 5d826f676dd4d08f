"""Takes the README's pictures of a `redifu predict --html` page in Chromium, on a desktop and on a phone.

    redifu predict model_cards/redifu-meld-ravdess examples/moving-day/conversation.json --html emotions.html
    python scripts/picture_report.py emotions.html --turn 6 --output examples/predict-html

writes examples/predict-html.png, 1280 pixels wide, with the details of one utterance open, and
examples/predict-html-phone.png, 390 pixels wide, without them, because they would cover the rest.
"""

import argparse
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

COLOURS = 256  # maximum coverage keeps the colours of small marks, such as rare emotions


def take(page_file: Path, output: Path, *, turn: int) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        desk = browser.new_page(viewport={"width": 1280, "height": 1000})
        phone = browser.new_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
        for page, ending in ((desk, ""), (phone, "-phone")):
            page.goto(page_file.resolve().as_uri())
            if page is desk:
                page.locator(f"button.utterance[data-turn='{turn}']").click()
                page.mouse.move(0, 0)
            picture = Image.open(BytesIO(page.screenshot(full_page=True)))
            smaller = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)
            smaller.save(output.with_name(f"{output.name}{ending}.png"), optimize=True)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="a page written by `redifu predict --html`")
    parser.add_argument("--turn", type=int, required=True, help="index of the utterance to open, from 0")
    parser.add_argument(
        "--output", type=Path, required=True, help="path of the pictures without their endings"
    )
    arguments = parser.parse_args()
    take(arguments.page, arguments.output, turn=arguments.turn)
