"""A Python environment with all that is installed here but for some packages."""

import sys
import venv
from pathlib import Path


def make_environment(folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Make the environment in seconds, nothing is downloaded or copied; return its `python`.

    What is installed here in editable mode is not there.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # A .pth file adds folders at the end, and reads no .pth file in them, as that of an editable install.
    (own / "installed_here.pth").write_text("\n".join(installed), encoding="utf-8")
    for name in without:
        (own / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}')")
    return folder / "bin" / "python"
