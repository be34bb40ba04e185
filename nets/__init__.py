"""Nets by name: built, saved and loaded here and nowhere else."""

import difflib
import inspect
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import runfolder
from command import BadInput
from nets import weights as initial
from nets.fastnet import FastNet
from nets.output import Output
from nets.residual_unet import ResidualUNet
from nets.saltnet import SaltNet
from nets.smp import SmpNet
from nets.unet import UNet

__all__ = ["NETS", "Output", "build", "load", "save"]

NETS = {"saltnet": SaltNet, "fastnet": FastNet, "unet": UNet, "residual-unet": ResidualUNet, "smp": SmpNet}
WRAPPED = {"_orig_mod", "_original_module", "module"}  # where torch.compile, Fabric and data parallelism keep a net


def build(name: str, weights: str = "none", **arguments: Any) -> nn.Module:
    """The net called `name`, with `name` and all its `arguments`, defaults included, as attributes.

    weights: "none" (from scratch), "imagenet" (of its encoder), or a file: a net saved here, or its encoder's ImageNet
    weights in .safetensors or torch.save's form. The initial values depend on PyTorch's global seed alone.
    Raises BadInput for an unknown name or argument, and for weights that cannot be had or do not fit.
    """
    net = construct(name, arguments)
    initial.start(net, weights)
    return net


def construct(name: str, arguments: dict[str, Any]) -> nn.Module:
    """The freshly initialised net of `build`, which raises what is said there."""
    if name not in NETS:
        raise BadInput(f"got net {name!r}, expected one of {', '.join(NETS)}")
    signature = inspect.signature(NETS[name])
    for argument in arguments:
        if argument not in signature.parameters:
            close = difflib.get_close_matches(str(argument), signature.parameters, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise BadInput(f"{name} has no argument {argument!r}{hint}; it takes {', '.join(signature.parameters)}")
    bound = signature.bind(**arguments)
    bound.apply_defaults()
    net = NETS[name](**bound.arguments)
    net.name, net.arguments = name, dict(bound.arguments)
    return net


def save(path: Path | str, net: nn.Module, /, **details: Any) -> None:
    """Write the net, how to build it, provenance and `details` to `path`, whole or not at all.

    `details` are tensors, numbers, strings, None, and dicts, lists and tuples of these: the file opens with
    `torch.load`'s safe default, on any machine. Raises TypeError, naming the entry, for anything else.
    """
    check_plain(details, "details")
    net = unwrapped(net)
    content = {
        "format": initial.FORMAT,
        "net": net.name,
        "arguments": net.arguments,
        "state": {key: tensor.detach().cpu() for key, tensor in net.state_dict().items()},
        "provenance": runfolder.provenance(),
        "details": details,
    }
    with runfolder.atomic(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # in which PyTorch hides what the system said
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        file.flush()
        os.fsync(file.fileno())  # whole on the disk before it has its name, even if the machine loses its power


def load(path: Path | str) -> tuple[nn.Module, dict[str, Any]]:
    """The net of a file that `save` wrote, in evaluation mode on the CPU, and its details with "provenance" added.

    Needs that file only: neither the network nor ImageNet weights. Leaves the random state as it is.
    Raises BadInput for a file that is missing, damaged, not ours, or holds anything that could run code.
    """
    content = initial.read(path)
    kinds = {"net": str, "arguments": dict, "state": dict, "details": dict}
    whole = all(isinstance(content.get(key), kind) for key, kind in kinds.items())
    if content.get("format") != initial.FORMAT or not whole:
        raise BadInput(f"{path} is no net of this project, expected a file such as runs/RUN/pad/fold0/final.pt")
    try:
        with torch.random.fork_rng(devices=[]), NoInitialisation():
            net = construct(content["net"], content["arguments"])
        initial.load_state(net, content["state"], path, assign=True)
    except BadInput as error:
        raise BadInput(f"{path} cannot be loaded: {error}") from None
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:  # arguments of a kind that no net takes
        reason = initial.shortened(" ".join(str(error).split()))
        raise BadInput(f"{path} cannot be loaded: no {content['net']} has its arguments ({reason})") from None
    return net.eval(), {**content["details"], "provenance": content.get("provenance", {})}


def unwrapped(net: nn.Module) -> nn.Module:
    """The net itself, without what torch.compile, Fabric or data parallelism put around it."""
    while inner := WRAPPED & net._modules.keys():
        net = net._modules[inner.pop()]
    return net


class NoInitialisation(TorchFunctionMode):
    """While it is on, nn.init leaves tensors as they are: most of the time that building a net takes."""

    def __torch_function__(
        self, function: Callable, types: Any, arguments: tuple = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return keywords["tensor"] if "tensor" in keywords else arguments[0]
        return function(*arguments, **keywords)


def check_plain(value: Any, place: str) -> None:
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            check_plain(key, f"a key of {place}")
            check_plain(item, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for position, item in enumerate(value):
            check_plain(item, f"{place}[{position}]")
    elif type(value) not in (str, int, float, bool, type(None)) and not isinstance(value, Tensor):
        raise TypeError(f"{place} is a {type(value).__name__}, expected tensors, numbers, strings and their containers")
