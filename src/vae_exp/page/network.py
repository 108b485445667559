"""A decoder as a list of operations on arrays, which a page computes by itself (network.js), and its weights."""

import operator
from base64 import b64encode
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from vae_exp.config import NoMeaningError

__all__ = ["Network"]

# What keeps the numbers of an array in their order, whatever its shape.
SAME = (
    "reshape",
    "view",
    "unflatten",
    "unsqueeze",
    "squeeze",
    "detach",
    "clone",
    "contiguous",
    "lift_fresh_copy",
    "alias",
)
# What is done to each number by itself, and with numbers beside it (the slope of a leaky ReLU).
EACH = (
    "relu", "sigmoid", "tanh", "exp", "expm1", "log", "log1p", "sqrt", "abs", "neg", "reciprocal", "silu", "gelu",
    "elu", "celu", "selu", "leaky_relu", "softplus", "softsign", "mish", "hardtanh", "relu6", "hardsigmoid",
    "hardswish", "log_sigmoid", "pow",
)  # fmt: skip
# What is done to two or three arrays, number by number.
BETWEEN = ("add", "sub", "mul", "div", "maximum", "minimum", "lt", "gt", "where")


class Network:
    """What a function of tensors computes for one item, as steps.

    Arguments:
        model: What it works with, whose weights become those of the page.
        function: `inputs -> (1, ...)`, tensors.
        inputs: Examples of its inputs, each with a batch of one.

    Attributes:
        steps: Each an operation, the numbers of the steps that it reads, the shape of what it gives, and its options.
        weights: The constants, one after another.

    Raises:
        NoMeaningError: If it asks for what network.js does not compute.
    """

    def __init__(self, model: nn.Module, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        class Graph(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, *inputs: Tensor) -> Tensor:
                return function(*inputs)

        self.graph = Graph().eval()
        self.steps: list[dict[str, Any]] = []
        self._weights: list[Tensor] = []
        with torch.enable_grad():  # a part that switches gradients on would be a graph within the graph
            program = torch.export.export(self.graph, tuple(inputs))
        known = {**program.state_dict, **program.constants}
        states = program.graph_signature.inputs_to_parameters | program.graph_signature.inputs_to_buffers
        states |= program.graph_signature.inputs_to_lifted_tensor_constants
        found: dict[Node, Any] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in states:
                found[node] = known[states[node.name]]
            elif node.op == "placeholder":
                found[node] = self._add("input", [], _shape(node))
            elif node.op == "call_function":
                found[node] = self._call(node, found)
            else:
                (last,) = node.args[0]
                self._keep_only(self._number(found[last], _shape(last)))

    def _call(self, node: Node, found: dict[Node, Any]) -> Any:
        """The value of a node: computed here if it depends on no input, and else a new step."""
        args: Any = torch.fx.map_arg(node.args, lambda each: found[each])
        shapes: Any = torch.fx.map_arg(node.args, lambda each: each.meta["val"])
        if not any(isinstance(found[each], int | list) for each in node.all_input_nodes):
            return node.target(*args, **torch.fx.map_arg(node.kwargs, lambda each: found[each]))  # type: ignore[operator]
        if node.target is operator.getitem:
            return args[0][args[1]]
        name = str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
        shape = _shape(node)
        if name in SAME:
            return args[0]
        if name in ("ones_like", "zeros_like"):
            return torch.full(shape, float(name == "ones_like"))
        if name in EACH and not node.kwargs.get("approximate"):
            return self._add(name, [args[0]], shape, args=[float(arg) for arg in args[1:] if arg is not None])
        if name in BETWEEN and not node.kwargs:
            return self._between(name, args, shapes, shape)
        make = getattr(self, f"_{name}", None)
        if make is None:
            raise NoMeaningError(
                f"explore: the page has no {name}, which this decoder or likelihood needs; it draws decoder=mlp, conv "
                "and resnet, whose likelihood has a mean of few steps"
            )
        return make(args, shapes, shape)

    def _add(self, name: str, reads: Sequence[Any], shape: Sequence[int], **options: Any) -> int:
        reads = [self._number(each) for each in reads]
        self.steps.append({"op": name, "reads": reads, "shape": list(shape), **options})
        return len(self.steps) - 1

    def _number(self, value: Any, shape: Sequence[int] | None = None) -> int:
        """The number of the step that gives a value; of a constant it is a new one."""
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        constant = torch.as_tensor(value, dtype=torch.float32).detach().cpu()
        self._weights.append(constant.flatten())
        at = sum(len(each) for each in self._weights[:-1])
        return self._add("weights", [], constant.shape, at=at, size=constant.numel())

    def _between(self, name: str, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        reads = []
        for arg, like in zip(args, shapes, strict=True):
            if not isinstance(like, Tensor):
                reads.append(torch.tensor(float(arg)))  # a number of the code, not the number of a step
            else:
                reads.append(self._expanded(arg, like.shape, shape))
        return self._add(name, reads, shape)

    def _expanded(self, value: Any, shape: Sequence[int], wanted: Sequence[int]) -> Any:
        """A value whose array is as large as `wanted`, or of one number."""
        if prod(shape) in (1, prod(wanted)):
            return value
        padded = [*[1] * (len(wanted) - len(shape)), *shape]
        return self._add("expand", [value], wanted, of=padded)

    def _expand(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> Any:
        if prod(shapes[0].shape) == prod(shape):
            return args[0]
        return self._add("expand", [args[0]], shape, of=[*[1] * (len(shape) - shapes[0].dim()), *shapes[0].shape])

    def _broadcast_tensors(self, args: Sequence[Any], shapes: Sequence[Any], shape: Any) -> list[Any]:
        wanted = torch.broadcast_shapes(*(each.shape for each in shapes[0]))
        return [self._expand([arg], [like], wanted) for arg, like in zip(args[0], shapes[0], strict=True)]

    def _cat(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        dim = (args[1] if len(args) > 1 else 0) % len(shape)
        lengths = [prod(each.shape[dim:]) for each in shapes[0]]
        return self._add("cat", args[0], shape, lengths=lengths)

    def _chunk(self, args: Sequence[Any], shapes: Sequence[Any], shape: Any) -> list[int]:
        x, dim = shapes[0], args[2] if len(args) > 2 else 0
        return self._slices(args[0], x, dim, [len(each) for each in torch.arange(x.shape[dim]).chunk(args[1])])

    def _split(self, args: Sequence[Any], shapes: Sequence[Any], shape: Any) -> list[int]:
        x, dim = shapes[0], args[2] if len(args) > 2 else 0
        return self._slices(args[0], x, dim, [len(each) for each in torch.arange(x.shape[dim]).split(args[1])])

    def _slices(self, value: Any, x: Tensor, dim: int, lengths: Sequence[int]) -> list[int]:
        dim %= x.dim()
        inner, start, slices = prod(x.shape[dim + 1 :]), 0, []
        for length in lengths:
            shape = [*x.shape[:dim], length, *x.shape[dim + 1 :]]
            row = {"start": start * inner, "length": length * inner, "every": x.shape[dim] * inner}
            slices.append(self._add("slice", [value], shape, **row))
            start += length
        return slices

    def _slice(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        dim, start, end, step = _filled(args[1:], 0, 0, None, 1)
        size = shapes[0].shape[dim]
        if step != 1:
            raise NoMeaningError("explore: the page has no slices with steps, which this decoder needs")
        low, high, _ = slice(start, end).indices(size)
        return self._slices(args[0], shapes[0], dim, [low, high - low, size - high])[1]

    def _linear(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        return self._add("linear", _with_bias(args, shape[-1]), shape)

    def _conv2d(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        stride, padding, dilation, groups = _filled(args[3:], [1, 1], [0, 0], [1, 1], 1)
        return self._convolution("conv", args, shapes, shape, stride, padding, dilation, groups)

    def _conv_transpose2d(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        stride, padding, _, groups, dilation = _filled(args[3:], [1, 1], [0, 0], [0, 0], 1, [1, 1])
        return self._convolution("conv_transpose", args, shapes, shape, stride, padding, dilation, groups)

    def _convolution(
        self, name: str, args: Any, shapes: Any, shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> int:
        if list(dilation) != [1, 1] or groups != 1 or isinstance(padding, str):
            raise NoMeaningError("explore: the page has no dilated or grouped convolutions, which this decoder needs")
        options = {"of": list(shapes[0].shape[1:]), "kernel": list(shapes[1].shape[2:])}
        return self._add(name, _with_bias(args, shape[1]), shape, **options, stride=list(stride), padding=list(padding))

    def _upsample_nearest2d(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        return self._add("upsample", [args[0]], shape, of=list(shapes[0].shape[1:]))

    def _batch_norm(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        x, weight, bias, mean, variance, _, _, eps = args[:8]
        scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        return self._add("scale", [x, scale, shift], shape, inner=prod(shape[2:]))

    def _layer_norm(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        x, over, weight, bias, eps = _filled(args[:5], None, [], None, None, 1e-5)
        return self._norm(x, shape, prod(shape) // prod(over), weight, bias, eps, inner=1)

    def _group_norm(self, args: Sequence[Any], shapes: Sequence[Any], shape: Sequence[int]) -> int:
        x, groups, weight, bias, eps = _filled(args[:5], None, 1, None, None, 1e-5)
        return self._norm(x, shape, groups, weight, bias, eps, inner=prod(shape[2:]))

    def _norm(self, x: Any, shape: Any, groups: int, weight: Any, bias: Any, eps: float, inner: int) -> int:
        normal = self._add("norm", [x], shape, groups=groups, eps=eps)
        return normal if weight is None else self._add("scale", [normal, weight, bias], shape, inner=inner)

    def _keep_only(self, last: int) -> None:
        """Leaves out what the last value does not depend on."""
        used = {last}
        for place in range(last, -1, -1):
            if place in used:
                used |= set(self.steps[place]["reads"])
        inputs = [place for place, step in enumerate(self.steps) if step["op"] == "input"]
        order = sorted(used | set(inputs))
        place_of = {old: new for new, old in enumerate(order)}
        every, at = torch.cat(self._weights), 0
        kept = []
        for old in order:
            step = self.steps[old]
            step["reads"] = [place_of[each] for each in step["reads"]]
            if step["op"] == "weights":
                kept.append(every[step["at"] : step["at"] + step["size"]])
                step["at"], at = at, at + step["size"]
        self.steps = [self.steps[old] for old in order]
        self.weights = torch.cat(kept)

    @torch.no_grad()
    def deviation(self, *inputs: Tensor) -> float:
        """How far the function is, at most, from itself with weights of 16 bits, for inputs of any batch size."""
        rounded = {
            name: tensor.half().to(tensor) if tensor.is_floating_point() else tensor
            for name, tensor in self.graph.state_dict().items()
        }
        given = torch.func.functional_call(self.graph, rounded, inputs)
        return float((given - self.graph(*inputs)).abs().max())

    def as_dict(self, is_half: bool) -> dict[str, Any]:
        """The network for the page.

        Arguments:
            is_half: Whether weights have 16 bits, not 32.
        """
        numbers = self.weights.half() if is_half else self.weights
        return {"steps": self.steps, "bits": 16 if is_half else 32, "weights": packed(numbers)}


def packed(numbers: Tensor) -> str:
    """An array's bytes, little end first, as text."""
    array = numbers.cpu().numpy()
    return b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def _shape(node: Node) -> Any:
    value = node.meta["val"]
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _filled(args: Sequence[Any], *defaults: Any) -> Sequence[Any]:
    """Arguments, and the defaults of those that are not given."""
    return [*args, *defaults[len(args) :]]


def _with_bias(args: Sequence[Any], width: int) -> list[Any]:
    """The input, the weights and the bias of a layer, zero if it has none."""
    bias = args[2] if len(args) > 2 else None
    return [args[0], args[1], torch.zeros(width) if bias is None else bias]
