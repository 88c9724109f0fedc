"""The arithmetic that is fastest on a machine without harm to the result."""

from typing import Literal

import torch

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


def choose_precision(wanted: Precision, device_type: str) -> Precision:
    """Mixed bfloat16 where the processor computes it natively, float32 elsewhere.

    Processors without bfloat16 arithmetic emulate it, many times slower than float32.
    """
    if wanted != "auto":
        return wanted
    if device_type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if device_type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "32-true"
