"""A picture of the report's first screen, taken by a headless browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lookm.errors import LookmError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SECONDS = 120


def photograph(page: Path, picture: Path, *, width: int = 1280, height: int = 1250) -> None:
    """Opens a page and saves what its window shows, as PNG.

    Args:
        page: an HTML file.
        picture: a name that ends in .png.
        width, height: of the window, in pixels.

    Raises:
        LookmError: no browser, or one that takes no picture.
    """
    if picture.suffix != ".png":
        raise LookmError(f"--picture {picture} is no PNG; choose a name that ends in .png")
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise LookmError(f"--picture needs one of {', '.join(BROWSERS)} on the PATH; leave it out, or install one")
    picture.parent.mkdir(parents=True, exist_ok=True)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={width},{height}", "--virtual-time-budget=8000", f"--screenshot={picture.resolve()}"]
    try:
        done = subprocess.run([*command, page.resolve().as_uri()], capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LookmError(f"{browser} took no picture of {page}: {type(error).__name__}") from None
    if done.returncode or not picture.is_file():
        raise LookmError(f"{browser} took no picture of {page} (exit status {done.returncode})")
