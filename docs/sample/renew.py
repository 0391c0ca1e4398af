"""Renew the sample from a finished report: its two pages, a picture of the first screen, and its summary in words.

`make sample` runs it in the repository's root.
"""

import re
import shutil
import sys
from pathlib import Path

from stepbench.reporting import browser

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
REPORT = ROOT / "report"
MOST_BYTES = 3 * 2**20


def main() -> None:
    """Copy the pages, take the picture, and cut the summary out of the Markdown."""
    for name in ("writeup.html", "explore.html"):
        if (REPORT / name).stat().st_size > MOST_BYTES:
            sys.exit(f"report/{name} must be under 3 MiB to be shipped, got {(REPORT / name).stat().st_size} bytes")
        shutil.copyfile(REPORT / name, HERE / name)
    browser.render(HERE / "writeup.html", HERE / "first-screen.png")
    text = (REPORT / "writeup.md").read_text(encoding="utf-8")
    title, summary = text.partition("\n")[0], re.search(r"^## Summary\n.*?(?=^## )", text, re.DOTALL | re.MULTILINE)
    if summary is None:
        sys.exit("report/writeup.md must have a section `## Summary`")
    words = re.sub(r"^(\|.*\|)[^|]*\|$", r"\1", summary[0], flags=re.MULTILINE)  # without the column of records
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words)  # its links lead to sections of the page
    picture = "[![The first screen of the report](first-screen.png)](writeup.html)"
    pages = "[writeup.html](writeup.html) is the whole report, [explore.html](explore.html) draws its records"
    where = f"{pages}. Download them and open them in a browser."
    (HERE / "README.md").write_text(f"{title}\n\n{picture}\n\n{where}\n\n{words.strip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
