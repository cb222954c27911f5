"""The C++ kernels against sums over offsets in float64, for every instruction set that this machine runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foveate import functional as FA
from foveate import kernels
from foveate.kernels import cpu
from foveate.nn import GlobalSelfAttention2d
from tests.comparison import TOLERANCE, relative_error

CAPABILITIES = list(cpu.INSTRUCTION_SETS)
RUNNABLE = CAPABILITIES[CAPABILITIES.index(torch.backends.cpu.get_cpu_capability()) :]
BUILT = [name for name in RUNNABLE if cpu.library(name) is not None]

SIZES = [  # images, heads, height, width, channels of queries, of values
    (1, 1, 1, 1, 1, 1),
    (2, 3, 7, 11, 5, 3),
    (1, 2, 17, 9, 8, 16),
    (3, 8, 5, 30, 20, 9),
    (2, 1, 23, 2, 33, 17),
    (1, 4, 13, 67, 16, 8),
    (2, 8, 7, 11, 20, 24),
    (1, 12, 13, 5, 33, 40),
    (3, 4, 2, 29, 16, 48),
    (2, 4, 11, 19, 64, 37),  # from here on the sums of an image are too many for the innermost cache at once
    (1, 5, 6, 23, 48, 32),
]


@pytest.fixture(params=BUILT)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    library = cpu.library(request.param)
    monkeypatch.setattr(cpu, "library", lambda: library)
    return request.param


def test_a_compiler_leaves_kernels() -> None:
    if shutil.which("g++"):
        assert BUILT, "g++ is here, but no kernels were compiled: `pip install -v -e .` says why"


def tensors(seed: int, sizes: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values as slices of one projection in channels_last, and a cotangent."""
    images, heads, height, width, d, c = sizes
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(images, height, width, heads * (2 * d + c), generator=generator, dtype=dtype)
    parts = made.split((heads * d, heads * d, heads * c), -1)
    cotangent = torch.randn(images, heads, height, width, c, generator=generator, dtype=dtype)  # another memory order
    return [part.unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4).requires_grad_() for part in parts] + [cotangent]


def axial(query: Tensor, value: Tensor, table: Tensor, axis: int) -> Tensor:
    """Sum over offsets: y_a = Σ_δ (q_a · r_δ) v_{a+δ}."""
    query, value = query.movedim(2 + axis, 0), value.movedim(2 + axis, 0)
    n, zero = len(query), (len(table) - 1) // 2
    rows = []
    for a in range(n):
        terms = [(query[a] @ table[zero + k - a]).unsqueeze(-1) * value[k] for k in range(n) if abs(k - a) <= zero]
        rows.append(torch.stack(terms).sum(0))
    return torch.stack(rows).movedim(0, 2 + axis)


def content(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = key.flatten(2, 3).softmax(2)
    return (query.flatten(2, 3) @ (weights.mT @ value.flatten(2, 3))).view(value.shape)


def gradients(out: Tensor, inputs: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    return [out.detach(), *torch.autograd.grad(out, inputs, cotangent)]


def check(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(("output", *map(str, range(3))), got, wanted, strict=False):
        assert relative_error(a, b) <= tolerance, name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_axial_pass(instruction_set: str, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    for axis, extent in ((0, sizes[2]), (1, sizes[3]), (1, max(1, sizes[3] // 2))):
        query, _, value, cotangent = tensors(1, sizes, dtype)
        table = torch.randn(2 * extent - 1, sizes[4], dtype=dtype, requires_grad=True)
        out = FA.axial_positional_attention(query, value, table, axis, fused=True)
        got = gradients(out, [query, value, table], cotangent)
        wide = [x.detach().double().requires_grad_() for x in (query, value, table)]
        wanted = gradients(axial(*wide, axis), wide, cotangent.double())
        check(got, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_content_attention(instruction_set: str, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    *inputs, cotangent = tensors(2, sizes, dtype)
    got = gradients(FA.content_attention(*inputs, fused=True), inputs, cotangent)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    wanted = gradients(content(*wide), wide, cotangent.double())
    if sizes[2] * sizes[3] == 1:  # a softmax over one position is constant: the gradient of the key is exactly zero
        wanted[2] = torch.zeros_like(wanted[2])
        assert got[2].abs().max() <= TOLERANCE[dtype]
        del got[2], wanted[2]
    check(got, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("spread", [1e-3, 30.0, 1e4, 1e30])
def test_keys_of_any_size(instruction_set: str, spread: float) -> None:
    query, key, value, _ = tensors(3, (1, 2, 19, 7, 4, 4), torch.float32)
    keys = key.detach() * spread + spread
    got = FA.content_attention(query.detach(), keys, value.detach(), fused=True)
    wanted = content(query.detach().double(), keys.double(), value.detach().double())
    assert relative_error(got, wanted) <= 1e-5


@pytest.mark.parametrize("which", range(3))
def test_what_is_not_a_number_stays_so(instruction_set: str, which: int) -> None:
    inputs = [x.detach() for x in tensors(4, (2, 1, 5, 9, 8, 8), torch.float32)[:3]]
    inputs[which][1, 0, 3, 4, 2] = torch.nan
    out = FA.content_attention(*inputs, fused=True)
    assert out[0].isfinite().all()
    assert out[1].isnan().any()
    table = torch.randn(17, 8)
    if which != 1:
        out = FA.axial_positional_attention(inputs[0], inputs[2], table, 1, fused=True)
        assert out[0].isfinite().all()
        assert out[1, 0, 3].isnan().any()
        assert out[1, 0, :3].isfinite().all()


@pytest.mark.parametrize("channels", [8, 32, 64])
def test_any_number_of_threads_gives_the_same_bits(instruction_set: str, channels: int) -> None:
    def everything() -> list[Tensor]:
        query, key, value, cotangent = tensors(5, (3, 4, 19, 23, channels, channels), torch.float32)
        table = torch.randn(45, channels, generator=torch.Generator().manual_seed(1)).requires_grad_()
        first = FA.content_attention(query, key, value, fused=True)
        second = FA.axial_positional_attention(query, first, table, 1, fused=True)
        return gradients(second, [query, key, value, table], cotangent)

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(everything())
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_widened_and_comes_back(instruction_set: str, dtype: torch.dtype) -> None:
    query, key, value, cotangent = (x.detach().to(dtype).requires_grad_() for x in tensors(6, SIZES[1], torch.float32))
    table = torch.randn(13, 5, dtype=dtype, requires_grad=True)
    out = FA.content_attention(query, key, value, fused=True)
    out = FA.axial_positional_attention(query, out, table, 0, fused=True)
    got = gradients(out, [query, key, value, table], cotangent.detach())
    assert all(x.dtype == dtype for x in got)
    reference = FA.content_attention(query, key, value, fused=False)
    reference = FA.axial_positional_attention(query, reference, table, 0, fused=False)
    wanted = gradients(reference, [query, key, value, table], cotangent.detach())
    for a, b in zip(got, wanted, strict=True):  # the same sums in float32, rounded once more on the way
        assert relative_error(a, b) <= 4 * torch.finfo(dtype).eps


def test_memory_is_in_the_order_of_positions(instruction_set: str) -> None:
    query, key, value, _ = tensors(7, SIZES[1], torch.float32)
    for fused in (True, False):
        out = FA.content_attention(query, key, value, fused=fused)
        assert out.permute(0, 2, 3, 1, 4).is_contiguous()


def test_the_environment_switches_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, _ = (x.detach() for x in tensors(8, SIZES[3], torch.float32))
    plain = FA.content_attention(query, key, value, fused=False)
    for setting in ("0", ""):
        monkeypatch.setenv("FOVEATE_FUSED", setting)
        assert torch.equal(FA.content_attention(query, key, value), plain)
        assert kernels.axial(query, value, None) is None
    monkeypatch.setenv("FOVEATE_FUSED", "1")
    assert kernels.axial(query, value, None) is cpu
    assert kernels.axial(query, value, False) is None


@pytest.mark.skipif(not BUILT, reason="no kernels were compiled")
def test_kernels_from_other_sources_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = cpu.library()
    assert built is not None
    assert not cpu.is_stale(built)
    monkeypatch.setattr(cpu, "__file__", str(tmp_path / "__init__.py"))
    assert not cpu.is_stale(built)  # as in a wheel, which has no sources
    (tmp_path / "axial.cpp").write_text("// as after an update")
    assert cpu.is_stale(built)


def test_kernels_that_are_not_there_are_not_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "library", lambda: None)  # as after an installation without a compiler
    query, key, value, _ = tensors(9, SIZES[1], torch.float32)
    plain = FA.content_attention(query, key, value, fused=False)
    assert torch.equal(FA.content_attention(query, key, value), plain)
    with pytest.raises(ValueError, match=r"fused=True, but there are no kernels for torch\.float32 on cpu"):
        FA.content_attention(query, key, value, fused=True)
    with pytest.raises(ValueError, match="C\\+\\+ compiler"):
        FA.axial_positional_attention(query, value, torch.randn(13, 5), 0, fused=True)


@pytest.mark.parametrize("rows", [4, 17])  # within the pixels that are read together, and more than those
def test_masked_keys_do_not_attend(instruction_set: str, rows: int) -> None:
    query, key, value, _ = (x.detach() for x in tensors(10, (2, 2, 32, 8, 4, 4), torch.float32))
    key[:, :, :rows] = -torch.inf
    key[:, :, 20:, :, 1] = -torch.inf
    got = FA.content_attention(query, key, value, fused=True)
    assert relative_error(got, content(query.double(), key.double(), value.double())) <= 1e-5
    key[1, 0, ..., 2] = -torch.inf  # a softmax over nothing
    got = FA.content_attention(query, key, value, fused=True)
    assert got[1, 0].isnan().all()
    assert got[0].isfinite().all()


def test_masks_of_the_lowest_number_are_as_exact(instruction_set: str) -> None:
    """It weighs nothing beside other keys, and as much as all others where there are no other keys."""
    query, key, value, _ = (x.detach() for x in tensors(12, (2, 2, 17, 8, 4, 4), torch.float32))
    lowest = torch.finfo(torch.float32).min
    key[0, :, :9] = lowest
    value[0, :, 3] = 1e37
    key[1, 0] = lowest
    key[1, 1, 3:, :, 0] = -torch.inf
    key[1, 1, :3, :, 0] = lowest
    got = FA.content_attention(query, key, value, fused=True)
    assert relative_error(got, content(query.double(), key.double(), value.double())) <= 1e-5


def test_sums_over_large_maps_lose_few_digits(instruction_set: str) -> None:
    """Many equal keys: rounding at every pixel would be off by the same every time."""
    key = torch.zeros(1, 1, 640, 512, 1)
    key[..., 100, 7, 0] = 1.2
    got = FA.content_attention(torch.ones_like(key), key, torch.full_like(key, 0.37), fused=True)
    assert (got / 0.37 - 1).abs().max() <= 1e-4


@pytest.mark.parametrize("fused", [True, False])
def test_shapes_that_do_not_fit_are_refused(fused: bool) -> None:
    query, key, value, _ = (x.detach() for x in tensors(11, (2, 2, 9, 8, 4, 4), torch.float32))
    table = torch.randn(17, 4)
    for q, k, v in (
        (query[:, :, :1, :1], key, value),
        (query, key[:, :, :2], value),
        (query, key[..., :2], value),
        (query[:1], key[:1], value),
    ):
        with pytest.raises(ValueError, match=r"got"):
            FA.content_attention(q, k, v, fused=fused)
    for v in (value[:, :, :, :2], value[:1], value[0]):
        with pytest.raises(ValueError, match="queries and values must be"):
            FA.axial_positional_attention(query, v, table, 0, fused=fused)


@pytest.mark.parametrize("fused", [True, False])
def test_keys_without_channels_give_nothing(fused: bool) -> None:
    empty, value = torch.randn(2, 2, 3, 5, 0), torch.randn(2, 2, 3, 5, 4)
    assert not FA.content_attention(empty, empty, value, fused=fused).any()
    assert not FA.axial_positional_attention(empty, value, torch.randn(5, 0), 0, fused=fused).any()


def test_what_the_default_device_is_does_not_matter() -> None:
    module, x = GlobalSelfAttention2d(8, feat_size=5, fused=True).eval(), torch.randn(1, 8, 5, 3)
    with torch.no_grad():
        expected = module(x)
        with torch.device("meta"):
            found = module(x)
    assert torch.equal(found, expected)


def test_the_operator_of_inference_refuses_other_types() -> None:
    norm = torch.ones(4)
    for dtype in (torch.bfloat16, torch.float16, torch.int64):
        projection, down, along = torch.ones(1, 12, 3, 5).to(dtype), torch.ones(5, 2), torch.ones(9, 2)
        with pytest.raises(ValueError, match="float32 or float64"):
            torch.ops.foveate.global_self(projection, down, along, norm, norm, None, None, 1e-5, 2, 4, 1)


def test_a_window_of_another_line_is_refused_by_every_operator() -> None:
    query, _, value, grad = (x.detach() for x in tensors(12, (2, 2, 9, 8, 4, 4), torch.float32))
    for rows in (1, 15, 16, 18, 19):
        for fused in (True, False):
            with pytest.raises(ValueError, match="window"):
                torch.ops.foveate.axial_pass(query, value, torch.randn(rows, 4), 0, fused)
            with pytest.raises(ValueError, match="window"):
                torch.ops.foveate.axial_pass_backward(grad, query, value, torch.randn(rows, 4), 0, fused)
        with pytest.raises(ValueError, match="window"):
            torch.ops.foveate.axial_pass(
                query.to("meta"), value.to("meta"), torch.randn(rows, 4, device="meta"), 0, None
            )
