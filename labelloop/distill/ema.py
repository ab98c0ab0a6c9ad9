"""Teacher as the exponential moving average of the student."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, *, decay: float) -> None:
    """Moves the teacher towards the student: ``t = decay * t + (1 - decay) * s``.

    Parameters and floating-point buffers (batch statistics among them) are averaged, other buffers copied.
    A decay of 0 makes the teacher the student. (Tarvainen and Valpola 2017, Mean teachers, eq. 1.)

    Args:
        teacher: Changed in place; it never takes part in a gradient.
        student: Of the same architecture.
        decay: 0..1.
    """
    ours = [*teacher.parameters(), *teacher.buffers()]
    theirs = [*student.parameters(), *student.buffers()]
    floating = [(t, s.detach()) for t, s in zip(ours, theirs, strict=True) if t.is_floating_point()]
    torch._foreach_lerp_([t for t, _ in floating], [s for _, s in floating], 1 - decay)
    for t, s in zip(ours, theirs, strict=True):
        if not t.is_floating_point():
            t.copy_(s)
