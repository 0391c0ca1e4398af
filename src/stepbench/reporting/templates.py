"""Templates of report/templates, and the scripts of ours that a page of theirs may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

import jinja2
from markupsafe import Markup

from stepbench.reporting import markup


def environment(folder: Path) -> jinja2.Environment:
    """Return the templates of a folder."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,  # a missing number is an error, never an empty string
        # In Markdown each value goes through the filter `md`; HTML's escaping would spoil it.
        autoescape=jinja2.select_autoescape(["html.j2"]),
        keep_trailing_newline=True,
    )
    found.filters["md"] = markup.escape
    return found


def script(folder: Path, name: str, before: Iterable[Path] = ()) -> dict[str, Markup | str]:
    """Return `script`, which a template holds as it is, and `digest`, by which the page's policy allows no other.

    Args:
        folder: of the templates.
        name: of a script in it.
        before: scripts that it needs.

    Raises:
        ValueError: a script would end its element.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in (*before, folder / name))
    if "</script" in text:
        raise ValueError(f"`{name}` must not have `</script` in it")
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return {"script": Markup(text), "digest": base64.b64encode(digest).decode("ascii")}  # noqa: S704
