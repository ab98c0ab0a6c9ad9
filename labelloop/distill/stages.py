"""The training loop: one function for every stage."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from labelloop.data.objects import SoftObjects
from labelloop.data.pool import ImageLoader
from labelloop.distill.averaging import WholeStep, average, whole_step
from labelloop.distill.batches import Batch, BatchPlan, fitted, make_batches, prefetched
from labelloop.distill.ema import ema_update
from labelloop.distill.pseudo_labels import pseudo_objects
from labelloop.distill.pseudo_settings import PseudoLabelConfig
from labelloop.distill.recipe import OptimiserConfig
from labelloop.errors import NonFiniteLossError
from labelloop.models.protocol import Amount, Divided, InstanceModel, Paced, Target, loss_of, seen_by
from labelloop.progress import Progress
from labelloop.team import ALONE, Team

LOWEST_SCORE = 0.05  # of what a teacher sees in a step
_FACTS = ("loss", "pseudo_loss", "pseudo_labels")


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage of a schedule.

    Attributes:
        batches: What each step sees.
        start: First step of the stage, counted from the start of the schedule it belongs to.
        stop: Step after its last one.
        schedule: Steps of the whole schedule; the learning rate follows it.
        ema_decay: The averaged model follows the student with this decay per step; None leaves it frozen.
        ema_from: Step at which the average began; right after it the decay is smaller, so that the average
            forgets where it began. None for the same decay in every step.
        online: How the averaged model labels the weak views in every step; None where labels are cached.
        unlabelled_weight: Of the loss on pseudo-labels.
        small_area_px: Area of a 5th-percentile object, in image px.
        optimiser: Rates.
    """

    batches: BatchPlan
    start: int
    stop: int
    schedule: int
    ema_decay: float | None
    ema_from: int | None
    online: PseudoLabelConfig | None
    unlabelled_weight: float
    small_area_px: float
    optimiser: OptimiserConfig


@dataclass
class Learner:
    """What a schedule changes: the student, its optimiser, and the averaged model or teacher beside it."""

    student: InstanceModel
    average: InstanceModel
    optimiser: torch.optim.Optimizer


def learning_rate(step: int, total: int, config: OptimiserConfig) -> float:
    """Share of the peak rate at a step: a linear warm-up, unless its share is 0, then the decay."""
    warmup = max(config.warmup_share * total, 1) if config.warmup_share > 0 else 0
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.decay == "poly":
        return float((1 - min(step / total, 1.0)) ** config.power)
    if config.decay == "steps":
        return float(0.1 ** sum(step >= drop * total for drop in config.drops))
    progress = (step - warmup) / max(total - warmup, 1)
    return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


_RELATIVE_POSITIONS = "relative_position_bias_table"
_POSITIONS = (_RELATIVE_POSITIONS, "position_embeddings", "cls_token")
_NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def make_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW; the backbone learns slower, or is frozen here.

    Vectors, which are biases and normalisations, and embeddings do not decay (Liu et al. 2021, Swin
    Transformer, of the table of relative positions). With ``decay_biases`` that is so of normalisations,
    embeddings and this table alone, as in Mask2Former's own training.
    """
    exempt = _not_decaying(module, config)
    peak = config.lr * (module.lr_factor if isinstance(module, Paced) else 1.0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = peak * (config.backbone_lr_factor if "body" in name.split(".") else 1.0)
            if rate == 0:
                parameter.requires_grad_(False)
                continue
            decay = 0.0 if name in exempt else config.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": p, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), p in groups.items()
        ],
        fused=all(
            p.device.type in ("cpu", "cuda") for p in module.parameters()
        ),  # on CPUs a sixth of the time
    )


def _not_decaying(module: nn.Module, config: OptimiserConfig) -> set[str]:
    kinds = (nn.Embedding, *_NORMALISATIONS) if config.decay_biases else (nn.Embedding,)
    of_kinds = {id(p) for m in module.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False)}
    named = _RELATIVE_POSITIONS if config.decay_biases else _POSITIONS
    return {
        name
        for name, p in module.named_parameters()
        if id(p) in of_kinds or name.endswith(named) or (p.ndim <= 1 and not config.decay_biases)
    }


def run_stage(
    plan: StagePlan,
    learner: Learner,
    fabric: Fabric,
    load: ImageLoader,
    progress: Progress,
    *,
    after_step: Callable[[int, Mapping[str, float]], None],
    team: Team = ALONE,
) -> float:
    """Runs the steps of a stage.

    Args:
        plan: The stage.
        learner: Changed in place.
        fabric: Device and precision.
        load: Where images come from.
        progress: Told of every step.
        after_step: Called with the number of finished steps and the step's losses; what it raises ends the
            stage.
        team: The processes that share the parts of every step.

    Returns:
        Seconds that steps waited for their batches.

    Raises:
        NonFiniteLossError: Before the optimiser step that would have spoilt the model.
    """
    waited = 0.0
    parts = team.share(range(plan.batches.parts))
    drawn = fitted(plan.batches, learner.student, load)
    made = prefetched(lambda step: make_batches(drawn, load, step, parts), plan.start, plan.stop)
    learner.student.module().train()
    step = plan.start
    asked = time.perf_counter()
    for batches in made:
        waited += time.perf_counter() - asked
        facts = train_step(step, batches, plan, learner, fabric, team)
        step += 1
        after_step(step, facts)
        progress.advance(1, **facts)
        asked = time.perf_counter()
    return waited


def train_step(
    step: int,
    batches: Sequence[Batch],
    plan: StagePlan,
    learner: Learner,
    fabric: Fabric,
    team: Team = ALONE,
) -> dict[str, float]:
    """One step: pseudo-labels of every part, losses of every part, update, EMA.

    The loss of a step is the mean of its parts' losses, weighted by their images: labelled images by labelled
    ones, unlabelled by unlabelled ones; where the student is Divided, it is their sum. It does not depend on
    which process sees which part. Where a model's loss is a mean over images, or Divided, and nothing in it
    is drawn at random or depends on the other images, it does not depend on the number of parts either.

    Args:
        step: Counted from the start of the schedule.
        batches: The parts that are this process's.
        plan: The stage.
        learner: Changed in place, in every process alike.
        fabric: Device and precision.
        team: The processes that share the step.

    Returns:
        The losses, and the pseudo-labels per image, of the whole step.

    Raises:
        NonFiniteLossError: The loss or the norm of its gradient is NaN or infinite; in every process, before
            the optimiser step.
    """
    for group in learner.optimiser.param_groups:
        group["lr"] = group["peak_lr"] * learning_rate(step, plan.schedule, plan.optimiser)
    learner.optimiser.zero_grad(set_to_none=True)
    facts = dict.fromkeys(_FACTS if plan.batches.unlabelled_batch else _FACTS[:1], 0.0)
    named: dict[str, float] = {}
    taught = [_taught(batch, step, plan, learner.average, fabric) for batch in batches]
    whole = None
    if plan.batches.parts > 1 and isinstance(learner.student, Divided):
        whole = whole_step(taught, learner.student, fabric.device, team)
    for batch in taught:
        _seed(step, batch, plan)
        of_part, losses = _learn(batch, whole, plan, learner, fabric)
        for name, value in of_part.items():
            facts[name] += value
        for name, value in losses.items():
            named[name] = named.get(name, 0.0) + value
    if team.size > 1:
        facts = average(learner.student.module(), facts, fabric.device, team)
    loss = facts["loss"] + plan.unlabelled_weight * facts.get("pseudo_loss", 0.0)
    if not math.isfinite(loss):
        raise _not_finite(f"the loss of step {step} is {loss}", named, batches)
    trained = [p for p in learner.student.module().parameters() if p.grad is not None]
    norm = float(torch.nn.utils.clip_grad_norm_(trained, plan.optimiser.clip_norm))  # alike in every process
    if not math.isfinite(norm):
        raise _not_finite(f"the norm of the gradient of step {step} is {norm}", named, batches)
    learner.optimiser.step()
    if plan.ema_decay is not None:
        age = math.inf if plan.ema_from is None else step - plan.ema_from
        decay = plan.ema_decay if age == math.inf else min(plan.ema_decay, (1 + age) / (10 + age))
        ema_update(learner.average.module(), learner.student.module(), decay=decay)
    return facts


def _seed(step: int, batch: Batch, plan: StagePlan) -> None:
    drawn = f"{plan.batches.seed}/{plan.batches.stage}/{step}"
    torch.manual_seed(zlib.crc32((drawn if plan.batches.parts == 1 else f"{drawn}/{batch.part}").encode()))


def _not_finite(what: str, losses: Mapping[str, float], batches: Sequence[Batch]) -> NonFiniteLossError:
    return NonFiniteLossError(
        what,
        value=losses,
        way_out=f"The step used the images {list(batches[0].image_ids) if batches else []} (ledger ids);"
        " run labelloop check on them. The last checkpoint is intact. A smaller learning rate in the recipe"
        " may help.",
    )


def _taught(batch: Batch, step: int, plan: StagePlan, teacher: InstanceModel, fabric: Fabric) -> Batch:
    """A part of a step with what its unlabelled images teach."""
    pseudo: Sequence[Target] = batch.pseudo
    if batch.weak and plan.online is not None:
        _seed(step, batch, plan)
        pseudo = _labels_from_teacher(batch, plan, teacher, fabric)
    return replace(batch, pseudo=tuple(replace(target, annotated=False) for target in pseudo))


def _learn(
    batch: Batch, whole: WholeStep | None, plan: StagePlan, learner: Learner, fabric: Fabric
) -> tuple[dict[str, float], dict[str, float]]:
    """Gradients of a part of a step; its share of the step's facts, and of the labelled losses by name."""
    total = torch.zeros((), device=fabric.device)
    facts: dict[str, float] = {}
    named: dict[str, float] = {}
    if batch.labelled:
        share = 1.0 if whole else len(batch.labelled) / plan.batches.labelled_batch
        divided_by = whole.labelled if whole else None
        losses = _losses(batch.labelled, divided_by, learner.student, fabric, batch.scale)
        total = share * sum(losses.values(), start=total)
        facts["loss"] = float(total.detach())
        named = {name: share * float(loss.detach()) for name, loss in losses.items()}
    if batch.strong:
        share = 1.0 if whole else len(batch.strong) / plan.batches.unlabelled_batch
        divided_by = whole.unlabelled if whole else None
        pairs = list(zip(batch.strong, batch.pseudo, strict=True))
        losses = _losses(pairs, divided_by, learner.student, fabric, batch.scale)
        unlabelled: Tensor = share * sum(losses.values(), start=torch.zeros((), device=fabric.device))
        total = total + plan.unlabelled_weight * unlabelled
        facts["pseudo_loss"] = float(unlabelled.detach())
        weights = [float(t.weights[~t.ignore].sum()) for t in batch.pseudo]
        facts["pseudo_labels"] = sum(weights) / plan.batches.unlabelled_batch
    fabric.backward(total)
    return facts, named


def _labels_from_teacher(
    batch: Batch, plan: StagePlan, teacher: InstanceModel, fabric: Fabric
) -> list[Target]:
    assert plan.online is not None
    weak, grid_yx = [w.to(fabric.device) for w in batch.weak], (batch.scale, batch.scale)
    with fabric.autocast():
        predictions = seen_by(teacher, weak, min_score=LOWEST_SCORE, resized_by=batch.scale)
    labels = [
        pseudo_objects(p, plan.online, small_area_px=plan.small_area_px, grid_yx=grid_yx) for p in predictions
    ]
    return [dense_target(objects) for objects in labels]


def _losses(
    pairs: Sequence[tuple[Tensor, Target]],
    divided_by: Amount | None,
    student: InstanceModel,
    fabric: Fabric,
    resized_by: float,
) -> dict[str, Tensor]:
    images = [image.to(fabric.device) for image, _ in pairs]
    with fabric.autocast():
        targets = [target.to(fabric.device) for _, target in pairs]
        return loss_of(student, images, targets, resized_by=resized_by, whole=divided_by)


def dense_target(objects: SoftObjects) -> Target:
    """Objects as a model's loss takes them, in the coordinates they are in."""
    masks = torch.zeros((len(objects), *objects.size_hw), dtype=torch.uint8)
    for mask, crop, (y, x) in zip(masks, objects.crops, objects.offsets_yx, strict=True):
        mask[y : y + crop.shape[0], x : x + crop.shape[1]] = torch.from_numpy(crop)
    return Target(
        masks=masks,
        labels=torch.from_numpy(objects.labels),
        weights=torch.from_numpy(objects.weights),
        ignore=torch.from_numpy(objects.ignore),
    )
