"""The Triton kernels: in Triton's interpreter against loops in float64, compiled for a GPU, and on one if there is."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor

from foveate import functional as FA
from foveate.kernels import axial_programs, axial_triton
from tests.comparison import relative_error
from tests.reference.attention import axial
from tests.reference.grids import from_grid, to_grid
from tests.sweeps import in_turn

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@dataclass(frozen=True)
class Case:
    images: int
    heads: int
    height: int
    width: int
    dim: int
    channels: int
    axis: int
    layout: str = "projection"
    programs: int = 512
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def tensors(self) -> list[Tensor]:
        """Return query, value, window (a parameter, hence in float32) and the gradient of the output."""
        generator = torch.Generator(self.device).manual_seed(self.height * self.width)
        options: dict[str, Any] = {"dtype": self.dtype, "device": self.device, "generator": generator}
        widths = [self.heads * size for size in (self.dim, self.channels)]
        if self.layout == "projection":  # neighbouring channels, strides that are nobody's size
            x = torch.randn(self.images, self.height, self.width, sum(widths) + 5, **options)
        else:
            x = torch.randn(self.images, sum(widths) + 5, self.height, self.width, **options).movedim(1, 3)
        query, value, _ = x.split([*widths, 5], -1)
        grad = torch.randn(self.images, self.height, 1, widths[1], **options).expand(-1, -1, self.width, -1)
        query, value, grad = (t.unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4) for t in (query, value, grad))
        n = (self.height, self.width)[self.axis]
        window = torch.randn(2 * n - 1, self.dim, **(options | {"dtype": torch.float32})) / (self.dim * n) ** 0.5
        return [query, value, window if self.layout == "projection" else window.T.contiguous().T, grad]


def by_loops(query: Tensor, value: Tensor, window: Tensor, axis_: int) -> Tensor:
    q, v = (to_grid(t.flatten(0, 1).movedim(3, 1)) for t in (query, value))
    return from_grid(axial(q, v, window, axis_)).movedim(1, 3).unflatten(0, query.shape[:2])


def by_map(query: Tensor, value: Tensor, window: Tensor, axis: int) -> Tensor:
    weights = FA.axial_positional_map(query, window, axis)
    return torch.einsum("bhyxk,bhkxc->bhyxc" if axis == 0 else "bhyxk,bhykc->bhyxc", weights, value)


def errors(case: Case, reference: Callable[[Tensor, Tensor, Tensor, int], Tensor] = by_loops) -> dict[str, float]:
    """Return the relative errors of the result and its gradients, infinite where a second run gives other bits."""
    query, value, window, grad = case.tensors()

    def run() -> list[Tensor]:
        out = axial_triton.axial_forward(query, value, window, case.axis)
        return [out, *axial_triton.axial_backward(grad, query, value, window, case.axis)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axial_triton, "PROGRAMS", case.programs)
        got, again = run(), run()
    wide = [t.double().requires_grad_() for t in (query, value, window)]
    out = reference(*wide, case.axis)
    wanted = [out.detach(), *torch.autograd.grad(out, wide, grad.double())]
    found = {}
    for name, a, b, c in zip(("output", "query", "value", "window"), got, again, wanted, strict=True):
        assert a.dtype == (torch.float32 if name == "window" else case.dtype)
        assert name == "window" or a.permute(0, 2, 3, 1, 4).is_contiguous()
        found[name] = relative_error(a, c) if torch.equal(a, b) else float("inf")
    return found


CASES = [
    Case(1, 1, 1, 3, 3, 1, axis=0),  # lines of one pixel
    Case(2, 3, 7, 5, 8, 8, axis=0),
    Case(3, 2, 3, 17, 20, 8, axis=1, programs=3),  # images share a program
    Case(1, 5, 11, 13, 1, 3, axis=1, layout="planes", programs=2),  # rows share a program
    Case(1, 1, 17, 2, 3, 70, axis=0, layout="planes"),  # keys in parts
    Case(2, 1, 9, 1, 130, 5, axis=0),  # channels of queries in parts, and more tables to add up than a tile holds
    Case(1, 1, 2, 23, 16, 20, axis=1),
]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """A process that had ``TRITON_INTERPRET`` set before it imported Triton, as it must be."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(torch.get_num_threads).result()
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), in_turn(CASES, TOLERANCE), ids=str)
def test_agrees_with_loops_in_the_interpreter(interpreter: ProcessPoolExecutor, case: Case, dtype: torch.dtype) -> None:
    found = interpreter.submit(errors, replace(case, dtype=dtype)).result()
    assert max(found.values()) <= TOLERANCE[dtype], found


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """How tensor cores may round float32."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = request.param
    yield request.param
    torch.backends.cuda.matmul.fp32_precision = before


class Compiled:
    """Takes a kernel's place and compiles what it would launch, for compute capability 9.0 and without a GPU."""

    def __init__(self, kernel: Any, found: list[Any]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self.compile

    def compile(self, *args: Any, **constants: Any) -> None:
        names = self.kernel.arg_names
        types = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
        signature: dict[str, Any] = dict.fromkeys(names, "constexpr")
        aligned = {}
        for i, (name, value) in enumerate(zip(names, args, strict=False)):
            if isinstance(value, Tensor):
                signature[name], aligned[(i,)] = types[value.dtype], [["tt.divisibility", 16]]
            elif isinstance(value, tuple):
                signature[name] = ("i32",) * len(value)
                aligned.update({(i, j): [["tt.divisibility", 16]] for j, x in enumerate(value) if x % 16 == 0})
            else:
                signature[name] = "i32"
        options = {name: constants.pop(name) for name in list(constants) if name not in names}
        source = triton.compiler.ASTSource(self.kernel, signature, constants, aligned)
        target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
        self.found.append(triton.compile(source, target=target, options=options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "dim", "dtype", "precision"),
    [
        (56, 8, torch.bfloat16, "ieee"),
        pytest.param(14, 64, torch.float16, "ieee", marks=pytest.mark.exhaustive),
        (28, 16, torch.float32, "tf32"),
        pytest.param(14, 16, torch.float32, "ieee", marks=pytest.mark.exhaustive),  # which no GPU is given
    ],
    indirect=["precision"],
    ids=str,
)
def test_compiles_for_a_gpu(
    side: int, dim: int, dtype: torch.dtype, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels: list[Any] = []
    for name in axial_programs.__all__:
        monkeypatch.setattr(axial_programs, name, Compiled(getattr(axial_programs, name), kernels))
    x = torch.empty(2, side, side, 24 * dim, dtype=dtype, device="meta")
    query, _, value = (t.unflatten(-1, (8, dim)).permute(0, 3, 1, 2, 4) for t in x.chunk(3, -1))
    window = torch.empty(2 * side - 1, dim, dtype=dtype, device="meta")
    axial_triton.axial_backward(axial_triton.axial_forward(query, value, window, 1), query, value, window, 1)
    assert [kernel.metadata.name for kernel in kernels] == [
        "forward", "grad_query", "grad_value", "grad_vectors", "fold"
    ]  # fmt: skip
    for kernel in kernels:
        assert kernel.metadata.shared <= 99 * 1024
        assert not re.search(r"\b(atom|red)\.", kernel.asm["ptx"])
        on_tensor_cores = re.search(r"\b(wg)?mma\.", kernel.asm["ptx"]) is not None
        assert on_tensor_cores == (kernel.metadata.name != "fold" and (dtype, precision) != (torch.float32, "ieee"))


@pytest.mark.parametrize(
    ("query", "value", "channels", "precision", "wanted"),
    [
        (torch.bfloat16, torch.bfloat16, 128, "ieee", True),
        (torch.float16, torch.float16, 129, "ieee", False),
        (torch.float32, torch.float32, 64, "tf32", True),
        (torch.float32, torch.float32, 64, "ieee", False),
        (torch.float32, torch.bfloat16, 65, "tf32", False),
        (torch.float64, torch.float64, 8, "tf32", False),
        (torch.bfloat16, torch.float64, 8, "tf32", False),
    ],
    indirect=["precision"],
)
def test_takes_what_tensor_cores_multiply(
    query: torch.dtype, value: torch.dtype, channels: int, precision: str, wanted: bool
) -> None:
    q, v = torch.empty(1, 1, 2, 2, 512, dtype=query), torch.empty(1, 1, 2, 2, channels, dtype=value)
    assert axial_triton.supports(q, v) is wanted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("height", "width", "dim"),
    [(56, 56, 8), (56, 56, 16), (28, 28, 16), (28, 28, 32), (14, 14, 32), (14, 14, 64), (7, 7, 64), (37, 300, 8)],
)
def test_agrees_with_the_map_on_a_gpu(height: int, width: int, dim: int, axis: int, dtype: torch.dtype) -> None:
    case = Case(3, 8, height, width, dim, dim, axis, dtype=dtype, device="cuda")
    found = errors(case, by_map)
    assert max(found.values()) <= TOLERANCE[dtype], found


@pytest.mark.slow
def test_sizes_that_do_not_fit_are_refused_before_a_program_runs() -> None:
    query, value, window, grad = Case(2, 3, 7, 5, 8, 4, axis=0).tensors()
    for bad in (
        (query, value, window[:-2], 0),
        (query, value, window, 1),
        (query, value, window[:, :-1], 0),
        (query[:, :2], value, window, 0),
        (query, value.half(), window, 0),
        (query.double(), value.double(), window.double(), 0),
        (query, value[..., :0], window, 0),
        (query, value, window, 2),
    ):
        with pytest.raises(ValueError):
            axial_triton.axial_forward(*bad)
        with pytest.raises(ValueError):
            axial_triton.axial_backward(grad, *bad)
    with pytest.raises(ValueError, match="grad"):
        axial_triton.axial_backward(grad[:, :, :-1], query, value, window, 0)
