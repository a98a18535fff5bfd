"""How a loss term reaches the networks that it trains, and no other, in ONE backward pass.

A routing table says with which weight each term trains each network:

    {"generator": {"decoder": 1.0}, "reconstruction": {"encoder_s": 10.0, "encoder_u": 10.0, ...}, ...}

A method's forward realises its table with two tools:

    shared_pass(network, inputs, routes)  one forward, several outputs of equal value; the
                                          gradient that arrives at each goes on along its route:
                                          into the parameters, into the inputs, or both
    scale_gradient(tensor, factor)        the identity, with a scaled gradient

tests/unit/methods/test_routing_table.py differentiates every term with respect to every network
and compares the result with the table.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

RoutingTable = Mapping[str, Mapping[str, float]]


def largest_weight(routing: RoutingTable, term: str) -> float:
    """What ``update.objective`` multiplies a term by."""
    return max(routing[term].values())


class Route(enum.Flag):
    """Where the gradient of one output of ``shared_pass`` goes."""

    PARAMETERS = enum.auto()
    INPUTS = enum.auto()
    BOTH = PARAMETERS | INPUTS


def shared_pass(
    network: nn.Module, inputs: Sequence[Tensor], routes: Sequence[Route], *, rowwise: bool = False
) -> tuple[Tensor, ...]:
    """``network(*inputs)``, computed once, as one output per route.

    The network's backward pass is linear in the gradient of its output, so gradients along the
    same route are added first. With routes (PARAMETERS, INPUTS) the backward pass runs once for
    the parameters and once, without their share of the work, for the inputs. That is exactly
    what two forward passes with detached inputs or detached parameters would give, batch norm
    included, without the second forward.

    rowwise: promises that the output is one number per row, and that a row depends on the same row
    of the inputs alone. Then both gradients of a row are the same vector up to a factor, and ONE
    backward pass serves both: the input gradient is scaled by the ratio of the rows' gradients.
    The gradient along PARAMETERS is first moved away from 0 by 1e-14 of the other, so that the ratio
    stays finite; that much is lost in the sum over the rows anyway.

    The first backward frees the graph; a second one through the same pass raises.
    """
    return joint_passes(network, [Pass(inputs, routes, rowwise)])[0]


class Pass(NamedTuple):
    """Arguments of one ``shared_pass``."""

    inputs: Sequence[Tensor]
    routes: Sequence[Route]
    rowwise: bool = False


def joint_passes(network: nn.Module, passes: Sequence[Pass]) -> list[tuple[Tensor, ...]]:
    """Several ``shared_pass`` through one network, one after the other.

    Their gradients by the parameters are added up for all parameters at once, where autograd would add them
    parameter by parameter.
    """
    if not torch.is_grad_enabled():
        outputs = [(network(*one.inputs), one.routes) for one in passes]
        return [tuple(output for _ in routes) for output, routes in outputs]
    parameters = [p for p in network.parameters() if p.requires_grad]
    inputs = [tensor for one in passes for tensor in one.inputs]
    flat = iter(_SharedPass.apply(network, passes, *inputs, *parameters))
    return [tuple(next(flat) for _ in one.routes) for one in passes]


class _Graph(NamedTuple):
    """What a pass left behind for its backward."""

    output: Tensor
    inputs: list[Tensor]  # those that need a gradient


class _SharedPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: nn.Module, passes: Sequence[Pass], *tensors: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.specifications = [(tuple(one.routes), one.rowwise) for one in passes]
        num_inputs = sum(len(one.inputs) for one in passes)
        ctx.needed = ctx.needs_input_grad[2 : 2 + num_inputs]
        ctx.graphs, outputs = [], []
        given = iter(zip(tensors, ctx.needed, strict=False))
        for one in passes:
            inputs = [t.detach().requires_grad_(n) for t, n in itertools.islice(given, len(one.inputs))]
            with torch.enable_grad():
                output = network(*inputs)
            ctx.graphs.append(_Graph(output, [t for t in inputs if t.requires_grad]))
            outputs += [output.detach() for _ in one.routes]
        ctx.parameters = tensors[num_inputs:]
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        if ctx.graphs is None:
            raise RuntimeError("shared_pass was already differentiated; a second backward is not possible")
        graphs, parameters = ctx.graphs, ctx.parameters
        ctx.graphs = None  # free the activations as an ordinary backward would
        remaining = iter(gradients)
        by_input: list[Tensor | None] = []
        by_parameter: list[Sequence[Tensor | None]] = []
        for graph, (routes, rowwise) in zip(graphs, ctx.specifications, strict=True):
            own = list(itertools.islice(remaining, len(routes)))
            of_inputs, of_parameters = _differentiated(graph, parameters, routes, own, rowwise=rowwise)
            by_input += of_inputs
            by_parameter.append(of_parameters)
        found = iter(by_input)
        by_argument = [next(found) if needed else None for needed in ctx.needed]
        return None, None, *by_argument, *_added(by_parameter)


def _differentiated(
    graph: _Graph,
    parameters: Sequence[Tensor],
    routes: Sequence[Route],
    gradients: Sequence[Tensor | None],
    *,
    rowwise: bool,
) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
    """Gradients of one pass by its inputs and by the parameters.

    Each has its own gradient of the output: p for the parameters, q for the inputs. Where the output is one
    number y_i per row, of that row's input x_i alone (rowwise), one backward of d = p gives both

        sum_i p_i dy_i/dtheta    and    p_i dy_i/dx_i,    of which q_i dy_i/dx_i is q_i / p_i times the latter

    and d = p + 1e-14 |q| (with p's sign) leaves no row without a ratio whose p_i is 0.
    """
    output, inputs = graph
    to_parameters = _sum_along(Route.PARAMETERS, routes, gradients)
    to_inputs = _sum_along(Route.INPUTS, routes, gradients) if inputs else None
    if rowwise and to_parameters is not None and to_inputs is not None:
        driving = torch.add(to_parameters, torch.copysign(to_inputs, to_parameters), alpha=1e-14)
        both = _gradients(output, [*inputs, *parameters], driving, retain=False)
        ratio = to_inputs / driving.masked_fill(driving == 0, 1.0)  # both are 0 where one is
        return [_scale_rows(g, ratio) for g in both[: len(inputs)]], both[len(inputs) :]
    by_parameter = _gradients(output, parameters, to_parameters, retain=to_inputs is not None)
    return _gradients(output, inputs, to_inputs, retain=False), by_parameter


def _added(by_pass: Sequence[Sequence[Tensor | None]]) -> Sequence[Tensor | None]:
    """The sum over passes; a pass to which no gradient came has None for all parameters."""
    given = [cast("list[Tensor]", list(one)) for one in by_pass if one and one[0] is not None]
    if not given:
        return by_pass[0]
    total = given[0]
    for one in given[1:]:
        total = list(torch._foreach_add(total, one))
    return total


def _sum_along(route: Route, routes: Sequence[Route], gradients: Sequence[Tensor | None]) -> Tensor | None:
    chosen = [g for r, g in zip(routes, gradients, strict=True) if route in r and g is not None]
    return sum(chosen[1:], chosen[0]) if chosen else None


def _scale_rows(gradient: Tensor | None, ratio: Tensor) -> Tensor | None:
    """[B, ...] times [B]."""
    if gradient is None:
        return None
    return (gradient * ratio.view(-1, *[1] * (gradient.dim() - 1))).to(gradient.dtype)


def _gradients(
    output: Tensor, targets: Sequence[Tensor], gradient: Tensor | None, *, retain: bool
) -> Sequence[Tensor | None]:
    if gradient is None or not targets:
        return [None] * len(targets)
    return torch.autograd.grad(output, targets, gradient, retain_graph=retain)


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """The identity; the gradient that flows back through it is multiplied by ``factor``."""
    if factor == 1.0:
        return tensor
    scaled: Tensor = _ScaleGradient.apply(tensor, factor)
    return scaled


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None
