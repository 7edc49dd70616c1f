"""Make ``import torchaudio`` work beside a CPU-only torch, and ``import speechbrain`` harmless.

The wheels of torchaudio link CUDA libraries. Where torch is the CPU build those are absent and importing
torchaudio, and with it speechbrain, fails with ``OSError: libc10_cuda.so``. Only torchaudio's compiled
extension is missing then; all that speaker recognition needs is pure Python. So a stub says that the
extension is not available, which is a state that torchaudio itself knows.

Call :func:`import_speechbrain` before importing anything of speechbrain. Where the native import of torchaudio works
it is left alone.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_EXTENSION = "torchaudio._extension"


def ensure_torchaudio() -> bool:
    """Import torchaudio, with the stub if the native import fails. Returns whether the stub is in use."""
    try:
        importlib.import_module("torchaudio")
    except OSError:
        for name in [n for n in sys.modules if n == "torchaudio" or n.startswith("torchaudio.")]:
            del sys.modules[name]  # what the failed import left half done
        sys.modules[_EXTENSION] = _stub()
        importlib.import_module("torchaudio")
    return getattr(sys.modules.get(_EXTENSION), "is_stub", False)


def import_speechbrain() -> None:
    """Import speechbrain, without the stand-ins for its old module names.

    Those lie in ``sys.modules`` and import what they stand for when anybody so much as asks for their ``__file__``, as
    debuggers, reloaders and hypothesis do; where that is an optional package that is not installed, they raise.
    """
    ensure_torchaudio()
    importlib.import_module("speechbrain")
    redirects = importlib.import_module("speechbrain.utils.importutils").LazyModule
    for name in [name for name, module in sys.modules.items() if isinstance(module, redirects)]:
        del sys.modules[name]


def _stub() -> ModuleType:
    stub = ModuleType(_EXTENSION)
    stub.is_stub = True  # type: ignore[attr-defined]
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
    stub.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
    return stub
