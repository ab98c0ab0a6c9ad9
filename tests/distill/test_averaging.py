"""What two processes make of the gradients and statistics of a step that they share."""

from __future__ import annotations

import torch
from torch import nn

from labelloop.distill.averaging import average
from labelloop.processes import started

OTHER = """
import torch
from torch import nn
from labelloop.distill.averaging import average
from labelloop.processes import take_part
with take_part(device_type="cpu") as team:
    module = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(1, 1), nn.BatchNorm1d(1)])
    module[0].weight.grad = torch.tensor([[1.0, 2.0]])
    module[1].bias.grad = torch.tensor([5.0])
    module[2].running_mean.fill_(4.0)
    average(module, {"loss": 0.5, "pseudo_loss": 2.0}, torch.device("cpu"), team)
    team.gather((module[0].weight.grad.tolist(), module[2].running_mean.item()))
    team.wait()
"""


def test_gradients_and_losses_are_added_and_statistics_averaged(tmp_path):
    module = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(1, 1), nn.BatchNorm1d(1)])
    module[0].weight.grad = torch.tensor([[10.0, 20.0]])
    with started(["-c", OTHER], size=2, device_type="cpu", logs=tmp_path, way_out="") as team:
        facts = average(module, {"loss": 1.0, "pseudo_loss": 0.0}, torch.device("cpu"), team)
        _, theirs = team.gather(None)
        team.wait()
    assert facts == {"loss": 1.5, "pseudo_loss": 2.0}
    assert module[0].weight.grad.tolist() == [[11.0, 22.0]]
    assert module[1].bias.grad.tolist() == [5.0]  # no gradient here, one there
    assert module[1].weight.grad is None  # none anywhere: the optimiser leaves it alone
    assert module[2].running_mean.item() == 2.0
    assert theirs == ([[11.0, 22.0]], 2.0)
