"""Vosk, loaded so that it computes with what the processor has: ``from ivr.speech.library import vosk``.

Its library carries an OpenBLAS that takes a processor newer than itself for one of 2004, and hearing then costs half as
much again. OPENBLAS_CORETYPE in the environment wins over what is chosen here.
"""

from __future__ import annotations

import os
from pathlib import Path

#: What a processor has, and the name of OpenBLAS's kernels for it, best first.
KERNELS = (({"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "SkylakeX"), ({"avx2", "fma"}, "Haswell"))


def kernels(cpuinfo: str) -> str | None:
    """The best kernels for the processor of ``cpuinfo`` (Linux's); None: let OpenBLAS choose."""
    flags = next((set(line.split()) for line in cpuinfo.splitlines() if line.startswith("flags")), set())
    return next((name for needed, name in KERNELS if needed <= flags), None)


_CPUINFO = Path("/proc/cpuinfo")
if _found := kernels(_CPUINFO.read_text() if _CPUINFO.exists() else ""):
    os.environ.setdefault("OPENBLAS_CORETYPE", _found)

import vosk  # noqa: E402  # it reads the environment when it is loaded

__all__ = ["kernels", "vosk"]
