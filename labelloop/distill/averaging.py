"""Gradients, losses and running statistics of the processes that share a step, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from labelloop.team import Team


@torch.no_grad()
def average(
    module: nn.Module, facts: Mapping[str, float], device: torch.device, team: Team
) -> dict[str, float]:
    """Gives every process the whole step's gradients, and the mean of the running statistics.

    Gradients and facts of a process are those of its parts, weighted by their share of the step already, so
    they are added. A parameter that no process has a gradient of gets none, as in one process alone.

    Args:
        module: The student; its gradients and the statistics of its normalisations are changed in place.
        facts: Numbers to add up; the names are the same in every process.
        device: Where the module is.
        team: The processes.

    Returns:
        The sums of the facts.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    statistics = list(_running_statistics(module))
    has_gradient = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in parameters]
    pieces += [s.reshape(-1) / team.size for s in statistics]
    pieces += [has_gradient, torch.tensor(list(facts.values()), device=device)]
    flat = torch.cat(pieces)  # one message for all of it
    team.any(False)  # fails at once where a process is gone; between GPUs the message would wait half an hour
    team.add(flat)
    *summed, counts, totals = torch.split(flat, [len(piece) for piece in pieces])
    for parameter, piece, count in zip(parameters, summed, counts.tolist(), strict=False):
        if count > 0 and parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        if parameter.grad is not None:
            parameter.grad.copy_(piece.view_as(parameter))
    for statistic, piece in zip(statistics, summed[len(parameters) :], strict=True):
        statistic.copy_(piece.view_as(statistic))
    return dict(zip(facts, totals.tolist(), strict=True))


def _running_statistics(module: nn.Module) -> Iterator[Tensor]:
    """Means and variances that a training step changes."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            for statistic in (layer.running_mean, layer.running_var):
                if statistic is not None:
                    yield statistic
