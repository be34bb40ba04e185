"""Muon: the momentum of a convolution's weights, orthogonalised, as its update; AdamW for all other parameters.

A step along the gradient moves few directions of a weight matrix; one along its nearest orthogonal matrix moves all of
them alike. The nearest one comes from a few Newton-Schulz iterations: matrix products only.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the scale that lets it share AdamW's learning rate and
weight decay: Liu et al. 2025, section 2.2, https://arxiv.org/abs/2502.16982 (0.2 there, UPDATE here: runs/LOG.md).
"""

import math
from collections.abc import Callable, Iterable
from itertools import groupby

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration: singular values end in 0.7 .. 1.2
ITERATIONS = 5
MOMENTUM = 0.95
UPDATE = 0.5  # root mean square of an orthogonalised update, before the learning rate
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW
LEAST_CHANNELS = 9  # going in and out: stems, heads and depthwise weights are left to AdamW


class Muon(Optimizer):
    """Takes `lr` and `weight_decay` as torch.optim.AdamW does, and decays as that does."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            self.orthogonal_step([p for p in parameters if is_orthogonalised(p)], group["lr"])
            for parameter in parameters:
                if not is_orthogonalised(parameter):
                    self.adam_step(parameter, group["lr"])

    def orthogonal_step(self, parameters: list[Tensor], lr: float) -> None:
        """Matrices of one shape are orthogonalised together."""
        for (rows, columns), alike in groupby(sorted(parameters, key=matrix_shape), key=matrix_shape):
            alike = list(alike)
            updates = orthogonalised(torch.stack([self.nesterov(p).flatten(1) for p in alike]))
            for parameter, update in zip(alike, updates, strict=True):
                parameter.add_(update.view_as(parameter), alpha=-lr * UPDATE * math.sqrt(max(rows, columns)))

    def nesterov(self, parameter: Tensor) -> Tensor:
        """The running mean of gradients, one step ahead."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(state["momentum"], MOMENTUM)

    def adam_step(self, parameter: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - BETAS[0])
        state["square"].mul_(BETAS[1]).addcmul_(parameter.grad, parameter.grad, value=1 - BETAS[1])
        corrections = [1 - beta ** state["step"] for beta in BETAS]
        spread = (state["square"] / corrections[1]).sqrt_().add_(EPSILON)
        parameter.addcdiv_(state["mean"], spread, value=-lr / corrections[0])


def is_orthogonalised(parameter: Tensor) -> bool:
    return parameter.ndim == 4 and min(parameter.shape[:2]) >= LEAST_CHANNELS


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """Rows are channels going out."""
    return len(parameter), parameter[0].numel()


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearly nearest matrices (N, rows, columns) whose singular values are all about 1. 0 stays 0.

    Every iterate is a polynomial of G = X X^T times X. So they run on G, (rows, rows) where rows <= columns, and X is
    multiplied once: less than half of the work on X itself where columns are many.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    a, b, c = COEFFICIENTS
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    gram, factor = matrices @ matrices.mT, None
    for iteration in range(ITERATIONS):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        factor = step if factor is None else step @ factor
        if iteration < ITERATIONS - 1:
            gram = step @ gram @ step
    return factor @ matrices
