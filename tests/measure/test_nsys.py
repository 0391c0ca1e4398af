"""nsys, which is not here: an executable of that name that does what it would."""

import stat
import sys
import textwrap
from pathlib import Path

import pytest

from stepbench.measure import nsys

TABLE = """\
Processing [report.sqlite] with [cuda_gpu_kern_sum.py]...

Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
 61.0,3000000,6,500000.0,500000.0,400000,600000,1000.0,"sm90_gemm<float, 128>"
 39.0,1500000,12,125000.0,125000.0,120000,130000,500.0,softmax_kernel
"""

FAKE = """\
    #!{python}
    import subprocess, sys
    arguments = sys.argv[1:]
    with open({log!r}, "a") as log:
        log.write(" ".join(arguments) + "\\n")
    if arguments[0] == "profile":
        output = next(each for each in arguments if each.startswith("--output=")).removeprefix("--output=")
        command = [each for each in arguments[1:] if not each.startswith("--")]
        code = subprocess.run(command).returncode
        if code == 0 and {writes}:
            open(output, "w").write("report")
        sys.exit(code)
    sys.stdout.write({table!r})
    """


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a fake nsys on the PATH and return its log."""
    log = tmp_path / "nsys.log"
    install(tmp_path, log)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return log


def install(folder: Path, log: Path, *, table: str = TABLE, writes: bool = True) -> None:
    path = folder / "bin" / "nsys"
    path.parent.mkdir(exist_ok=True)
    text = textwrap.dedent(FAKE).format(python=sys.executable, log=str(log), table=table, writes=writes)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_command_runs_under_it_and_report_and_table_are_kept(fake: Path, tmp_path: Path) -> None:
    left = tmp_path / "left behind"
    report = tmp_path / "cell.nsys-rep"
    script = tmp_path / "work.py"
    script.write_text(f"open({str(left)!r}, 'w')")
    kernels = nsys.record([sys.executable, str(script)], report)
    assert left.exists()
    assert report.read_text() == "report"
    assert kernels == [
        nsys.NsysKernel("sm90_gemm<float, 128>", 6, pytest.approx(3e-3)),
        nsys.NsysKernel("softmax_kernel", 12, pytest.approx(1.5e-3)),
    ]
    profiled, asked = fake.read_text().splitlines()
    assert profiled.startswith(
        "profile --trace=cuda,nvtx,osrt --capture-range=cudaProfilerApi --capture-range-end=stop"
    )
    assert asked.startswith("stats --report=cuda_gpu_kern_sum --format=csv")


@pytest.mark.usefixtures("fake")
def test_a_command_that_fails_is_told_with_its_code(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text("import sys; sys.exit('no such device')")
    with pytest.raises(nsys.NsysError, match=r"nsys profile exited with status 1: no such device"):
        nsys.record([sys.executable, str(script)], tmp_path / "x.nsys-rep")
    assert not (tmp_path / "x.nsys-rep").exists()


def test_no_report_and_no_table_are_told(fake: Path, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text("")
    install(tmp_path, fake, writes=False)
    with pytest.raises(nsys.NsysError, match="wrote no report"):
        nsys.record([sys.executable, str(script)], tmp_path / "x.nsys-rep")
    install(tmp_path, fake, table="SKIPPED: report.sqlite does not contain CUDA kernel data.\n")
    with pytest.raises(nsys.NsysError, match="got 'SKIPPED: report"):
        nsys.record([sys.executable, str(script)], tmp_path / "x.nsys-rep")


def test_a_table_with_words_for_numbers_is_refused() -> None:
    with pytest.raises(nsys.NsysError, match="must print numbers"):
        nsys.read(TABLE.replace("3000000,6", "many,few"))


def test_where_it_is_missing_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nsys.missing_reason("cuda") == "nsys is not on the PATH"


@pytest.mark.usefixtures("fake")
def test_it_is_for_cuda_alone() -> None:
    assert nsys.missing_reason("cpu") == "nsys records only CUDA kernels, but the device is cpu"
    assert nsys.missing_reason("cuda") is None
