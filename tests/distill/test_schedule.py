import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.distill.recipe import (
    REFERENCE,
    OptimiserConfig,
    Recipe,
    find_recipe,
    recipe_from_dict,
    stored_recipe,
)
from labelloop.distill.schedule import best_supervised_steps, guided_schedule, shared_from
from labelloop.distill.stages import learning_rate
from labelloop.errors import UsageError


@given(
    iterations=st.integers(4, 5000),
    n_labels=st.integers(1, 500),
    pool=st.integers(1, 5000),
    recipe=st.sampled_from([Recipe(), REFERENCE]),
)
def test_stages_add_up_and_none_is_negative(iterations, n_labels, pool, recipe):
    schedule = guided_schedule(recipe, iterations=iterations, n_labels=n_labels, pool=pool)
    assert schedule.iterations == iterations
    assert min(schedule.teacher, schedule.burn_in) >= 1
    assert min(schedule.distillation, schedule.fine_tune) >= 0
    assert 0 <= schedule.cached_images <= pool


@given(iterations=st.integers(4, 5000), n_labels=st.integers(1, 500))
def test_the_baseline_is_never_shorter_than_its_best_schedule_or_the_run(iterations, n_labels):
    recipe = Recipe()
    schedule = guided_schedule(recipe, iterations=iterations, n_labels=n_labels, pool=100)
    best = best_supervised_steps(n_labels, recipe.supervised_steps)
    assert schedule.supervised >= min(best, iterations)


def test_no_baseline_is_trained_apart_where_the_teacher_can_have_its_best_schedule():
    recipe = Recipe(supervised_steps=((15, 1000),), teacher_share=0.5, least_student_share=0.2)
    assert shared_from(recipe, 15) == 1250
    shared = guided_schedule(recipe, iterations=1250, n_labels=15, pool=100)
    assert (shared.teacher, shared.supervised, shared.student, shared.apart) == (1000, 1000, 250, False)
    short = guided_schedule(recipe, iterations=1248, n_labels=15, pool=100)
    assert (short.teacher, short.supervised, short.student) == (624, 1000, 624)


def test_no_more_images_get_labels_than_the_student_has_time_to_look_at():
    recipe = Recipe(cached_images=300, looks_per_label=8, fine_tune_share=0.1, supervised_steps=((15, 1000),))
    cached = {
        student: guided_schedule(recipe, iterations=1000 + student, n_labels=15, pool=500).cached_images
        for student in (800, 1600, 8000)
    }
    assert cached == {800: 90, 1600: 180, 8000: 300}
    assert guided_schedule(recipe, iterations=9000, n_labels=15, pool=20).cached_images == 20
    with pytest.raises(UsageError, match="looks_per_label is 0, not 1 or more"):
        recipe_from_dict({"looks_per_label": 0})


def test_a_student_learns_slower_than_its_teacher_unless_it_starts_anew():
    assert Recipe(student_lr_factor=0.3).student_optimiser.lr == pytest.approx(0.3 * OptimiserConfig().lr)
    assert Recipe(student_lr_factor=0.3, fresh_student=True).student_optimiser == OptimiserConfig()
    assert REFERENCE.student_optimiser == REFERENCE.optimiser
    slow = OptimiserConfig(backbone_lr_factor=0.2)
    assert Recipe(optimiser=slow).student_optimiser.backbone_lr_factor == 0.2
    quarter = Recipe(optimiser=slow, student_backbone_lr_factor=0.25)
    assert quarter.student_optimiser.backbone_lr_factor == pytest.approx(0.05)
    with pytest.raises(UsageError, match=r"student_backbone_lr_factor is -0\.1, below 0"):
        recipe_from_dict({"student_backbone_lr_factor": -0.1})
    with pytest.raises(UsageError, match=r"student_lr_factor is -1\.0, not above 0"):
        recipe_from_dict({"student_lr_factor": -1.0})


def test_a_run_of_an_earlier_version_goes_on_as_it_began():
    now = Recipe(student_lr_factor=0.3, student_backbone_lr_factor=0.0)
    assert stored_recipe(now.as_dict()) == now
    then = {k: v for k, v in now.as_dict().items() if not k.startswith("student_")}
    assert stored_recipe(then).student_optimiser == OptimiserConfig()
    assert not stored_recipe({k: v for k, v in then.items() if k != "known_views"}).known_views
    reference = REFERENCE.as_dict()
    assert stored_recipe(reference) == REFERENCE
    del reference["pseudo"]["score"], reference["optimiser"]["decay_biases"], reference["empty_images"]
    stored = stored_recipe(reference)
    assert stored.pseudo.score == "model"
    assert stored.empty_images
    assert not stored.optimiser.decay_biases


def test_a_score_that_there_is_none_of_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match=r"pseudo\.score is 'mask', not one of model, class"):
        recipe_from_dict({"pseudo": {"score": "mask"}})


def test_best_schedule_is_interpolated_between_measured_numbers_of_labels():
    table = ((15, 400), (60, 800))
    assert best_supervised_steps(3, table) == 400
    assert best_supervised_steps(30, table) == 600
    assert best_supervised_steps(1000, table) == 800


def test_learning_rate_rises_then_falls_to_its_final_share():
    config = OptimiserConfig(warmup_share=0.1, final_share=0.01)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] <= 1
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.01, abs=0.002)


def test_learning_rates_fall_as_the_references_do():
    poly = OptimiserConfig(warmup_share=0.0, decay="poly", power=0.9)
    assert [learning_rate(step, 100, poly) for step in (0, 50, 99)] == [
        1.0, pytest.approx(0.5**0.9), pytest.approx(0.01**0.9),
    ]  # fmt: skip
    steps = OptimiserConfig(warmup_share=0.0, decay="steps", drops=(0.5, 0.9))
    rates = [learning_rate(step, 100, steps) for step in (0, 49, 50, 89, 90)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])
    with pytest.raises(UsageError, match=r"optimiser\.decay is 'linear'"):
        recipe_from_dict({"optimiser": {"decay": "linear"}})


def test_recipes_survive_json():
    import json

    for recipe in (Recipe(), REFERENCE):
        assert recipe_from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_the_reference_recipe_is_the_published_algorithm():
    assert REFERENCE.fresh_student
    assert REFERENCE.ema_decay == 0.9996
    assert REFERENCE.unlabelled_weight == 2.0
    assert REFERENCE.cached_images == 0
    assert REFERENCE.pseudo.min_score == 0.7
    assert REFERENCE.pseudo.score == "class"
    assert REFERENCE.pseudo.min_area_px == 80
    assert not REFERENCE.pseudo.soft_masks
    assert REFERENCE.optimiser == OptimiserConfig(decay_biases=True)
    assert not REFERENCE.empty_images
    assert not REFERENCE.geometry.flips  # left and right only
    assert REFERENCE.geometry.least_visible == 0.0  # nothing is ignored


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UsageError, match="reference"):
        find_recipe("mine")


def test_a_recipe_file_changes_what_it_names_and_keeps_the_rest(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "reference"\niterations = 50\nunlabelled_weight = 1\n[pseudo]\nmin_score = 0.5\n')
    recipe = find_recipe(str(path))
    assert recipe.name == "mine"
    assert (recipe.iterations, recipe.unlabelled_weight, recipe.pseudo.min_score) == (50, 1, 0.5)
    assert (recipe.ema_decay, recipe.pseudo.min_area_px) == (
        REFERENCE.ema_decay,
        REFERENCE.pseudo.min_area_px,
    )


def test_a_recipe_file_with_mistakes_names_all_of_them(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('iterations = "many"\nema_deca = 0.9\n[pseudo]\nview = 2\n')
    with pytest.raises(UsageError) as caught:
        find_recipe(str(path))
    for part in ("iterations is 'many'", "did you mean ema_decay?", "pseudo.view is unknown"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("[pseudo]\nviews = 0", "pseudo.views is 0"),
        ("[pseudo]\nviews = 9", "pseudo.views is 9"),
        ("[pseudo]\nzooms = []", "pseudo.zooms is ()"),
        ("[pseudo]\nzooms = [1.3, 0.0]", "pseudo.zooms is (1.3, 0.0)"),
        ("[pseudo]\nmask_cut = 1.0", "pseudo.mask_cut is 1.0"),
        ("least_student_share = 1.0", "least_student_share is 1.0"),
        ("input_scale = -1.0", "input_scale is -1.0"),
        ("ema_decay_steps = -1", "ema_decay_steps is -1"),
        ("intensity_percentile = [99.5, 0.5]", "intensity_percentile is (99.5, 0.5)"),
        ("intensity_percentile = [50.0]", "intensity_percentile is (50.0,)"),
        ("intensity_percentile = [0.0, 255.0]", "intensity_percentile is (0.0, 255.0)"),
        ('[geometry]\nzoom_draw = "unifrom"', "geometry.zoom_draw is 'unifrom'"),
    ],
)
def test_a_setting_that_no_run_could_follow_is_named_before_the_run(tmp_path, setting, named):
    path = tmp_path / "mine.toml"
    path.write_text(setting + "\n")
    with pytest.raises(UsageError) as caught:
        find_recipe(str(path))
    assert named in str(caught.value)


def test_a_recipe_file_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        find_recipe(str(tmp_path / "none.toml"))
