"""One network of each family in the hands of other tools: traces, converters, counters of FLOPs, `torch.func`."""

from __future__ import annotations

import io
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.benchmark import network_cost
from foveate.nn import PositionwiseAttention2d, RectangularAttention2d
from tests.comparison import relative_error
from tests.interpreters import Interpreter

FAMILIES = ("conv", "expatt", "gsa", "aa", "cram", "positionwise")
SIZES = [(1, 3, 48, 40), (3, 3, 64, 64), (2, 3, 17, 29)]
PRODUCTS = ("conv", "linear", "addmm", "matmul", "bmm", "einsum")


def network(family: str, **options) -> nn.Module:
    """Return a small network whose maps are not those that it starts from."""
    torch.manual_seed(0)
    model = timm.create_model(f"{family}_resnet_tiny", num_classes=5, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_a_trace_holds_for_every_size(family: str) -> None:
    model = network(family)
    traced = torch.jit.trace(model, torch.randn(2, 3, 32, 32))
    for size in SIZES:
        image = torch.randn(size)
        assert relative_error(traced(image), model(image)) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated.*")
def test_a_trace_runs_where_this_library_is_not(tmp_path: Path, python: Interpreter) -> None:
    for family in FAMILIES:
        torch.jit.trace(network(family), torch.randn(2, 3, 32, 32)).save(tmp_path / f"{family}.pt")
    torch.save(image := torch.randn(1, 3, 48, 40), tmp_path / "image")
    code = (
        "import sys; sys.modules['foveate'] = sys.modules['timm'] = None\n"
        "import torch\n"
        f"for family in {FAMILIES}:\n"
        "    torch.save(torch.jit.load(f'{family}.pt')(torch.load('image', weights_only=True)), f'{family}.out')\n"
    )
    done = python.run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    for family in FAMILIES:
        assert relative_error(torch.load(tmp_path / f"{family}.out", weights_only=True), network(family)(image)) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_by_tracing_holds_for_every_size(family: str) -> None:
    model, file = network(family), io.BytesIO()
    names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch", 2: "height", 3: "width"}}}
    torch.onnx.export(model, (torch.randn(2, 3, 32, 32),), file, dynamo=False, opset_version=17, **names)
    session = onnxruntime.InferenceSession(file.getvalue())
    for size in SIZES:
        image = torch.randn(size)
        (found,) = session.run(None, {"x": image.numpy()})
        assert relative_error(torch.from_numpy(found), model(image)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("family", "deferred"), [("expatt", False), ("gsa", True)])
def test_named_sizes_in_export(family: str, deferred: bool) -> None:
    model = network(family)
    named = {0: Dim("batch"), 2: Dim("height", min=16), 3: Dim("width", min=16)}
    program = torch.export.export(
        model,
        (torch.randn(2, 3, 32, 32),),
        dynamic_shapes=(named,),
        prefer_deferred_runtime_asserts_over_guards=deferred,
    )
    graph = program.module()
    for size in SIZES:
        image = torch.randn(size)
        assert relative_error(graph(image), model(image)) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [32, 48])
def test_counters_of_flops_agree(family: str, size: int) -> None:
    model, image = network(family), torch.randn(1, 3, size, size)
    ours = network_cost(model, (3, size, size)).flops
    with FlopCounterMode(display=False) as fused:
        model(image)
    with FlopCounterMode(display=False) as plain, foveate.plain_operators():
        model(image)
    with foveate.plain_operators():
        by_operator = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).by_operator()
    theirs = 2 * sum(by_operator[name] for name in PRODUCTS)  # it counts multiply-adds
    for counted in (fused.get_total_flops(), plain.get_total_flops(), theirs):
        assert counted == pytest.approx(ours, rel=0.01)


def loss_of(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(image), label)


def test_gradients_of_each_image(family: str) -> None:
    model = network(family).double()
    images, labels = torch.randn(3, 3, 13, 17, dtype=torch.float64), torch.tensor([0, 3, 4])
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, (parameters, buffers), (image[None],))
        return nn.functional.cross_entropy(logits, label[None])

    together = vmap(grad(loss), (None, 0, 0))(parameters, images, labels)
    for index in range(len(images)):
        alone = torch.autograd.grad(loss(parameters, images[index], labels[index]), parameters.values())
        for name, gradient in zip(parameters, alone, strict=True):
            assert torch.allclose(together[name][index], gradient, rtol=1e-9, atol=1e-12), name


@pytest.mark.slow
def test_an_ensemble_at_once(family: str) -> None:
    models = [network(family).double() for _ in range(3)]
    for index, model in enumerate(models):
        for parameter in model.parameters():
            parameter.data.mul_(1 + index / 10)
    image = torch.randn(2, 3, 13, 17, dtype=torch.float64)
    parameters, buffers = stack_module_state(models)
    together = vmap(lambda p, b: functional_call(models[0], (p, b), (image,)))(parameters, buffers)
    for found, model in zip(together, models, strict=True):
        assert relative_error(found, model(image)) < 1e-10


def test_a_gradient_penalty_has_its_gradient(family: str) -> None:
    model = network(family, act_layer="silu").double()  # differences of a network with kinks say little
    image = torch.randn(2, 3, 13, 17, dtype=torch.float64, requires_grad=True)
    parameters = list(model.parameters())

    def penalty() -> Tensor:
        (gradient,) = torch.autograd.grad(model(image).square().sum(), image, create_graph=True)
        return gradient.square().sum()

    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True, materialize_grads=True)
    directions = [torch.randn_like(parameter) * parameter.abs() for parameter in parameters]
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(sign * step * direction)
        values.append(penalty().item())
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(sign * step * direction)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("kind", [RectangularAttention2d, PositionwiseAttention2d])
def test_gates_can_be_scripted(kind: type) -> None:
    torch.manual_seed(0)
    module = kind(6)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) / 3)
    scripted = torch.jit.script(module)
    for size in ((2, 6, 5, 7), (1, 6, 11, 11)):
        x = torch.randn(size)
        assert relative_error(scripted(x), module(x)) < 1e-6


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("family", ["expatt", "gsa", "aa"])
def test_what_cannot_be_scripted_says_what_to_use(family: str) -> None:
    with pytest.raises(NotImplementedError, match=r"torch\.jit\.trace"):
        torch.jit.script(network(family))
