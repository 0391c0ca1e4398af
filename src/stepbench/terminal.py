"""Sentences for the user: whole lines on standard error, beside whatever other processes write there."""

from __future__ import annotations

import sys


def say(text: str, *, sign: str = "stepbench: ") -> None:
    """Write each line of `text` to standard error, with `sign` in front.

    It is one write. `print` makes two of a line where Python does not buffer (`PYTHONUNBUFFERED`, usual in containers),
    and of two processes that say something at the same instant the lines would run into each other.
    """
    sys.stderr.write("".join(f"{sign}{line}\n" for line in text.splitlines()))
    sys.stderr.flush()
