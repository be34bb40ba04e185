"""The memory that a training needs, told without computing anything, and batches that fit into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import nets
from command import BadInput
from nets.recompute import recompute
from training.config import Config

FLOAT = 4  # bytes of a float32
MOMENTS = {"muon": 1, "sgd": 1, "adagrad": 1}  # the optimiser's tensors beside each weight; 2 of others
LIBRARIES = 0.6e9  # bytes: Python, torch and the decoded tiles
SHARE = 0.8  # of the memory that a batch may be fitted into
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # a container's


def fitted(config: Config) -> Config:
    """The config with the largest even share of its batch that memory holds, and as many accumulated.

    Raises BadInput if there is none of two images or more.
    """
    if config.device not in ("cpu", "cuda"):
        raise BadInput(f"--fit_batch cannot tell the memory of {config.device}: give a --batch that fits")
    parameters, activations = measure(config)
    room = SHARE * (torch.cuda.mem_get_info()[0] if config.device == "cuda" else total_memory(config.device))
    for batch in range(config.batch, 0, -1):
        fits = needed_memory(replace(config, batch=batch), parameters, activations) <= room
        if config.batch % batch == 0 and fits and (batch > 1 or config.batch == 1):  # one cannot be normalised
            return replace(config, batch=batch, accumulate=config.accumulate * config.batch // batch)
    raise BadInput(
        f"the {room / SHARE / 1e9:.1f} GB of memory of this {config.device} hold no even share of --batch="
        f"{config.batch}, of two images or more: give a power of two, a smaller --image_size or net, or --recompute"
    )


@contextmanager
def shortage_told() -> Iterator[None]:
    """BadInput instead of what PyTorch raises when memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise BadInput(
            "memory ran out: add --fit_batch, or --recompute, or a smaller --batch with more --accumulate; what was "
            "finished is kept"
        ) from error


def measure(config: Config) -> tuple[int, int]:
    """(parameters, bytes that one image's forward pass keeps for the backward pass in float32), nothing computed."""
    with torch.device("meta"):
        channels = 3 + len(config.extra.split())
        of_data = {"channels": channels, "classes": config.chosen_labels.num_classes}
        net = nets.build(config.net, **config.net_arguments, **of_data)
        if config.recompute:
            recompute(net.blocks)
        images = torch.empty(2, channels, config.image_size, config.image_size)
    return sum(parameter.numel() for parameter in net.parameters()), saved_bytes(net, images) // len(images)


def saved_bytes(net: nn.Module, images: torch.Tensor) -> int:
    """Bytes that autograd saves in a forward pass, each storage once, the net's own tensors not counted."""
    own = {tensor.untyped_storage()._cdata for tensor in net.state_dict(keep_vars=True).values()}
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net.train()(images)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def needed_memory(config: Config, parameters: int, activations: int) -> float:
    """Bytes at the peak of a training step: weights, gradients, moments, saved activations, libraries."""
    half = 0.6 if config.precision in ("bf16", "fp16") else 1.0  # autocast keeps some in float32
    weights = parameters * FLOAT * (2 + MOMENTS.get(config.optimizer, 2))
    return weights + activations * half * config.batch + LIBRARIES


def state_size(config: Config, parameters: int) -> int:
    """Bytes of latest.pt: weights and the optimiser's state."""
    return parameters * FLOAT * (1 + MOMENTS.get(config.optimizer, 2))


def total_memory(device: str) -> float:
    """Bytes of the GPU's, the machine's or the container's memory; infinite where it cannot be told."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    told = 1024 * float(next(line.split()[1] for line in lines if line.startswith("MemTotal")))
    limits = [path.read_text().strip() for path in map(Path, LIMITS) if path.is_file()]
    return min([told, *(float(limit) for limit in limits if limit.isdecimal())])
