"""Keep the SASS of some kernels for test_limits: `python -m tests.testing.kept_sass`, with the Triton of figures.json.

What was compiled is in each file's first line. Lines that `sass.parse` does not read are left out.
"""

import json
import lzma
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepbench.kernels.triton.compiling import compile_variant
from stepbench.kernels.triton.tiles import Tile

FOLDER = Path(__file__).parents[1] / "kernels" / "sass"
# The kernels of which the model's prototype left figures: first at the tiles that were shipped then.
KEPT = (
    ("forward", 64, (128, 128, 8, 3)),
    ("forward", 64, (128, 64, 8, 3)),
    ("backward_keys", 64, (64, 128, 8, 3)),
    ("backward_queries", 64, (128, 128, 8, 3)),
    ("backward_fused", 64, (64, 128, 8, 3)),
    ("forward", 128, (128, 128, 8, 3)),
    ("forward_one_loop", 128, (128, 128, 8, 3)),
    ("backward_keys", 128, (64, 128, 8, 3)),
    ("backward_queries", 128, (128, 128, 8, 2)),
    ("backward_queries", 128, (128, 64, 8, 4)),
    ("forward", 64, (128, 64, 4, 3)),
    # What is shipped now at these head dims and is not among those above.
    ("backward_keys", 64, (64, 64, 4, 3, 168)),
    ("backward_queries", 64, (128, 64, 8, 3)),
    ("backward_reduced", 64, (32, 64, 4, 4)),
    ("backward_fused", 128, (64, 64, 8, 2)),
    ("backward_reduced", 128, (32, 128, 8, 3)),
)


def path_of(kernel: str, head_dim: int, shape: tuple[int, ...]) -> Path:
    """Return the file of one kernel."""
    return FOLDER / f"{kernel}-{head_dim}-{'x'.join(map(str, shape))}.xz"


def read(path: Path) -> tuple[dict[str, Any], str]:
    """Return what was compiled, with registers and shared memory, and its SASS."""
    head, _, text = lzma.decompress(path.read_bytes()).decode().partition("\n")
    return json.loads(head), text


def keep(kernels: Sequence[tuple[str, int, tuple[int, ...]]] = KEPT) -> None:
    """Compile and write them."""
    FOLDER.mkdir(exist_ok=True)
    for kernel, head_dim, shape in kernels:
        compiled = compile_variant(
            kernel=kernel,
            architecture="sm_90",
            head_dim=head_dim,
            dtype="bfloat16",
            tile=Tile(*shape),
            descriptors=True,
        )
        about = {"kernel": kernel, "head_dim": head_dim, "tile": shape}
        about |= {"registers": compiled.registers, "shared_bytes": compiled.shared_bytes}
        lines = [
            re.sub(r"\s+", " ", line)
            for line in compiled.sass.splitlines()
            if re.search(r"/\* 0x[0-9a-f]{16} \*/", line)
        ]
        text = "\n".join([json.dumps(about), *lines])
        path_of(kernel, head_dim, shape).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    keep()
