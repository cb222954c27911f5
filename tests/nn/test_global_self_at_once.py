"""GSA in one operator at inference: when it is taken, and that it gives the bits of its parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.kernels import cpu
from foveate.nn import GlobalSelfAttention2d
from foveate.nn._global_self_fused import _at_once
from tests.comparison import TOLERANCE, relative_error
from tests.kernels.test_cpu import BUILT

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="no kernels were compiled"),
    pytest.mark.filterwarnings("ignore:a map is larger"),
]

SIZES = [  # images, height, width, channels in, out, of keys, heads, stride, extent of the tables
    (2, 7, 11, 8, 16, 6, 2, 1, 9),
    (1, 17, 9, 5, 9, 24, 3, 2, 5),
    (3, 5, 30, 16, 64, 64, 8, 2, 30),
    (2, 23, 2, 8, 7, 11, 1, 3, 23),
    (1, 13, 37, 8, 64, 64, 8, 1, 37),
    (1, 1, 1, 3, 2, 2, 2, 1, 1),
    (0, 5, 7, 3, 2, 2, 2, 2, 7),
    (3, 11, 13, 8, 192, 128, 8, 2, 13),
    (1, 5, 61, 8, 96, 64, 4, 1, 61),
]


class Operators(TorchDispatchMode):
    """Records the names of the library's operators that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "foveate":
            self.names.append(function._opname)
        return function(*args, **(kwargs or {}))


def made(sizes: tuple[int, ...] = SIZES[2], dtype: torch.dtype = torch.float32, **options) -> tuple[nn.Module, Tensor]:
    batch, height, width, dim, dim_out, dim_key, heads, stride, extent = sizes
    torch.manual_seed(0)
    module = GlobalSelfAttention2d(
        dim, dim_out, dim_key=dim_key, num_heads=heads, stride=stride, feat_size=extent, **options
    )
    if module.part != "content":
        with torch.no_grad():
            for x in (module.norm.running_mean, module.norm.weight, module.norm.bias):
                x.normal_()
            module.norm.running_var.uniform_(0.3, 3)
    return module.to(dtype).eval(), torch.randn(batch, dim, height, width, dtype=dtype)


def used(module: nn.Module, x: Tensor) -> list[str]:
    with Operators() as operators:
        module(x)
    return operators.names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("capability", BUILT)
def test_it_gives_the_bits_of_its_parts(capability, sizes, dtype, monkeypatch):
    library = cpu.library(capability)
    monkeypatch.setattr(cpu, "library", lambda: library)
    module, x = made(sizes, dtype)
    parts = module(x).detach()  # the parameters want a gradient
    wanted = copy.deepcopy(module).double().requires_grad_(False)
    wanted.fused = False
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            for layout in (torch.contiguous_format, torch.channels_last):
                with torch.no_grad():
                    got = module(x.contiguous(memory_format=layout))
                assert got.is_contiguous(memory_format=layout)
                # PyTorch normalises with the instructions that it chose, and rounds otherwise in float64.
                if capability == torch.backends.cpu.get_cpu_capability() and dtype == torch.float32:
                    assert torch.equal(got, parts)
                if len(x):
                    assert relative_error(got, wanted(x.double())) <= TOLERANCE[dtype]
    finally:
        torch.set_num_threads(before)


def test_it_is_taken_only_where_nothing_would_miss_its_parts():
    module, x = made()
    parts = ["content", "axial_pass", "axial_pass"]
    assert used(module, x) == parts  # a derivative may be wanted
    with torch.no_grad():
        assert used(module, x) == ["global_self"]
        assert used(copy.deepcopy(module).bfloat16(), x.bfloat16()) == parts
        assert used(copy.deepcopy(module).train(), x) == parts
        module.norm.train()
        assert used(module, x) == parts
        module.norm.eval()
        with foveate.plain_operators():
            assert used(module, x) == []
        plain, _ = made(fused=False)
        assert used(plain, x) == parts
        for part in ("content", "positional"):
            assert "global_self" not in used(made(part=part)[0], x)
    assert used(copy.deepcopy(module).requires_grad_(False), x) == ["global_self"]
    assert used(copy.deepcopy(module).requires_grad_(False), x.requires_grad_()) == parts


def test_whoever_watches_or_replaces_the_normalisation_is_not_passed_by():
    module, x = made()
    with torch.no_grad():
        alone = module(x)
        seen = []
        handle = module.norm.register_forward_hook(lambda norm, inputs, output: seen.append(output.shape))
        assert torch.equal(module(x), alone)
        assert seen == [(3, 64, 5, 30)]
        handle.remove()
        assert used(module, x) == ["global_self"]
        handle = nn.modules.module.register_module_forward_pre_hook(lambda *_: None)
        assert "global_self" not in used(module, x)
        handle.remove()

        class Doubled(nn.BatchNorm2d):
            def forward(self, x: Tensor) -> Tensor:
                return 2 * super().forward(x)

        other = Doubled(64).eval()
        other.load_state_dict(module.norm.state_dict())
        module.norm = other
        assert relative_error(module(x), alone) > 0.1


@pytest.mark.parametrize("affine", [True, False])
def test_normalisations_of_all_kinds(affine):
    module, x = made()
    statistics = module.norm
    module.norm = nn.BatchNorm2d(64, affine=affine, eps=0.1).eval()
    module.norm.load_state_dict(statistics.state_dict(), strict=affine)
    parts = module(x)
    with torch.no_grad():
        assert used(module, x) == ["global_self"]
        assert torch.equal(module(x), parts)
        module.norm = nn.BatchNorm2d(64, track_running_stats=False).eval()
        assert "global_self" not in used(module, x)


@pytest.mark.slow
def test_compiled_and_counted():
    torch.compiler.reset()  # modules of other tests share the code, of which few versions are kept
    module, x = made()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    with torch.no_grad():
        assert torch.equal(torch.compile(module, fullgraph=True, backend=backend, dynamic=True)(x), module(x))
        assert any("global_self" in str(node.target) for node in graphs[0].graph.nodes)
        qkv = module._projection(x)
        with FlopCounterMode(display=False) as at_once:
            _at_once(module, qkv)
    with FlopCounterMode(display=False) as parts:
        module(x)
    with FlopCounterMode(display=False) as projection:
        module.qkv(x)
    assert at_once.get_total_flops() == parts.get_total_flops() - projection.get_total_flops()


@pytest.mark.slow
def test_its_contract_as_an_operator():
    module, x = made(SIZES[1])
    with torch.no_grad():
        norm = module.norm
        arguments = (norm.running_mean, norm.running_var, norm.weight, None, norm.eps, 3, 24, 2)
        windows = torch.randn(33, 8), torch.randn(17, 8)
        torch.library.opcheck(torch.ops.foveate.global_self, (module._projection(x), *windows, *arguments))


@pytest.mark.parametrize("which", range(7))
def test_sizes_that_do_not_fit_are_refused(which):
    tensors = [torch.randn(2, 40, 5, 7), torch.randn(9, 4), torch.randn(13, 4), *torch.rand(4, 8).unbind()]
    assert torch.ops.foveate.global_self(*tensors, 1e-5, 4, 16, 1).shape == (2, 8, 5, 7)
    tensors[which] = tensors[which][:, :-1] if which == 0 else tensors[which][:-1]
    with pytest.raises(ValueError, match="global_self"):
        torch.ops.foveate.global_self(*tensors, 1e-5, 4, 16, 1)
    with pytest.raises(ValueError, match="global_self"):
        torch.ops.foveate.global_self(*(x.to("meta") for x in tensors), 1e-5, 4, 16, 1)


@pytest.mark.parametrize(("heads", "dim_key", "stride"), [(0, 16, 1), (3, 16, 1), (4, 48, 1), (4, -16, 1), (4, 16, 0)])
def test_numbers_that_do_not_fit_are_refused(heads, dim_key, stride):
    tensors = [torch.randn(2, 40, 5, 7), torch.randn(9, 4), torch.randn(13, 4), *torch.rand(4, 8).unbind()]
    for device in ("cpu", "meta"):
        with pytest.raises(ValueError, match="global_self"):
            torch.ops.foveate.global_self(*(x.to(device) for x in tensors), 1e-5, heads, dim_key, stride)
