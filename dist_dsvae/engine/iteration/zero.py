"""ZeRO: Adam's moments, and in stage 2 the averaged gradients, divided over the processes by DeepSpeed.

    group: parameters that the same updates train, laid end to end in one flat tensor on every rank

        |  encoder_s.0.weight  | .bias |   encoder_s.3.weight   |  ...  | padding |
        |-------------- rank 0 --------------|-------------- rank 1 --------------|

    A rank keeps the moments of its slice alone, one set for each update that trains the group, and
    updates its slice alone; an all-gather then makes the flat tensor whole everywhere.

Weights are float32 (or cast by autocast), so that a slice is a view of the flat tensor, not a copy.
An update reduced flat (the GM update) averages its own gradients, for the moment whole on every rank, and
gathers only what it trains; DeepSpeed's engine does both for the others, at either stage of ZeRO.
A checkpoint holds moments by update and parameter, as without ZeRO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from dist_dsvae.config import OptimizerConfig
from dist_dsvae.core import distributed
from dist_dsvae.core.noise import Noise
from dist_dsvae.core.types import Batch
from dist_dsvae.engine.iteration.guard import NonFiniteLossError
from dist_dsvae.engine.iteration.optimizer import NamedParameters, UpdateOptimizer, learning_rate
from dist_dsvae.engine.iteration.zero_slice import ZeroSlice
from dist_dsvae.engine.processes.runtime import Runtime
from dist_dsvae.methods.update import Method, Reduction, parameter_groups

_MOMENTS = ("exp_avg", "exp_avg_sq")

ApplySlice = Callable[[str, Tensor], None]  # of a group, with this rank's slice of its gradient


def update_optimizers(
    method: nn.Module, config: OptimizerConfig, runtime: Runtime, batch_size: int
) -> Mapping[str, Optimizer]:
    """An optimiser per update, by its name: divided over the processes under DeepSpeed, else whole."""
    assert isinstance(method, Method)
    if not runtime.zero_stage:
        return {
            update.name: UpdateOptimizer(config, parameter_groups(method, update))
            for update in method.updates
        }
    method.to(memory_format=torch.contiguous_format)  # as DeepSpeed lays the weights out
    groups = _groups(method)
    client = _ClientOptimizer(groups)
    settings = {
        "train_micro_batch_size_per_gpu": batch_size // runtime.world_size,
        "gradient_clipping": config.clip_gradient_norm,
    }
    engine = runtime.shard(_Autocast(method, runtime), client, settings)
    shards = _adopt(engine.optimizer, client, groups)

    def through_engine(update: ApplySlice) -> bool:
        client.update = update
        # DeepSpeed waits for the norm on the host, deaf to signals and missing ranks
        runtime.fence.synchronize()
        engine.step()
        return bool(engine.optimizer.overflow)

    return {
        update.name: ZeroOptimizer(
            config,
            parameter_groups(method, update),
            shards,
            None if update.reduction is Reduction.FLAT else through_engine,
        )
        for update in method.updates
    }


class ZeroOptimizer:
    """Adam for what one update trains, each rank updating its slice: a ``UpdateOptimizer`` in parts.

    groups: as ``UpdateOptimizer`` takes them. shards: this rank's slices of the whole method, by group.
    through_engine: has DeepSpeed pass the slice of each group's gradient, averaged and clipped, to
    an update, and gather the weights; returns whether it left the update out, because a gradient
    was not finite. None: the gradients are in ``.grad``, averaged, on every rank.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        groups: Mapping[str, NamedParameters],
        shards: Mapping[str, ZeroSlice],
        through_engine: Callable[[ApplySlice], bool] | None,
    ) -> None:
        self.config = config
        self.named_parameters = {name: p for named in groups.values() for name, p in named}
        self.parameters = list(self.named_parameters.values())
        self._through_engine = through_engine
        self._shards = {k: s for k, s in shards.items() if self.named_parameters.keys() & s.spans.keys()}
        variances = {name for name, _ in groups.get("variances", [])}
        self._variances = {k for k, s in self._shards.items() if variances & s.spans.keys()}
        self._rates: dict[str, float] = {}
        self.gradient_norm: Tensor | None = None  # of slices, by DeepSpeed, which reads it on the host
        self.set_rates(0.0)
        self._counts = {
            k: torch.zeros((), dtype=torch.float32, device=s.own.device) for k, s in self._shards.items()
        }
        self._moments = {
            k: {moment: torch.zeros_like(s.own) for moment in _MOMENTS} for k, s in self._shards.items()
        }

    def set_rates(self, epoch: float) -> None:
        """Move the learning rates to where they are after ``epoch`` passes over the data."""
        for group in self._shards:
            self._rates[group] = learning_rate(self.config, epoch, variances=group in self._variances)

    def step(self, tripped: Tensor, scaler: torch.amp.GradScaler | None) -> None:
        """Apply the gradients and drop them; nothing moves where ``tripped`` is 1."""
        assert scaler is None
        if self._through_engine is None:
            self._step_alone(tripped)
            return

        def update(group: str, gradient: Tensor) -> None:
            if group in self._shards:
                self._update(group, gradient, tripped)

        # DeepSpeed leaves out such an update without a word; a bad loss is the guard's to report.
        if self._through_engine(update) and tripped.item() == 0:
            raise NonFiniteLossError(
                "A gradient became infinite or NaN, although every loss was finite. The update was not "
                "applied and the last checkpoint is intact. Start a new run with a lower "
                "optimizer.learning_rate, or with --mixed_precision no if this was bf16."
            )

    def _step_alone(self, tripped: Tensor) -> None:
        if self.config.clip_gradient_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_gradient_norm)
        for group, shard in self._shards.items():
            self._update(group, shard.gradient(), tripped)
            distributed.gather_slices(shard.flat)
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def _update(self, group: str, gradient: Tensor, tripped: Tensor) -> None:
        """Adam on this rank's slice: the fused kernel that ``UpdateOptimizer`` uses."""
        moments = self._moments[group]
        adam(
            [self._shards[group].own],
            [gradient],
            [moments["exp_avg"]],
            [moments["exp_avg_sq"]],
            [],
            [self._counts[group]],
            fused=True,
            found_inf=tripped,
            amsgrad=False,
            beta1=self.config.beta1,
            beta2=self.config.beta2,
            lr=self._rates[group],
            weight_decay=0.0,
            eps=self.config.epsilon,
            maximize=False,
        )

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Adam's state by parameter name, as ``UpdateOptimizer`` has it, in new tensors on the CPU.

        A rank gets the moments of those parameters of which it holds a part. Called by all ranks.
        """
        state: dict[str, dict[str, Tensor]] = {}
        for group, shard in self._shards.items():
            count = self._counts[group].cpu()
            state |= {name: {"step": count.clone()} for name in shard.spans}
            for moment, own in self._moments[group].items():
                for name, tensor in shard.whole(own).items():
                    state[name][moment] = tensor
        return state

    def restore(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Cut this rank's slices out of what a checkpoint was loaded into."""
        for group, shard in self._shards.items():
            self._counts[group].copy_(state[next(iter(shard.spans))]["step"])
            for moment, own in self._moments[group].items():
                for name, inside, here in shard.pieces():
                    own[here] = state[name][moment].view(-1)[inside].to(own.device)

    def num_bytes(self) -> int:
        """Bytes of state on this rank."""
        tensors = [t for moments in self._moments.values() for t in moments.values()]
        return sum(t.nbytes for t in [*tensors, *self._counts.values()])


Optimizer = UpdateOptimizer | ZeroOptimizer


# Groups


def _groups(method: Method) -> dict[str, NamedParameters]:
    """Named parameters by group: each trained as a whole by the same updates at the same rate."""
    labels: dict[str, list[str]] = {}
    parameters: dict[str, nn.Parameter] = {}
    for update in method.updates:
        for kind, named in parameter_groups(method, update).items():
            for name, parameter in named:
                parameters[name] = parameter
                labels.setdefault(name, []).append(f"{kind} of {update.name}")
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(", ".join(labels[name]), []).append((name, parameter))
    return dict(groups)


# DeepSpeed's ends


class _ClientOptimizer(torch.optim.Optimizer):
    """The optimiser that DeepSpeed drives: it passes each group's slice to the update under way."""

    def __init__(self, groups: Mapping[str, NamedParameters]) -> None:
        named_groups = [{"params": [p for _, p in named], "name": name} for name, named in groups.items()]
        super().__init__(named_groups, {"lr": 0.0})  # each update has rates of its own
        self.update: ApplySlice = lambda group, gradient: None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Called by DeepSpeed once per group, with that group alone in ``param_groups``."""
        for group in self.param_groups:
            (own,) = group["params"]
            self.update(group["name"], own.grad)


def _adopt(
    sharding: Any, client: _ClientOptimizer, groups: Mapping[str, NamedParameters]
) -> dict[str, ZeroSlice]:
    """This rank's slices of what DeepSpeed laid end to end, by group."""
    shards: dict[str, ZeroSlice] = {}
    for flat, group in zip(sharding.bit16_groups_flat, client.param_groups, strict=True):
        shard = shards[group["name"]] = ZeroSlice(flat, dict(groups[group["name"]]))
        # DeepSpeed updates a float32 copy of half-precision weights. These are float32: drop the
        # copy, and what refers to it, and let the slice itself be updated.
        (copy,) = group["params"]
        copy.data = shard.own
        for span in shard.spans.values():
            span.parameter._hp_mapping = None  # type: ignore[attr-defined]
    return shards


class _Autocast(nn.Module):
    """The method with autocast inside: DeepSpeed's engine switches off one that is around it."""

    def __init__(self, method: Method, runtime: Runtime) -> None:
        super().__init__()
        self.method = method
        self._runtime = runtime

    def forward(self, batch: Batch, noise: Noise, update: str) -> dict[str, Tensor]:
        with self._runtime.autocast():
            terms: dict[str, Tensor] = self.method(batch, noise, update)  # type: ignore[operator]
        return terms
