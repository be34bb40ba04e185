"""Batches of training images on their device: picked out of memory, or read from files by worker processes."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from command import BadInput
from datasets.augment import moved
from datasets.files import Files
from datasets.framing import Framing
from datasets.salt import Tiles

Batch = tuple[Tensor, Tensor]  # images (n, C, H, W) float32 in 0..1, label maps (n, H, W) uint8


class Framed(Dataset):
    """Files framed to one size, one at a time."""

    def __init__(self, files: Files, framing: Framing):
        self.files, self.framing = files, framing

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Batch:
        tile = self.files.read(index)
        framing = self.framing.fitting(tile.size)
        return framing.frame(tile.batch([0], self.files.channels))[0], framing.frame_mask(tile.masks)[0]


def feed(
    source: Tiles | Files, batches: Sequence[Tensor], framing: Framing, device: torch.device, workers: int
) -> Iterator[Batch]:
    """The images that each batch of indices names, in order, on `device`.

    Tiles keep their own size; files are framed on the way, as many at once as there are `workers`.
    """
    if isinstance(source, Tiles):
        for indices in batches:
            place = moved(indices, source.images.device)
            yield source.batch(place, source.channels), source.masks[place]
        return
    loader = DataLoader(
        Framed(source, framing),
        batch_sampler=[indices.tolist() for indices in batches],
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # torch's own would move on, and dropout with it
    )
    try:
        for images, masks in loader:
            yield images.to(device, non_blocking=True), masks.to(device, non_blocking=True)
    except BadInput as error:  # of a worker: with its traceback before the message
        raise BadInput(str(error).strip().splitlines()[-1].removeprefix("command.BadInput: ")) from None
