"""The arithmetic that is fastest on a machine without harm to the result."""

from typing import Literal

import torch

Precision = Literal["auto", "32-true", "bf16-mixed"]


def choose_precision(wanted: Precision, device_type: str) -> Precision:
    """Mixed bfloat16 where the processor computes it natively, float32 elsewhere.

    Processors without bfloat16 arithmetic emulate it, many times slower than float32.
    """
    if wanted != "auto":
        return wanted
    native = False
    if device_type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device_type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"
