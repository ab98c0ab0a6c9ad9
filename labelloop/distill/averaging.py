"""What the parts of a step hold; gradients, losses and running statistics of the processes that share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labelloop.distill.batches import Batch
from labelloop.models.protocol import Amount, Divided, Target
from labelloop.team import Team


@dataclass(frozen=True, kw_only=True)
class WholeStep:
    """What all parts of a step hold together.

    Attributes:
        labelled: Of the labelled images.
        unlabelled: Of the unlabelled ones, as their pseudo-labels say.
    """

    labelled: Amount
    unlabelled: Amount


def whole_step(batches: Sequence[Batch], student: Divided, device: torch.device, team: Team) -> WholeStep:
    """Sums over the parts of a step, in all processes alike.

    Args:
        batches: The parts that are this process's, with their pseudo-labels.
        student: Says what targets hold of what its loss is divided by.
        device: Where processes meet.
        team: The processes.
    """
    kinds: list[list[Target]] = [
        [target for batch in batches for _, target in batch.labelled],
        [target for batch in batches for target in batch.pseudo],
    ]
    amounts = [student.amount(targets) for targets in kinds]
    sums = torch.tensor([[a.images, a.objects] for a in amounts], dtype=torch.float32, device=device)
    if team.size > 1:
        team.any(False)  # as in ``average``
        team.add(sums)
    labelled, unlabelled = (Amount(images=round(n), objects=objects) for n, objects in sums.tolist())
    return WholeStep(labelled=labelled, unlabelled=unlabelled)


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
