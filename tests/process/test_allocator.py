"""The settings of malloc: what is kept and stated of them, and that the kernel's counters see them work."""

import os
import subprocess
import sys

import pytest

from stepbench.process import allocator

WITH_GLIBC = sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names
# Ten times the same buffers, freed in between, on the main thread and on another; prints the page faults of the last.
BUFFERS = """
import ctypes, resource, threading
libc = ctypes.CDLL(None)
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for mib in (3, 40, 100):
        at = ctypes.c_void_p()
        assert libc.posix_memalign(ctypes.byref(at), ctypes.c_size_t(64), ctypes.c_size_t(mib << 20)) == 0
        libc.memset(at, 1, mib << 20)
        libc.free(at)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def steps():
    print([step() for _ in range(10)][-1])
steps()
thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


def faults(environment: dict[str, str]) -> list[int]:
    done = subprocess.run([sys.executable, "-c", BUFFERS], env=environment, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(not WITH_GLIBC, reason="the settings are glibc's")
def test_buffers_that_were_freed_cost_no_page_fault_again() -> None:
    unset = {name: value for name, value in os.environ.items() if name != allocator.VARIABLE}
    pages = 143 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert max(faults(allocator.environment(unset))) < 0.01 * pages
    if not unset.get("LD_PRELOAD"):
        assert min(faults(unset)) > 0.01 * pages


def test_other_tunables_stay_and_every_setting_of_malloc_is_replaced() -> None:
    own = ":".join(f"glibc.malloc.{name}={value}" for name, value in allocator.SETTINGS.items())
    assert allocator.environment({"HOME": "/x"}) == {"HOME": "/x", "GLIBC_TUNABLES": own}
    given = {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.cpu.x=1", "MALLOC_PERTURB_": "7"}
    assert allocator.environment(given) == {"GLIBC_TUNABLES": f"glibc.cpu.x=1:{own}"}


@pytest.mark.skipif(not WITH_GLIBC, reason="the settings are glibc's")
def test_what_holds_in_this_process_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_provider", lambda: "libc.so.6")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.x=1:glibc.malloc.mmap_max=0:glibc.malloc.mxfast=0")
    assert allocator.stated() == "glibc.malloc.mmap_max=0:glibc.malloc.mxfast=0"
    monkeypatch.delenv("GLIBC_TUNABLES")
    assert allocator.stated() is None
    monkeypatch.setattr(allocator, "_provider", lambda: "libjemalloc.so.2")
    assert allocator.stated() == "libjemalloc.so.2"


def test_elsewhere_nothing_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.stated() is allocator.wanted() is None
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr_names", {})  # musl
    assert allocator.stated() is None


@pytest.mark.skipif(not WITH_GLIBC, reason="asks glibc's dynamic linker")
def test_the_malloc_of_this_process_is_found() -> None:
    assert allocator._provider().startswith("lib")
