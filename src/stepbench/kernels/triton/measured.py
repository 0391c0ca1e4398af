"""Times of kernels that `stepbench kernels --measure` took, from bundles; and these kernels compiled again for a refit.

A time says which tile it is of, not what that compiled to. The same version of Triton compiles to the same code.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import triton

from stepbench import versions
from stepbench.kernels.triton.compiling import compile_variant
from stepbench.kernels.triton.limits import sass
from stepbench.kernels.triton.limits.machine import MULTIPROCESSORS
from stepbench.kernels.triton.limits.predict import ARCHITECTURE, DTYPES, PRODUCTS
from stepbench.kernels.triton.limits.refit import Kernel, Launch
from stepbench.kernels.triton.tiles import Tile

Variant = tuple[str, int, str, Tile, bool]  # kernel, head dim, dtype, tile, whether through descriptors


def kernels(bundles: Mapping[str, Mapping[str, Any]], *, each: Callable[..., Iterable[Any]] = map) -> list[Kernel]:
    """Return the kernels that were timed, with all their times, compiled with the installed Triton.

    Args:
        bundles: name of a file → its content, of which `kernels` is read: `on`, as `kernel_timings.describe` has it,
            and `timed`, a list of its lines.
        each: `map`, or that of a pool of processes, which compiles.

    Raises:
        ValueError: a bundle has no such times, they are of another GPU than the model knows or of another Triton, or
            an entry is malformed.
    """
    found: dict[Variant, list[Launch]] = {}
    for file, content in bundles.items():
        part = content.get("kernels")
        part = part if isinstance(part, dict) else {}
        on, timed = part.get("on"), part.get("timed")
        if not isinstance(on, dict) or not isinstance(timed, list):
            raise ValueError(f"{file}: a bundle must hold times of kernels as `make gpu-check` takes them, got none")
        _check_machine(file, on)
        for line in timed:
            if isinstance(line, dict) and ("implementation" in line or "failed" in line):
                continue
            try:
                variant, launch = _read(line)
            except (KeyError, TypeError, ValueError) as error:
                told = f"{type(error).__name__}: {error}"
                raise ValueError(
                    f"{file}: a time of a kernel must be as `make gpu-check` writes it, got {line!r} ({told})"
                ) from None
            found.setdefault(variant, []).append(launch)
    compiled = each(_compiled, found)
    return [
        Kernel(variant[0], variant[1], variant[3], programs, code, tuple(launches))
        for (variant, launches), (programs, code) in zip(found.items(), compiled, strict=True)
    ]


def _check_machine(file: str, on: Mapping[str, Any]) -> None:
    got = on.get("architecture"), on.get("multiprocessors")
    if got != (ARCHITECTURE, MULTIPROCESSORS):
        raise ValueError(
            f"{file}: the model is of {ARCHITECTURE} with {MULTIPROCESSORS} multiprocessors (H100 SXM, H200), "
            f"got times of {got[0]} with {got[1]}"
        )
    if not versions.is_installed_triton(on.get("triton")):
        raise ValueError(
            f"{file}: times of kernels must be of the installed Triton {triton.__version__}, which compiles them "
            f"again, got {on.get('triton')}: install that version"
        )


def _read(line: Mapping[str, Any]) -> tuple[Variant, Launch]:
    name, dtype = line["kernel"], line["dtype"]
    if name not in PRODUCTS or dtype not in DTYPES:
        raise ValueError(f"`kernel` must be one of {', '.join(PRODUCTS)} and `dtype` one of {', '.join(DTYPES)}")
    seconds = float(line["seconds"])
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("`seconds` must be positive")
    numbers = [line[key] for key in ("head_dim", "context", "tokens", "width")]
    if not all(type(number) is int and number > 0 for number in (*numbers, *line["tile"])):
        raise ValueError("sizes must be positive integers")
    head_dim, context, tokens, width = numbers
    variant = name, head_dim, dtype, Tile(*line["tile"]), bool(line["descriptors"])
    return variant, Launch(context, bool(line["causal"]), tokens, width, seconds)


def _compiled(variant: Variant) -> tuple[int, tuple[sass.Instruction, ...]]:
    kernel, head_dim, dtype, tile, descriptors = variant
    made = compile_variant(
        kernel=kernel, architecture=ARCHITECTURE, head_dim=head_dim, dtype=dtype, tile=tile, descriptors=descriptors
    )
    return made.programs, tuple(sass.parse(made.sass))
