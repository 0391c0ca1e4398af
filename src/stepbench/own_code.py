"""Code of the user's own, by path: `my_models.py:build`. It is run in a measuring process and nowhere else.

The file sees what is installed and no file beside it, because a record's fingerprint holds this one file's content.
Importing this module imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
_OFFLINE = {"HF_HUB_OFFLINE": "1"}


class OwnCodeError(ValueError):
    """The user's code, or the file that describes a model, cannot be used; the message becomes the record's reason."""

    kind = "own_code"


def is_own(name: str) -> bool:
    """Return whether a name is `path.py:function`."""
    return ".py:" in name


def load(where: str) -> Callable[..., Any]:
    """Return the function that `path.py:function` names; the file is executed, once in a process for each content.

    Raises:
        OwnCodeError: there is no such file or function, or the file raises.
    """
    path, _, name = where.rpartition(":")
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise OwnCodeError(f"`{path}` must be a file that can be read: {error.strerror}") from None
    # Under a name of its own: dataclasses and pickle look a class' module up there.
    module_name = f"stepbench_own_{hashlib.sha256(text).hexdigest()[:16]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None  # noqa: S101 - the name ends in .py
        assert spec.loader is not None  # noqa: S101 - likewise
        sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
        try:
            with guarded(where):
                spec.loader.exec_module(module)
        except OwnCodeError:
            del sys.modules[module_name]
            raise
    found = getattr(sys.modules[module_name], name, None)
    if not callable(found):
        raise OwnCodeError(f"`{where}` must name a function, and {path} has none of this name")
    return found


@contextlib.contextmanager
def guarded(where: str) -> Iterator[None]:
    """Refuse the network meanwhile, and say whose exception it was that came out.

    Args:
        where: the code, as config.yaml names it.

    Raises:
        OwnCodeError: the code raised, or it tried to reach another host, whether or not it caught that itself.
    """
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    _guard.tried.clear()
    _guard.depth += 1
    problem: BaseException | None = None
    try:
        yield
    except OwnCodeError as error:
        problem = error
        if not _guard.tried:
            raise
    except (Exception, SystemExit) as error:  # a file may be a script that ends in sys.exit()
        problem = error
        if not _guard.tried:
            raise raised(where, error) from error
    finally:
        _guard.depth -= 1
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    if _guard.tried:
        raise OwnCodeError(
            f"`{where}` must not use the network, because a measurement must be the same everywhere, and it tried to "
            f"reach {_guard.tried[0]}"
        ) from problem


class _Guard:
    """Sees every attempt to reach another host, once it has been installed; an audit hook cannot be taken away."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self._depth = 0
        self._installed = False

    @property
    def depth(self) -> int:
        return self._depth

    @depth.setter
    def depth(self, value: int) -> None:
        if not self._installed:
            sys.addaudithook(self._audit)
            self._installed = True
        self._depth = value

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._depth and event in _NETWORK:
            if event == "socket.connect" and arguments[0].family not in (socket.AF_INET, socket.AF_INET6):
                return
            where = arguments[1] if event == "socket.connect" else arguments[0]
            self.tried.append(str(where[0] if isinstance(where, tuple) else where))
            raise ConnectionRefusedError(f"the network is not to be used here, got {self.tried[-1]}")


_guard = _Guard()


def raised(where: str, error: BaseException) -> OwnCodeError:
    """Return the error that says whose exception it was.

    Args:
        where: the code, as config.yaml names it.
        error: what it raised.
    """
    return OwnCodeError(f"`{where}` raised {_told(error)}")


def _told(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
