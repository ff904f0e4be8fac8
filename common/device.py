"""Where networks live and in what arithmetic their layers run."""

import torch

from common.errors import UserError


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have."""
    try:
        torch.zeros(1, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not usable here ({reason}); use cpu") from None


def use_bfloat16(precision: str, device: str) -> bool:
    """Whether hidden layers run in bfloat16; `auto` means: where the processor multiplies it natively."""
    if precision == "auto":
        return torch.device(device).type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return precision == "bfloat16"
