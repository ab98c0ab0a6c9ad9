import torch
from torch import nn

from labelloop.distill.ema import ema_update


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))  # noqa: E731
    return make(), make()


def test_parameters_and_running_statistics_move_by_one_minus_decay_and_counters_are_copied():
    teacher, student = pair()
    student[1].running_mean += 2.0
    student[1].num_batches_tracked += 7
    before = [t.clone() for t in (*teacher.parameters(), *teacher.buffers())]
    ema_update(teacher, student, decay=0.9)
    for old, new, s in zip(
        before,
        (*teacher.parameters(), *teacher.buffers()),
        (*student.parameters(), *student.buffers()),
        strict=True,
    ):
        if new.is_floating_point():
            assert torch.allclose(new, 0.9 * old + 0.1 * s)
        else:
            assert torch.equal(new, s)


def test_decay_zero_makes_the_teacher_the_student():
    teacher, student = pair()
    ema_update(teacher, student, decay=0.0)
    assert all(torch.equal(t, s) for t, s in zip(teacher.parameters(), student.parameters(), strict=True))


def test_averaging_leaves_no_gradient_graph_behind():
    teacher, student = pair()
    student(torch.rand(5, 3)).sum().backward()
    ema_update(teacher.requires_grad_(False), student, decay=0.5)
    assert not any(t.requires_grad or t.grad_fn is not None for t in teacher.parameters())
