from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
import torch

from labelloop.distill.recipe import OptimiserConfig
from labelloop.distill.stages import make_optimiser
from labelloop.errors import ModelError, TrainingError
from labelloop.models import mask2former_sizes
from labelloop.models.catalog import build_model, find_architecture
from labelloop.models.mask2former import Mask2Former, fit_to, query_target
from labelloop.models.mask2former_criterion import CriterionConfig
from labelloop.models.protocol import Paced, to_instances
from labelloop.predict.tiles import Strided
from tiny_mask2former import FIT, TINY, TINY_SWIN, tiny_network, tiny_swin

TINY_DINO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def lite_stats():
    from labelloop.models.data_stats import DataStats

    return DataStats(
        classes=("organoid",),
        image_size_hw=(64, 64),
        diameter_px=(26.0, 52.0, 60.0),  # the network sees the images as they are
        box_side_px=(26.0, 52.0, 60.0),
        objects_per_image=(3.0, 5.0),
    )


@pytest.fixture
def model(lite_stats):
    torch.manual_seed(0)
    return build_model("mask2former-lite", lite_stats, pretrained=False)


@pytest.fixture
def theirs():
    """transformers' own Mask2Former of two classes, random, with 12 queries."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    backbone = SwinConfig(**TINY_SWIN, out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(
        backbone_config=backbone, **TINY, num_queries=12, num_labels=2, train_num_points=200
    )
    return Mask2FormerForUniversalSegmentation(config)


@pytest.fixture
def same_weights(theirs, tmp_path):
    """Our network with the weights of theirs, through a folder."""
    from labelloop.models.mask2former_backbones import load_pretrained

    theirs.save_pretrained(tmp_path / "whole")
    network = tiny_swin()
    load_pretrained(network, str(tmp_path / "whole"))
    return network


def test_outputs_and_losses_are_those_of_transformers(theirs, same_weights, discs):
    images = torch.rand(2, 3, 64, 64)
    targets = [discs([(20, 20, 9), (44, 40, 12), (30, 50, 8)]), discs([(30, 30, 14)])]
    targets[0].labels[1] = 1
    ours = Mask2Former(same_weights, FIT, CriterionConfig(points=200))
    normal = (images - ours.mean) / ours.std
    theirs.train()
    ours.train()
    torch.manual_seed(3)
    wanted = theirs(
        pixel_values=normal,
        mask_labels=[t.masks.float() / 255 for t in targets],
        class_labels=[t.labels for t in targets],
        output_auxiliary_logits=True,
    )
    outputs = same_weights(normal)
    assert torch.allclose(outputs[-1].classes_BQK, wanted.class_queries_logits, atol=1e-5)
    assert torch.allclose(outputs[-1].masks_BQHW, wanted.masks_queries_logits, atol=1e-5)
    assert len(outputs) == len(wanted.auxiliary_logits) + 1 == 3
    torch.manual_seed(3)
    losses = ours.loss(list(images), targets)
    total = float(sum(losses.values()).detach())
    assert total == pytest.approx(float(wanted.loss.detach()), rel=1e-5)


def test_more_queries_and_other_classes_than_the_weights_have_keep_what_fits(theirs, tmp_path):
    from labelloop.models.mask2former_backbones import load_pretrained

    theirs.save_pretrained(tmp_path)
    network = tiny_swin(dataclasses.replace(FIT, n_classes=1, queries=20))
    before = {name: value.clone() for name, value in network.decoders.state_dict().items()}
    load_pretrained(network, str(tmp_path))
    queries, old = network.decoders.queries.queries_features.weight, theirs.model.transformer_module
    assert torch.equal(queries[:12], old.queries_features.weight)
    assert torch.equal(queries[12:], before["queries.queries_features.weight"][12:])
    assert torch.equal(network.decoders.class_predictor.weight, before["class_predictor.weight"])


def test_backbones_take_their_weights_from_a_folder(tmp_path):
    from transformers import Dinov2Config, Dinov2Model, SwinConfig, SwinForImageClassification

    from labelloop.models.mask2former_backbones import dinov2, load_pretrained, swin

    SwinForImageClassification(SwinConfig(**TINY_SWIN)).save_pretrained(tmp_path / "swin")
    network = tiny_network(swin(**TINY_SWIN))
    load_pretrained(network, str(tmp_path / "swin"))
    stored = SwinForImageClassification.from_pretrained(tmp_path / "swin").swin.state_dict()
    for name, value in network.backbone.body.swin.state_dict().items():
        assert torch.equal(value, stored[name]), name
    theirs = Dinov2Model(Dinov2Config(**TINY_DINO, image_size=518, patch_size=14))
    theirs.save_pretrained(tmp_path / "dino")
    network = tiny_network(dinov2(**TINY_DINO))
    load_pretrained(network, str(tmp_path / "dino"))
    stored = theirs.state_dict()
    for name, value in network.backbone.body.state_dict().items():
        assert torch.equal(value, stored[name]), name
    with pytest.raises(ModelError, match="not of a dinov2"):
        load_pretrained(network, str(tmp_path / "swin"))
    with pytest.raises(ModelError, match="do not fit"):
        load_pretrained(tiny_network(dinov2(**{**TINY_DINO, "hidden_size": 64})), str(tmp_path / "dino"))


@pytest.mark.parametrize("name", ["mask2former-swin-t", "mask2former-r50"])
def test_weights_that_are_not_there_are_a_clear_error(name, lite_stats, tmp_path):
    with pytest.raises(ModelError) as caught:
        build_model(f"{name}:{tmp_path}/nothing", lite_stats)
    assert caught.value.value == f"{tmp_path}/nothing"
    assert caught.value.way_out


def test_the_pyramid_of_dinov2_has_four_levels_of_the_input():
    from labelloop.models.mask2former_backbones import dinov2

    backbone = dinov2(**TINY_DINO)
    features = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(f.shape[-2:]) for f in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert tuple(f.shape[1] for f in features) == backbone.channels


@pytest.mark.parametrize("backbone", ["swin", "dinov2"])
def test_backbones_learn_slower_and_all_parts_learn(backbone, discs):
    from labelloop.models import mask2former_backbones

    sizes = TINY_SWIN if backbone == "swin" else TINY_DINO
    made = getattr(mask2former_backbones, backbone)(**sizes)
    model = Mask2Former(tiny_network(made), FIT, CriterionConfig(points=100), lr_factor=0.1)
    images, targets = [torch.rand(3, 64, 64)], [discs([(20, 20, 9), (44, 40, 12)])]
    sum(model.loss(images, targets).values()).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert all("mask_token" in n or "body.swin.layernorm" in n for n in silent)
    assert isinstance(model, Paced)
    config = OptimiserConfig()
    rates = {id(p): g["peak_lr"] for g in make_optimiser(model, config).param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        share = config.backbone_lr_factor if name.startswith("network.backbone.body.") else 1.0
        assert rates[id(parameter)] == pytest.approx(0.1 * share * config.lr)


def test_a_few_steps_on_one_image_find_its_discs(lite_stats, discs):
    torch.manual_seed(0)
    model = build_model("mask2former-lite", lite_stats)
    target = discs([(20, 20, 12), (44, 44, 14)])
    image = (target.masks.amax(0).float() / 255 * 0.8 + 0.1).expand(3, -1, -1).contiguous()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for _ in range(50):
        loss = sum(model.loss([image, image], [target, target]).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    masks = to_instances(model.predict([image], min_score=0.3)[0]).to_dense()
    truth = target.masks.numpy() > 0
    ious = [max((m & t).sum() / (m | t).sum() for m in masks) for t in truth]
    assert min(ious) > 0.6


def test_images_without_objects_give_finite_losses(model, discs):
    image = torch.rand(3, 64, 64)
    for targets in ([discs([]), discs([(30, 30, 10)])], [discs([]), discs([])]):
        losses = model.loss([image, image], targets)
        assert all(torch.isfinite(loss) for loss in losses.values())


def test_half_precision_and_full_precision_see_about_the_same(model):
    image = torch.rand(3, 64, 64)
    plain = model.predict([image], min_score=0.0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        narrow = model.predict([image], min_score=0.0)[0]
    assert abs(float(plain.scores[:5].mean()) - float(narrow.scores[:5].mean())) < 0.05


def test_the_shift_that_changes_least_is_that_of_the_coarsest_cells(model):
    assert isinstance(model, Strided)
    assert model.stride_px == 32 / model.fit.input_scale


@pytest.mark.parametrize(
    ("most", "diameter", "queries"),
    [(5, 52.0, 50), (100, 52.0, 150), (140, 52.0, 160), (280, 52.0, 280)],
    ids=["few", "half as many again", "what fits into a view", "small ones beside the median"],
)
def test_queries_follow_the_fullest_view(lite_stats, most, diameter, queries):
    crowded = dataclasses.replace(
        lite_stats, objects_per_image=(most / 2, most), diameter_px=(diameter / 2, diameter, diameter * 1.5)
    )
    sizes = {"target_diameter_px": 52.0, "input_side_px": 384}
    assert fit_to(crowded, **sizes, least_queries=50).queries == queries
    assert fit_to(crowded, **sizes, least_queries=200).queries == max(queries, 200)


def test_a_factor_that_the_recipe_sets_is_taken_as_it_is(lite_stats):
    asked = dataclasses.replace(lite_stats, input_scale=1.0)
    fit = fit_to(asked, target_diameter_px=4 * asked.diameter_px[1], input_side_px=384, least_queries=50)
    assert fit.input_scale == 1.0


def test_embeddings_and_normalisations_do_not_decay():
    network = tiny_swin()
    groups = make_optimiser(network, OptimiserConfig()).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    still = {name for name, p in network.named_parameters() if p.requires_grad and decay[id(p)] == 0}
    assert any("queries_features" in name for name in still)
    assert any("relative_position_bias_table" in name for name in still)
    weights = {
        name for name, m in network.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    }
    assert not still & {f"{name}.weight" for name in weights}


def test_where_biases_decay_only_normalisations_embeddings_and_relative_positions_do_not():
    from labelloop.models.mask2former_backbones import dinov2

    for network in (tiny_swin(), tiny_network(dinov2(**TINY_DINO))):
        kinds = torch.nn.LayerNorm | torch.nn.GroupNorm | torch.nn.BatchNorm2d | torch.nn.Embedding
        exempt = {
            f"{name}.{own}"
            for name, module in network.named_modules()
            for own, _ in module.named_parameters(recurse=False)
            if isinstance(module, kinds) or own == "relative_position_bias_table"
        }
        groups = make_optimiser(network, OptimiserConfig(decay_biases=True)).param_groups
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        learnt = {name: decay[id(p)] for name, p in network.named_parameters() if p.requires_grad}
        assert {name for name, rate in learnt.items() if rate == 0} == exempt & set(learnt)
        assert set(learnt.values()) == {0.0, OptimiserConfig().weight_decay}
        assert any(name.endswith(".bias") and rate > 0 for name, rate in learnt.items())


def test_more_annotated_objects_than_queries_are_an_error_that_names_the_way_out(discs):
    model = Mask2Former(tiny_swin(), FIT, CriterionConfig(points=100))
    target = discs([(8 + 12 * (i // 5), 8 + 12 * (i % 5), 4) for i in range(20)])
    with pytest.raises(TrainingError, match="more objects") as caught:
        model.loss([torch.rand(3, 64, 64)], [target])
    assert caught.value.value == "20 objects, 12 queries"
    assert caught.value.way_out


def test_doubtful_pseudo_labels_without_a_query_are_left_out(discs):
    target = discs([(8 + 12 * (i // 5), 8 + 12 * (i % 5), 4) for i in range(20)])
    weights = torch.linspace(0.05, 1.0, 20)
    target = dataclasses.replace(target, weights=weights, annotated=False)
    seen = query_target(target, extent_xy=(1.0, 1.0), queries=12)
    assert torch.equal(seen.weights, weights[8:])
    assert torch.equal(seen.masks, target.masks[8:])


@pytest.mark.parametrize("weight", [0.6, 1.0], ids=["probable", "hard"])
def test_pseudo_labels_beyond_the_queries_do_not_end_a_run_however_sure_they_are(discs, weight):
    target = discs([(8 + 12 * (i // 5), 8 + 12 * (i % 5), 4) for i in range(20)])
    pseudo = dataclasses.replace(target, weights=torch.full((20,), weight), annotated=False)
    assert len(query_target(pseudo, extent_xy=(1.0, 1.0), queries=12).masks) == 12
    assert not pseudo.to(torch.device("cpu")).annotated


def test_crowds_and_empty_masks_are_no_objects(discs):
    target = discs([(20, 20, 9), (44, 40, 12), (100, 100, 3)])
    target.ignore[0] = True
    seen = query_target(target, extent_xy=(1.0, 1.0), queries=12)
    assert torch.equal(seen.masks, target.masks[1:2])
    assert torch.equal(seen.ignored, target.masks[0])


def test_without_transformers_the_model_says_what_to_install(lite_stats, monkeypatch):
    architecture, _ = find_architecture("mask2former-swin-t")
    monkeypatch.setattr(mask2former_sizes, "find_spec", lambda name: None)
    assert architecture.missing() == "pip install 'labelloop[mask2former]'"
    with pytest.raises(ModelError, match="transformers") as caught:
        architecture.build(lite_stats, variant=None, pretrained=False)
    assert "pip install" in caught.value.way_out


def test_transformers_is_imported_where_such_a_model_is_built_and_nowhere_else():
    importers = set()
    for path in Path(mask2former_sizes.__file__).parents[1].rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # at the top of the module
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            heavy = ("transformers", "mask2former_network", "mask2former_backbones")
            if any(part in heavy for name in names for part in name.split(".")):
                importers.add(path.stem)
    assert importers == {"mask2former_network", "mask2former_backbones"}
