"""A Chromium without a window, which prints a page of ours and takes its picture. Nothing is loaded from a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VARIABLE = "CHROMIUM"  # of the environment: the program to use
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_S = 180
SCREEN = (1400, 900)  # pixels of a picture


def find() -> str | None:
    """Return the program: that of the environment's CHROMIUM, or the first known one on the PATH; None without one."""
    return os.environ.get(VARIABLE) or next((found for name in NAMES if (found := shutil.which(name))), None)


def flags() -> list[str]:
    """Return what it is started with; root cannot have its sandbox."""
    return [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]


def render(page: Path, target: Path) -> None:
    """Print a page into a `.pdf`, or take a picture of its first screen into a `.png`.

    Args:
        page: the HTML file.
        target: what to write.

    Raises:
        FileNotFoundError: there is no Chromium, or no such page.
        RuntimeError: Chromium wrote nothing.
        ValueError: `target` has another suffix.
    """
    what = {
        ".pdf": ["--no-pdf-header-footer", f"--print-to-pdf={target.resolve()}"],
        ".png": [f"--screenshot={target.resolve()}", f"--window-size={SCREEN[0]},{SCREEN[1]}", "--hide-scrollbars"],
    }
    if target.suffix not in what:
        raise ValueError(f"`to` must end with {' or '.join(what)}, got {target}")
    program = find()
    if program is None:
        raise FileNotFoundError(
            f"no Chromium on the PATH ({', '.join(NAMES)}): install one (apt-get install chromium) or set {VARIABLE}"
        )
    if not page.is_file():
        raise FileNotFoundError(f"{page} does not exist; make it with snakemake --cores 1")
    target.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                program,
                "--headless=new",
                *flags(),
                f"--user-data-dir={profile}",
                "--virtual-time-budget=20000",
                *what[target.suffix],
                page.resolve().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if not target.is_file():
        raise RuntimeError(f"{program} wrote no {target} (exit status {done.returncode}): {done.stderr[-400:]}")
