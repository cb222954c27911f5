"""What every module does alike: construction, layouts, dtypes, compilation, export, tracing, answers to bad input."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from foveate import functional as FA
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExpAttConv2d,
    ExplicitAttention2d,
    GlobalSelfAttention2d,
    PositionwiseAttention2d,
    RectangularAttention2d,
)
from tests.comparison import relative_error

MODULES = {
    "explicit": lambda **dd: ExplicitAttention2d(6, 5, stride=2, **dd),
    "explicit-laplace": lambda **dd: ExplicitAttention2d(6, 5, kernel="laplace", **dd),
    "expatt-conv": lambda **dd: ExpAttConv2d(6, 11, stride=2, **dd),
    "global-self": lambda **dd: GlobalSelfAttention2d(6, 4, num_heads=2, feat_size=(9, 13), stride=2, **dd),
    "content": lambda **dd: GlobalSelfAttention2d(6, 4, num_heads=2, feat_size=(9, 13), part="content", **dd),
    "positional": lambda **dd: GlobalSelfAttention2d(6, 4, num_heads=2, feat_size=(9, 13), part="positional", **dd),
    "rectangular": lambda **dd: RectangularAttention2d(6, **dd),
    "positionwise": lambda **dd: PositionwiseAttention2d(6, **dd),
    "augmented": lambda **dd: AttentionAugmentedConv2d(6, 44, num_heads=2, feat_size=7, downsample=True, **dd),
}

ABLATIONS = {
    "explicit-half": lambda **dd: ExplicitAttention2d(6, 5, kernel="laplace_l1", stride=2, downsample=True, **dd),
    "columns": lambda **dd: GlobalSelfAttention2d(6, 4, num_heads=2, feat_size=(9, 13), part="columns", **dd),
    "softmax": lambda **dd: GlobalSelfAttention2d(6, 4, num_heads=2, feat_size=(9, 13), normalize_queries=True, **dd),
    "axial-content": lambda **dd: GlobalSelfAttention2d(6, 4, num_heads=2, feat_size=(9, 13), axial_content=True, **dd),
}
"""Variants of those, whose graphs are looked at without Inductor: what it makes of them shows nothing new."""


@pytest.fixture(params=MODULES | ABLATIONS)
def make(request):
    torch.manual_seed(0)
    return (MODULES | ABLATIONS)[request.param]


@pytest.fixture
def x():
    return torch.randn(2, 6, 23, 29, generator=torch.Generator().manual_seed(1))


def trained_a_little(module: nn.Module, x: torch.Tensor) -> nn.Module:
    """Take one large step, so that what starts at zero does not hide anything, and evaluate."""
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    module(x).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()
    return module.eval()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_layout_is_kept_and_changes_no_number(make, x, layout):
    module = trained_a_little(make(), x)
    out = module(x.contiguous(memory_format=layout))
    assert out.is_contiguous(memory_format=layout)
    assert relative_error(out, module(x)) < 1e-6


COMPILERS = [(name, "aot_eager") for name in MODULES]
"""Each module's graph, executed operator by operator."""
INDUCTOR = ("explicit", "global-self", "rectangular", "augmented")
"""One module of each paper and a baseline: code is made of it every time, from the graph that else runs as it is."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *COMPILERS,
        ("global-self", "inductor"),
        pytest.param("expatt-conv", "inductor", marks=pytest.mark.exhaustive),
    ],
)
def test_compiled_and_exported_give_the_eager_result(name, backend, x):
    torch.compiler.reset()  # modules of other tests share the code, of which few versions are kept
    torch.manual_seed(0)
    module = trained_a_little(MODULES[name](), x)
    eager = module(x)
    assert relative_error(torch.export.export(module, (x,)).module()(x), eager) < 1e-5
    with torch.no_grad():  # as it is used: some have another way then
        assert relative_error(torch.compile(module, fullgraph=True, backend=backend)(x), eager) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_graphs_of_ablations_give_the_eager_result(name, x):
    torch.compiler.reset()  # modules of other tests share the code, of which few versions are kept
    module = trained_a_little(ABLATIONS[name](), x)
    eager = module(x)
    assert relative_error(torch.compile(module, fullgraph=True, backend="aot_eager")(x), eager) < 1e-6
    assert relative_error(torch.export.export(module, (x,)).module()(x), eager) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "backend"),
    [
        *(pytest.param(*one, marks=[pytest.mark.exhaustive] if one[0] in INDUCTOR else []) for one in COMPILERS),
        *(
            pytest.param(name, "inductor", marks=[] if name in INDUCTOR else [pytest.mark.exhaustive])
            for name in MODULES
        ),
    ],
)
def test_compiled_gives_the_eager_gradients(module, backend, x):
    torch.compiler.reset()  # modules of other tests share the code, of which few versions are kept
    torch.manual_seed(0)
    module = MODULES[module]()
    gradients = []
    for forward in (module, torch.compile(module, fullgraph=True, backend=backend)):
        module.zero_grad()
        forward(x).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in module.named_parameters()})
    for name, eager in gradients[0].items():
        assert torch.allclose(gradients[1][name], eager, rtol=1e-4, atol=1e-6), name


def test_traced_is_bit_equal_and_still_learns(make, x):
    module = trained_a_little(make(), x)
    traced = torch.fx.symbolic_trace(module)
    if isinstance(module, ExpAttConv2d):  # in training it folds its convolutions, which the graph has one by one
        assert relative_error(traced(x), module(x)) < 1e-6
        module.eval()
    assert torch.equal(traced(x), module(x))
    traced(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in traced.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_as_close_as_its_rounding(make, x, dtype):
    module = trained_a_little(make(), x)
    bound = {torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]  # a few roundings of 2⁻⁸ and 2⁻¹¹
    wanted = module(x)
    with torch.autocast("cpu", dtype):
        assert relative_error(module(x), wanted) < bound
        assert module.attention_map(x).dtype == torch.float32
    assert relative_error(copy.deepcopy(module).to(dtype)(x.to(dtype)), wanted) < bound


def test_a_gradient_for_every_parameter(make, x):
    module = trained_a_little(make(), x).train()
    module(x).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_construction_on_meta_and_in_double(make):
    module = make(device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float64)}
    real = module.to_empty(device="cpu")
    for part in real.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert real.eval()(torch.randn(1, 6, 5, 7, dtype=torch.float64)).isfinite().all()


def test_state_travels(make, x):
    module = trained_a_little(make(), x)
    other = make().eval()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), module(x))
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))
    assert str(module) == str(other)
    assert module.extra_repr().startswith("6, ")


def test_repeated_passes_are_bit_equal(make, x):
    module = make()
    results = []
    for _ in range(50):
        again = copy.deepcopy(module)
        again(x).square().mean().backward()
        results.append([p.grad for p in again.parameters()])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.randn(2, 5, 7, 7), r"6 channels; got 5"),
        (torch.randn(2, 6, 7), r"\(B, 6, H, W\); got shape \(2, 6, 7\)"),
        (torch.zeros(2, 6, 7, 7, dtype=torch.uint8), r"floating-point .*uint8"),
        (torch.randn(2, 6, 0, 7), r"at least 1×1"),
    ],
    ids=["channels", "dimensions", "dtype", "empty"],
)
def test_a_wrong_input_is_named(make, bad, message):
    module = make()
    for call in (module, module.attention_map):
        with pytest.raises(ValueError, match=message):
            call(bad)


BAD_ARGUMENTS = [
    (lambda: ExplicitAttention2d(6, kernel="gausian"), "gausian.*did you mean 'gaussian'"),
    (lambda: ExplicitAttention2d(6, radius=0.0), "radius must be a finite number above 0; got 0"),
    (lambda: ExplicitAttention2d(6, radius=float("nan")), "radius must be a finite number above 0; got nan"),
    (lambda: ExplicitAttention2d(0), "dim must be at least 1; got 0"),
    (lambda: ExplicitAttention2d(6.0), "dim must be an integer"),
    (lambda: ExpAttConv2d(6, 9, value_ratio=0.1), "leaves none for attention; it must be at least 0.111"),
    (lambda: ExpAttConv2d(6, 9, value_ratio=1.0), "leaves none for the convolution"),
    (lambda: ExpAttConv2d(6, 9, value_ratio=1.5), "value_ratio must be .* at most 1; got 1.5"),
    (lambda: GlobalSelfAttention2d(12, feat_size=7), "num_heads=8 does not divide dim_out=12; num_heads=6 would"),
    (lambda: GlobalSelfAttention2d(16, dim_key=12, feat_size=7), "does not divide dim_key=12"),
    (lambda: GlobalSelfAttention2d(16, feat_size=(7, 7, 7)), r"feat_size must be one integer or \(height, width\)"),
    (lambda: GlobalSelfAttention2d(16, feat_size=7, part="contents"), "contents.*did you mean 'content'"),
    (lambda: GlobalSelfAttention2d(16, feat_size=7, part="rows", normalize_queries=True), "part=rows"),
    (lambda: GlobalSelfAttention2d(16, feat_size=7, normalize_queries=True, axial_content=True), "axial_content"),
    (lambda: GlobalSelfAttention2d(16, feat_size=0), "feat_size must be at least 1; got 0"),
    (lambda: RectangularAttention2d(6, sharpness=-1), "sharpness must be a finite number above 0; got -1"),
    (lambda: RectangularAttention2d(6, hidden=0), "hidden must be at least 1; got 0"),
    (lambda: PositionwiseAttention2d(True), "dim must be an integer"),
    (lambda: AttentionAugmentedConv2d(6, 30), "gives 0 value channels, and leaves 30 .* value_ratio from 0.267"),
    (lambda: AttentionAugmentedConv2d(6, 16, value_ratio=1.0), "gives 16 value channels, and leaves 0 to the convol"),
    (lambda: AttentionAugmentedConv2d(6, 8), "num_heads below out_channels=8"),
    (lambda: AttentionAugmentedConv2d(6, 80, dilation=0), "dilation must be at least 1"),
    (lambda: ExpAttConv2d(6, 30, dilation=0), "dilation must be at least 1"),
]


@pytest.mark.parametrize(("build", "message"), BAD_ARGUMENTS, ids=[m for _, m in BAD_ARGUMENTS])
def test_a_bad_argument_is_answered_with_what_would_do(build, message):
    with pytest.raises(ValueError, match=message):
        build()


BAD_CALLS = [
    (lambda q, t, r: FA.axial_positional_attention(q, q, t, -1), "axis must be one of 0, 1; got -1"),
    (lambda q, t, r: FA.axial_positional_map(q, t, 2), "axis must be one of 0, 1; got 2"),
    (lambda q, t, r: FA.axial_positional_map(q, t[:4], 0), r"odd number of offsets around 0; got shape \(4, 3\)"),
    (lambda q, t, r: FA.axial_positional_map(q, t[:, :2], 0), "with the same d"),
    (lambda q, t, r: FA.axial_positional_map(q[0], t, 0), "query must be"),
    (lambda q, t, r: FA.resize_relative_table(t[:4], 3), "odd number of offsets"),
    (lambda q, t, r: FA.resize_relative_table(t, 0), "extent must be at least 1"),
    (lambda q, t, r: FA.explicit_attention(q, r), r"value must be floating-point \(B, C, H, W\)"),
    (lambda q, t, r: FA.explicit_attention(q[0], t), "radius must be a tensor of one element"),
    (lambda q, t, r: FA.explicit_attention_map(0, 5, r), "height must be at least 1"),
    (lambda q, t, r: FA.rectangle_map(t, 5, 7), r"five numbers a row, \(B, 5\)"),
    (lambda q, t, r: FA.rectangle_corners(t), r"five numbers a row, \(B, 5\)"),
    (lambda q, t, r: FA.rectangle_map(torch.zeros(1, 5), 5, 7, sharpness=0), "sharpness must be"),
    (lambda q, t, r: FA.rectangle_map(torch.zeros(1, 5), 0, 3), "height must be at least 1"),
    (lambda q, t, r: FA.rectangle_map(torch.zeros(1, 5), 5, 2.5), "width must be an integer"),
    (lambda q, t, r: FA.rectangle_map(torch.zeros(1, 5).long(), 5, 7), "rectangles must be floating-point"),
    (lambda q, t, r: FA.gaussian_line_map(3, t[0]), r"one element; got shape \(3,\)"),
    (lambda q, t, r: FA.laplace_line_map(2.5, r), "size must be an integer"),
    (lambda q, t, r: FA.explicit_attention(q[0], 2.0), "radius must be a floating-point tensor"),
    (lambda q, t, r: FA.explicit_attention(q[0].long(), r), "value must be floating-point"),
    (lambda q, t, r: FA.relative_vectors(t, 2), "a line of 2 pixels has 3 offsets; got 5"),
    (lambda q, t, r: FA.relative_window(t, 0), "size must be at least 1"),
    (lambda q, t, r: FA.augmented_attention(q, q, q.mT, t, t), "queries and values must be"),
    (lambda q, t, r: FA.augmented_attention_map(q, q.transpose(2, 3), t, t), "queries and keys must be"),
    (lambda q, t, r: FA.axial_content_attention(q, q, q[:1]), "queries and values must be"),
    (lambda q, t, r: FA.content_attention_map(q[0], q), "queries and keys must be"),
    (lambda q, t, r: FA.content_attention_column(q, q[..., :2], 0, 0), "queries and keys must be"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS, ids=[m for _, m in BAD_CALLS])
def test_a_bad_call_of_a_function_is_answered(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(2, 2, 5, 7, 3), torch.randn(5, 3), torch.tensor(1.0))


def test_no_image_at_all_is_no_hindrance(make):
    assert make().eval()(torch.empty(0, 6, 5, 7)).shape[0] == 0


def test_offsets_outside_the_table_do_not_attend():
    """On a map larger than the tables, a change further away than the table reaches moves no positional output."""
    module = GlobalSelfAttention2d(4, 4, num_heads=2, feat_size=3).double().eval()
    positional = module.attention_map(torch.randn(1, 4, 1, 11, dtype=torch.float64), "positional")[0]
    distance = (torch.arange(11)[:, None] - torch.arange(11)).abs()
    assert (positional[:, distance >= 3] == 0).all()
    assert (positional[:, distance < 3] != 0).all()
    module.resize((1, 11))
    wide = module.attention_map(torch.randn(1, 4, 1, 11, dtype=torch.float64), "positional")[0]
    assert (wide != 0).all()
