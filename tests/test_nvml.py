"""How busy GPUs are, by NVML: a library made here stands in for it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from cudafilter.nvidia.nvml import Busy, Nvml, NvmlError, Watch

SOURCE = r"""
#include <string.h>
static int started;
int nvmlInit_v2(void) { started = 1; return 0; }
int nvmlShutdown(void) { started = 0; return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu) {
  if (!started || strcmp(bus, "0000:3B:00.0")) return 6;
  *gpu = (void *)0x1234567890;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void *gpu, unsigned *rates) {
  if (gpu != (void *)0x1234567890) return 2;
  rates[0] = 19; rates[1] = 7;
  return 0;
}
int nvmlDeviceGetDecoderUtilization(void *gpu, unsigned *percent, unsigned *us) {
  *percent = 5; *us = 167000;
  return gpu != (void *)0x1234567890;
}
int nvmlDeviceGetEncoderUtilization(void *gpu, unsigned *percent, unsigned *us) { return 3; }
#ifdef JPEG
int nvmlDeviceGetJpgUtilization(void *gpu, unsigned *percent, unsigned *us) {
  *percent = 97; *us = 167000;
  return 0;
}
#endif
"""
BUS = "0000:3B:00.0"


def made(folder: Path, *flags: str) -> str:
    """A library with the calls of NVML that are used, of one GPU."""
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        pytest.skip("no C compiler here")
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", *flags, "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return str(library)


def test_a_gpu_tells_how_busy_its_parts_are(tmp_path: Path) -> None:
    nvml = Nvml(made(tmp_path, "-DJPEG"))
    assert nvml.busy(nvml.gpu(BUS)) == Busy(0.19, 0.07, 0.97, 0.05, None)
    nvml.close()


def test_what_an_older_library_does_not_tell_is_none(tmp_path: Path) -> None:
    nvml = Nvml(made(tmp_path))
    assert nvml.busy(nvml.gpu(BUS)).jpeg is None
    nvml.close()


def test_without_the_library_it_says_so() -> None:
    with pytest.raises(NvmlError, match=r"there is no libnvidia-ml\.so\.none"):
        Nvml("libnvidia-ml.so.none")


def test_a_gpu_that_it_does_not_know_is_an_error(tmp_path: Path) -> None:
    library = made(tmp_path)
    with pytest.raises(NvmlError, match="nvmlDeviceGetHandleByPciBusId_v2 failed with 6"):
        Watch(["0000:00:00.0"], lambda: Nvml(library)).__enter__()


def test_a_watch_takes_the_means(tmp_path: Path) -> None:
    library = made(tmp_path, "-DJPEG")
    with Watch([BUS], lambda: Nvml(library), every=0.01) as watch:
        time.sleep(0.1)
    (mean,) = watch.means()
    assert mean.kernels == pytest.approx(0.19)
    assert mean.jpeg == pytest.approx(0.97)
    assert mean.encoder is None


def test_a_short_watch_has_a_sample(tmp_path: Path) -> None:
    library = made(tmp_path)
    with Watch([BUS], lambda: Nvml(library), every=60) as watch:
        pass
    assert watch.means() == [Busy(0.19, 0.07, None, 0.05, None)]
