"""Kaldi's MFCC in torch, batched: what Vosk computes with ``conf/mfcc.conf`` (no dither, no energy)."""

from __future__ import annotations

import math

import numpy as np
import torch

SAMPLE_RATE = 8000
WINDOW, HOP, FFT = 200, 80, 256  # 25 ms, 10 ms
BINS = 40  # mel bins and cepstra: as many, so that nothing is lost
LOW_HZ, HIGH_HZ = 60.0, 3800.0
LIFTER = 22
PREEMPHASIS = 0.97

MFCC_CONF = f"""--use-energy=false
--sample-frequency={SAMPLE_RATE}
--num-mel-bins={BINS}
--num-ceps={BINS}
--low-freq={LOW_HZ:g}
--high-freq={HIGH_HZ:g}
--dither=0
--allow-upsample=true
--allow-downsample=true
"""


def _mel(hz: float) -> float:
    return 1127.0 * math.log(1 + hz / 700.0)


def _mel_banks() -> torch.Tensor:
    """(FFT / 2 + 1, BINS) triangles, linear in mel."""
    low, high = _mel(LOW_HZ), _mel(HIGH_HZ)
    step = (high - low) / (BINS + 1)
    mels = np.array([_mel(SAMPLE_RATE / FFT * i) for i in range(FFT // 2 + 1)])
    left = low + step * np.arange(BINS)[None]
    rising, falling = (mels[:, None] - left) / step, (left + 2 * step - mels[:, None]) / step
    banks = np.maximum(0, np.minimum(rising, falling))
    banks[FFT // 2] = 0  # Kaldi leaves the Nyquist bin out
    return torch.tensor(banks, dtype=torch.float32)


def _liftered_dct() -> torch.Tensor:
    """(BINS, BINS) orthonormal DCT-II with cepstral liftering, log-mel to cepstra."""
    k, n = np.arange(BINS)[None], np.arange(BINS)[:, None]
    dct = np.sqrt(2 / BINS) * np.cos(np.pi / BINS * (n + 0.5) * k)
    dct[:, 0] = math.sqrt(1 / BINS)
    return torch.tensor(dct * (1 + LIFTER / 2 * np.sin(np.pi * k / LIFTER)), dtype=torch.float32)


_BANKS = _mel_banks()
_DCT = _liftered_dct()
_POVEY = torch.tensor(
    (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))) ** 0.85, dtype=torch.float32
)


def log_mel(samples: torch.Tensor) -> torch.Tensor:
    """``samples`` (B, n) float in the range of int16 -> (B, frames, BINS), ten frames in 100 ms."""
    frames = samples.unfold(-1, WINDOW, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], -1)
    spectrum = torch.fft.rfft((frames - PREEMPHASIS * previous) * _POVEY, FFT)
    power = spectrum.real.square() + spectrum.imag.square()
    return (power @ _BANKS).clamp_min(torch.finfo(torch.float32).eps).log()


def cepstra(log_mels: torch.Tensor) -> torch.Tensor:
    """The last step of Kaldi's MFCC: (..., BINS) log-mel -> (..., BINS) cepstra."""
    return log_mels @ _DCT


def mfcc(samples: torch.Tensor) -> torch.Tensor:
    """``samples`` (B, n) float in the range of int16 -> (B, frames, BINS)."""
    return cepstra(log_mel(samples))
