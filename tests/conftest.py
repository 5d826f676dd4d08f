"""What every test stands on: no network, few threads, and the shared data where it is given."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Both are read when huggingface_hub and torch are imported, so they are set before any test file is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data and released tensors that REDIFU_TEST_DATA names."""
    folder = os.environ.get("REDIFU_TEST_DATA")
    if not folder:
        pytest.skip("REDIFU_TEST_DATA is not set: it names the folder with the released tensors and MELD")
    if not Path(folder).is_dir():
        pytest.fail(f"REDIFU_TEST_DATA names {folder}, which is not a folder")
    return Path(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium as it is installed. Of a module only: playwright keeps an event loop running."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("Chromium is not installed: there is no `chromium` on the path")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra dev")
    quiet = (
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-component-update",
        "--disable-sync",
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=executable, args=[*quiet, "--disable-background-networking"]
        )
        yield browser
        browser.close()
