"""Graphs compute what the network computes, for any number of images of any size, and need none of our code."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import onnx
import pytest
import timm
import torch
from torch import nn

from foveate.export import (
    check_deviation,
    deviation,
    export_program,
    onnx_model,
    program_file,
    run_onnx,
    run_program,
    shapes_to_check,
    smallest_side,
)
from foveate.nn import AttentionAugmentedConv2d, ExplicitAttention2d, GlobalSelfAttention2d, RectangularAttention2d
from tests.comparison import relative_error
from tests.export.networks import SIDE, TINY, network
from tests.export.onnx_deviation import compare

GSA = "gsa_resnet_tiny:1,4"
"""GSA at its largest map and at its smallest, which strides; each of its blocks takes as long as another network."""
NETWORKS = [*(f"{family}_resnet_tiny" for family in TINY), GSA, "test_resnet+cram"]
COVERED = ("conv_resnet_tiny", "cram_resnet_tiny", "positionwise_resnet_tiny", "aa_resnet_tiny", "gsa_resnet_tiny")
"""Of whose parts the others have all but a gate at each position, two 1×1 convolutions, and what is compared below:
CRAM, and AA as a module."""
NOTE = {"network": {"model": "ours"}}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.exhaustive) if name in COVERED else name for name in NETWORKS],
)
def exported(request):
    """The network, its graph, and the smallest side that it takes."""
    name, _, stages = request.param.partition(":")
    model = network(name, **({"stages": [int(stage) for stage in stages.split(",")]} if stages else {}))
    program = export_program(model, (3, SIDE, SIDE))
    return model, program, smallest_side(program, 3)


def shapes(smallest: int) -> list[tuple[int, int, int, int]]:
    """Below, at and above the extent of the relative tables, square and not, odd and even, one image and several."""
    cases = [(1, SIDE, SIDE), (3, 0, 0), (2, 0, 2 * SIDE + 1), (1, SIDE + 11, 23), (5, 31, SIDE + 8)]
    return [(batch, 3, max(height, smallest), max(width, smallest)) for batch, height, width in cases]


def names_this_machine(content: bytes) -> bool:
    return any(str(place).encode() in content for place in (sys.prefix, Path(__file__).parents[2]))


@pytest.mark.slow
def test_torch_export_agrees_at_every_size(exported):
    model, program, smallest = exported
    assert not [node for node in program.graph.nodes if "foveate" in str(node.target)]
    content = program_file(program, NOTE)
    assert not names_this_machine(content)
    assert smallest <= 33  # where its stride is 32
    for found in check_deviation(model, run_program(content), shapes(smallest)):
        assert found.error < 1e-5, found
        assert found.same_top1 == found.shape[0]


@pytest.mark.slow
def test_onnx_agrees_at_every_size(exported):
    model, program, smallest = exported
    content = onnx_model(program, NOTE)
    assert not names_this_machine(content)
    for found in check_deviation(model, run_onnx(content), shapes(smallest)):
        assert found.error < 1e-5, found
        assert found.same_top1 == found.shape[0]
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}  # ONNX's own operators alone
    assert not proto.functions
    sides = [dim.dim_param or dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 3, "height", "width"]
    assert {entry.key: json.loads(entry.value) for entry in proto.metadata_props} == {"foveate": NOTE}


OF_OTHERS = ("gaussian", "laplace", "cauchy")
"""Kernels whose graph is that of a network above, or of another one that does not factorise."""
MODULES = {
    "gsa": lambda: GlobalSelfAttention2d(6, 10, num_heads=2, feat_size=(5, 7), stride=2),
    "aa": lambda: AttentionAugmentedConv2d(6, 22, feat_size=(5, 3), num_heads=2, downsample=True, min_dim_key=3),
    "rectangle": lambda: RectangularAttention2d(6),
    **{
        kernel: lambda kernel=kernel: ExplicitAttention2d(6, 5, kernel=kernel, stride=2)
        for kernel in ("gaussian", "laplace", "laplace_l1", "cauchy", "cone")
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive) if name in OF_OTHERS else name for name in MODULES]
)
def test_modules_agree_below_and_above_their_tables(name):
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    side = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.randn(2, 6, 26, 38),), dynamic_shapes=({0: side, 2: side, 3: side},))
    graph, rng = program.module(), random.Random(0)
    for height, width in [(9, 61), (51, 53), *((rng.randint(5, 40), rng.randint(5, 40)) for _ in range(6))]:
        x = torch.randn(rng.randint(1, 3), 6, height, width)  # 51×53 is above what the other kernels multiply out
        with torch.no_grad():
            assert relative_error(graph(x), module(x)) < 3e-6, (height, width)


@pytest.mark.slow
def test_a_program_runs_where_this_library_is_not(tmp_path, python):
    torch.manual_seed(0)
    module = MODULES["gsa"]().eval()
    side = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.randn(1, 6, 26, 38),), dynamic_shapes=({2: side, 3: side},))
    torch.export.save(program, tmp_path / "module.pt2")
    x = torch.randn(1, 6, 9, 13)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys; sys.modules['foveate'] = sys.modules['timm'] = None\n"
        "import torch\n"
        "module = torch.export.load('module.pt2').module()\n"
        "torch.save(module(torch.load('x.pt')).detach(), 'y.pt')\n"
    )
    done = python.run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert relative_error(torch.load(tmp_path / "y.pt", weights_only=True), module(x)) < 1e-5


@pytest.mark.slow
def test_a_network_for_one_size_is_exported_for_that_alone():
    vit = timm.create_model("test_vit", num_classes=5, dynamic_img_size=False).eval()
    image = (3, *vit.pretrained_cfg["input_size"][1:])
    with pytest.raises(ValueError, match=r"VisionTransformer cannot be exported .*; give a fixed `size`"):
        export_program(vit, image)
    program = export_program(vit, image, any_size=False)
    found = check_deviation(vit, run_program(program_file(program, NOTE)), shapes_to_check(image))
    assert {each.shape[0] for each in found} == {1, 3, 5}


def test_what_differs_is_refused():
    model = network("conv_resnet_tiny")
    for wrong in (lambda x: model(x) * 1.001, lambda x: model(x)[:, :-1], lambda x: model(x) / 0):
        with pytest.raises(ValueError, match=r"differs from the network by .* for images of 2×3×9×11"):
            check_deviation(model, wrong, [(2, 3, 9, 11)])
    found = deviation(model, lambda x: -model(x), torch.rand(4, 3, 9, 11))
    assert found.error == pytest.approx(2)
    assert found.same_top1 == 0


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_long_comparison_in_short():
    row = compare("cram_resnet_tiny", SIDE, sizes=4, images=30, seed=1)
    assert (row["sizes"], row["images"], row["same top-1"]) == (4, 30, 30)
    assert row["relative error"] < 1e-5
