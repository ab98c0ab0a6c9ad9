"""Recipes: everything that decides a training run, in one frozen value, or in a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from labelloop.data.view_settings import STRONG, GeometryConfig, PhotometryConfig, ZoomDraw
from labelloop.distill.pseudo_settings import ORIENTATIONS, PseudoLabelConfig, Thresholded
from labelloop.errors import UsageError

T = TypeVar("T")
DistillationLabels = Literal["in turns", "online", "cached"]
Decay = Literal["cosine", "poly", "steps"]

PACKAGED = "labelloop.recipes"  # the package whose .toml files are recipes by name
BENCHMARK = "benchmark"  # the table of a recipe that says what it reproduces; no setting


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW with a warm-up and a decay.

    Attributes:
        lr: Peak learning rate.
        backbone_lr_factor: The backbone learns at this share of it; 0 leaves it as it is, which costs less.
        weight_decay: Of AdamW; none on normalisations and embeddings.
        decay_biases: Biases, and all else but normalisations, embeddings and tables of relative positions,
            decay like weights. Reference: on.
        clip_norm: Gradients are scaled down to this norm.
        warmup_share: Share of the schedule over which the rate rises.
        decay: ``cosine`` falls along half a cosine; ``poly`` as (1 - share of the schedule) ** ``power``;
            ``steps`` to a tenth at each of ``drops``.
        final_share: The rate at the end of a cosine, as a share of the peak.
        power: Of ``poly``.
        drops: Of ``steps``: shares of the schedule.
    """

    lr: float = 1e-3
    backbone_lr_factor: float = 0.3
    weight_decay: float = 0.05
    decay_biases: bool = False
    clip_norm: float = 5.0
    warmup_share: float = 0.1
    decay: Decay = "cosine"
    final_share: float = 0.01
    power: float = 0.9
    drops: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    The stages are those of guided distillation (Berrada et al., WACV 2024): a teacher on labels, guided
    burn-in of a student on labels and the frozen teacher's pseudo-labels, then distillation with the teacher
    as the student's moving average; and a fine-tuning on labels alone.

    Attributes:
        name: Of the recipe.
        iterations: Steps of the whole run, teacher included, where neither time nor iterations are asked for.
        teacher_share: Share of the iterations that train the teacher where the run is too short for the best
            supervised schedule; a baseline is trained apart then.
        least_student_share: Where at least this share is left for the student, the teacher has the best
            supervised schedule, and is the baseline too.
        supervised_steps: Steps of the best supervised schedule by number of labels; the teacher gets no more.
            The entry for 15 labels was found on validation images; the one for 75 is a guess, not measured.
        burn_in_share: Share of the student's steps with the frozen teacher.
        fine_tune_share: Share of the student's steps, at the end, on labels alone.
        fresh_student: The student starts anew (reference), else from the teacher.
        validation_share: Share of a large draw that validates where the project has no validation images;
            0 learns from all of it.
        pool_includes_labelled: The labelled images serve as unlabelled ones too, as in the reference.
        repeat_threshold: The student sees images with rare classes more often; 0 is off. Reference: 10.
        empty_images: Labelled images without objects are learnt from by the teacher, and by a student without
            ``repeat_threshold``. Reference: off.
        known_views: Labelled images are seen in proportion to what is known of them, how often and where. Of
            images without crowds, which are known as a whole, it changes nothing. Reference: off.
        labelled_batch: Labelled images per step.
        unlabelled_batch: Unlabelled images per step of the student.
        supervised_batch: Labelled images per step of the teacher.
        accumulate: Each process sees its images of a step in so many parts, one after the other, so that a
            batch of any size fits into memory. A loss is the mean over the parts, weighted by their images;
            their sum where a network divides by what the whole step holds.
        unlabelled_weight: Of the loss on pseudo-labels. Reference: 2.
        ema_decay: Per step. Reference: 0.9996.
        ema_decay_steps: Steps of distillation that ``ema_decay`` is for; over fewer or more the average
            forgets as large a share of where it began. 0 takes it as it is. Reference: 40,000.
        keeps_student: The model that a guided run keeps is the student itself, as in the reference, instead
            of its average.
        supervised_ema_decay: Weights of the supervised model are averaged like this; 0 takes the last ones.
        cached_images: At most so many unlabelled images, or parts of large ones, have pseudo-labels that are
            made once, averaged over views, and then used over and over (``looks_per_label``); 0 makes them in
            every step, as the reference does.
        looks_per_label: A student has time for fewer images than ``cached_images`` where it would see each
            less often than this.
        distillation_labels: What labels the distillation stage where labels are cached: ``in turns``, the
            first teacher labels half of the images and the student's average, as it becomes the teacher, the
            other half; ``online``, the moving average in every step; ``cached``, the first teacher's labels
            still.
        view_px: Sides of the views are at most this long; 0 leaves it to the model.
        input_scale: Networks see views and test images resized by this factor; 0 leaves it to the model,
            which brings the median object to a size.
        intensity_percentile: Low and high percentile (0..100) of an image that become black and white; none,
            ``[]``, for the range of its type, such as 0 and 255.
        pseudo: Which predictions become labels.
        optimiser: Of every stage.
        student_lr_factor: The student's rate, over the optimiser's, where it starts from the teacher; a fresh
            one learns at the full rate.
        student_backbone_lr_factor: Likewise its ``backbone_lr_factor``, over the optimiser's. With 0 its
            backbone stays the teacher's and a step costs two thirds, which is as good for a student of
            minutes, and worse for one that has longer.
        geometry: Shared by both views.
        weak: Photometry of labelled images and of what the teacher sees.
        strong: Photometry of what the student sees of unlabelled images, on top of the weak.
    """

    name: str = "default"
    iterations: int = 2000
    teacher_share: float = 0.5
    least_student_share: float = 0.2
    supervised_steps: tuple[tuple[int, int], ...] = ((15, 1000), (75, 2000))
    burn_in_share: float = 0.4
    fine_tune_share: float = 0.1
    fresh_student: bool = False
    validation_share: float = 0.2
    pool_includes_labelled: bool = False
    repeat_threshold: float = 0.0
    empty_images: bool = True
    known_views: bool = True
    labelled_batch: int = 1
    unlabelled_batch: int = 1
    supervised_batch: int = 2
    accumulate: int = 1
    unlabelled_weight: float = 1.0
    ema_decay: float = 0.99
    ema_decay_steps: int = 0
    keeps_student: bool = False
    supervised_ema_decay: float = 0.99
    cached_images: int = 300
    looks_per_label: int = 8
    distillation_labels: DistillationLabels = "cached"
    view_px: int = 0
    input_scale: float = 0.0
    intensity_percentile: tuple[float, ...] = (0.5, 99.5)
    pseudo: PseudoLabelConfig = PseudoLabelConfig(  # noqa: RUF009 (frozen)
        min_score=0.1,
        soft_scores=True,
        min_area_px=0.0,
        min_area_share=0.3,
        soft_masks=True,
        mask_cut=0.4,
        views=6,
        zooms=(1.3, 1.0),
    )
    optimiser: OptimiserConfig = OptimiserConfig()
    student_lr_factor: float = 1.0
    student_backbone_lr_factor: float = 1.0
    geometry: GeometryConfig = GeometryConfig()  # noqa: RUF009 (frozen)
    weak: PhotometryConfig = PhotometryConfig()  # noqa: RUF009 (frozen)
    strong: PhotometryConfig = STRONG

    def ema_decay_over(self, steps: int) -> float:
        """Decay per step of the student's average over so many steps of distillation."""
        if self.ema_decay_steps == 0 or steps == 0:
            return self.ema_decay
        return float(self.ema_decay ** (self.ema_decay_steps / steps))

    @property
    def student_optimiser(self) -> OptimiserConfig:
        """The optimiser of the student's stages."""
        if self.fresh_student:
            return self.optimiser
        return replace(
            self.optimiser,
            lr=self.optimiser.lr * self.student_lr_factor,
            backbone_lr_factor=self.optimiser.backbone_lr_factor * self.student_backbone_lr_factor,
        )

    def as_dict(self) -> dict[str, Any]:
        """As it is written into a run."""
        return asdict(self)


def recipe_from_dict(document: dict[str, Any], *, base: Recipe | None = None) -> Recipe:
    """A recipe from nested settings, as ``Recipe.as_dict`` gives them or as a TOML file holds some of them.

    Args:
        document: Settings by name; what is missing is as in ``base``.
        base: The default recipe if None.

    Raises:
        UsageError: Settings are unknown or of the wrong kind; all of them are named at once.
    """
    faults: list[str] = []
    recipe = _changed(base or Recipe(), document, "", faults)
    for name, chosen, choices in (
        ("distillation_labels", recipe.distillation_labels, get_args(DistillationLabels)),
        ("optimiser.decay", recipe.optimiser.decay, get_args(Decay)),
        ("pseudo.score", recipe.pseudo.score, get_args(Thresholded)),
        ("geometry.zoom_draw", recipe.geometry.zoom_draw, get_args(ZoomDraw)),
    ):
        if chosen not in choices:
            faults.append(f"{name} is {chosen!r}, not one of {', '.join(choices)}")
    views, zooms = recipe.pseudo.views, recipe.pseudo.zooms
    if not 1 <= views <= len(ORIENTATIONS):
        faults.append(f"pseudo.views is {views}, not 1 to {len(ORIENTATIONS)}")
    if not zooms or not all(isinstance(zoom, int | float) and zoom > 0 for zoom in zooms):
        faults.append(f"pseudo.zooms is {zooms!r}, not one or more numbers above 0")
    percentile = recipe.intensity_percentile
    if percentile and (len(percentile) != 2 or not 0 <= percentile[0] < percentile[1] <= 100):
        faults.append(
            f"intensity_percentile is {percentile!r}, not two rising numbers from 0 to 100, nor none"
        )
    for name in ("input_scale", "ema_decay_steps"):
        if not getattr(recipe, name) >= 0:
            faults.append(f"{name} is {getattr(recipe, name)}, below 0")
    if not 0 < recipe.pseudo.mask_cut < 1:
        faults.append(f"pseudo.mask_cut is {recipe.pseudo.mask_cut}, not above 0 and below 1")
    for name in ("accumulate", "looks_per_label"):
        if getattr(recipe, name) < 1:
            faults.append(f"{name} is {getattr(recipe, name)}, not 1 or more")
    for name, factor in (
        ("optimiser.backbone_lr_factor", recipe.optimiser.backbone_lr_factor),
        ("student_backbone_lr_factor", recipe.student_backbone_lr_factor),
    ):
        if not factor >= 0:
            faults.append(f"{name} is {factor}, below 0")
    if not recipe.student_lr_factor > 0:
        faults.append(f"student_lr_factor is {recipe.student_lr_factor}, not above 0")
    if not 0 <= recipe.least_student_share < 1:
        faults.append(f"least_student_share is {recipe.least_student_share}, not 0 or more and below 1")
    if faults:
        raise UsageError(
            "the recipe has settings that cannot be used",
            value="; ".join(faults),
            way_out="labelloop train writes every setting it used into runs/RUN/config.json.",
        )
    return recipe


def stored_recipe(document: dict[str, Any]) -> Recipe:
    """The recipe of a run from its ``Recipe.as_dict``; settings of later versions are as they were then."""
    return recipe_from_dict({"known_views": False} | document)


def _changed(base: T, document: dict[str, Any], path: str, faults: list[str]) -> T:
    """A frozen dataclass with some fields changed; nested ones likewise."""
    known = {field.name: getattr(base, field.name) for field in fields(base)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            close = get_close_matches(key, known, n=1)
            faults.append(f"{path}{key} is unknown" + (f" (did you mean {close[0]}?)" if close else ""))
        elif is_dataclass(known[key]) and isinstance(value, dict):
            changes[key] = _changed(known[key], value, f"{path}{key}.", faults)
        elif _same_kind(known[key], value):
            changes[key] = _as_tuple(value) if isinstance(value, list | tuple) else value
        else:
            faults.append(f"{path}{key} is {value!r}, the default is {known[key]!r}")
    return replace(base, **changes)  # type: ignore[type-var]


def _same_kind(default: Any, value: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int) and not isinstance(value, int):
        return False
    if isinstance(default, int | float) or default is None:
        return isinstance(value, int | float) or value is None
    return isinstance(value, list | tuple) if isinstance(default, tuple) else isinstance(value, type(default))


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list | tuple) else value


# The algorithm of guided distillation as its authors' code has it, scaled to the length of the run.
REFERENCE = Recipe(
    name="reference",
    fresh_student=True,
    burn_in_share=0.5,
    fine_tune_share=0.0,
    pool_includes_labelled=True,
    repeat_threshold=10.0,
    empty_images=False,
    known_views=False,
    unlabelled_weight=2.0,
    ema_decay=0.9996,
    ema_decay_steps=40_000,
    keeps_student=True,
    supervised_ema_decay=0.0,
    cached_images=0,
    pseudo=PseudoLabelConfig(score="class"),
    optimiser=OptimiserConfig(decay_biases=True),
    geometry=GeometryConfig(flips=False, least_visible=0.0),
)
BUILT_IN = {recipe.name: recipe for recipe in (Recipe(), REFERENCE)}


def find_recipe(name: str | None) -> Recipe:
    """The recipe of this name or in this TOML file; the default one for None.

    A file names the recipe that it changes as ``base`` (default, if it does not) and holds the settings that
    differ.

    Raises:
        UsageError: There is none, or it has settings that cannot be used.
    """
    return _found(name or "default", ())


def canonical_recipe(name: str) -> str:
    """The name as it is kept with a run: a file's is absolute, so that it is found from any folder."""
    return str(Path(name).resolve()) if name.endswith(".toml") else name


def recipe_document(name: str) -> dict[str, Any]:
    """What the TOML file of a recipe holds, of this package or of anybody.

    Raises:
        UsageError: There is none, or it is not TOML.
    """
    if name in packaged_names():
        return tomllib.loads((files(PACKAGED) / f"{name}.toml").read_text(encoding="utf-8"))
    if not name.endswith(".toml"):
        close = get_close_matches(name, [*BUILT_IN, *packaged_names()], n=3)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        raise UsageError(
            "there is no such recipe",
            value=name,
            way_out=f"{meant}Recipes are {', '.join(BUILT_IN)}, those of labelloop recipes, or a .toml file.",
        )
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"the recipe cannot be read ({error})", value=name, way_out="Give a TOML file."
        ) from error


def benchmark_table(name: str) -> tuple[str, dict[str, Any]] | None:
    """What a recipe, or the first of those that it is based on, says that it reproduces; None if none does.

    Returns:
        The recipe that says it, and its table ``benchmark``.

    Raises:
        UsageError: There is no such recipe.
    """
    seen: list[str] = []
    while name not in seen and name not in BUILT_IN:
        seen.append(name)
        document = recipe_document(name)
        if BENCHMARK in document:
            return name, document[BENCHMARK]
        name = _base_of(name, str(document.get("base", "default")))
    return None


def _base_of(name: str, base: str) -> str:
    """The base that a recipe names: a file lies beside the recipe's, or else in the current folder."""
    beside = Path(name).parent / base
    return str(beside) if base.endswith(".toml") and beside.is_file() else base


def packaged_names() -> list[str]:
    """The names of the recipes that this package holds as files, sorted."""
    names = (file.name for file in files(PACKAGED).iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _found(name: str, above: tuple[str, ...]) -> Recipe:
    """A recipe, with those that it is based on; ``above`` are those that are based on it."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name in above:
        raise UsageError(
            "recipes are based on one another in a circle",
            value=" <- ".join((*above, name)),
            way_out="Change base in one of these files.",
        )
    document = recipe_document(name)
    document.pop(BENCHMARK, None)
    base = document.pop("base", "default")
    if not isinstance(base, str):
        raise UsageError(
            "the recipe's base is not a name",
            value=base,
            way_out='Name a recipe or a .toml file, such as base = "default".',
        )
    settings = {"name": Path(name).name.removesuffix(".toml"), **document}
    return recipe_from_dict(settings, base=_found(_base_of(name, base), (*above, name)))
