"""The layers training starts from: a local file, else torchvision's download, else random, which is said loudly."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torchvision import models

from app.model.backbones import ARCHITECTURES
from app.model.network import FractureNetwork

__all__ = ["Initial", "load_initial", "local_layers"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Initial:
    """Where a body's first weights came from.

    Attributes:
        source: file name, torchvision's name for the weights, or "random".
        sha256: of the local file; empty otherwise.
        loaded: number of tensors taken over.
        fresh: the body's parameters that were left random.
    """

    source: str
    sha256: str
    loaded: int
    fresh: tuple[str, ...]

    def as_card(self) -> dict[str, object]:
        """For the model's card: the same, the fresh parameters shortened to the modules that hold them."""
        return {**asdict(self), "fresh": sorted({name.split(".")[0] for name in self.fresh})}


def local_layers(init: Path | None, architecture: str) -> Path | None:
    """The file of initial layers for an architecture: ``init`` itself, or, in a folder, the file named after it.

    A file is named after an architecture when its name up to the first "-" is the architecture's, "_" for "-".
    """
    if init is None or not init.is_dir():
        return init
    wanted = (ARCHITECTURES[architecture].layers_of or architecture).replace("-", "_")
    return next((path for path in sorted(init.glob("*.safetensors")) if path.stem.split("-")[0] == wanted), None)


def load_initial(network: FractureNetwork, architecture: str, file: Path | None) -> Initial:
    """Fills the body with pretrained weights as far as they go.

    Args:
        network: changed in place.
        architecture: a key of ``ARCHITECTURES``, for torchvision's download.
        file: safetensors with torchvision's names, possibly for the first stages only.

    Raises:
        FileNotFoundError: ``file`` is given and not there.
        ValueError: ``file`` holds none of the body's tensors, or one of another shape.
    """
    if file is not None:
        if not file.is_file():
            raise FileNotFoundError(f"no initial layers at {file}")
        return _fill(network, load_file(file), file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    published = ARCHITECTURES[architecture].published
    if not published:
        log.warning("NO PRETRAINED LAYERS for %s: training starts from RANDOM weights.", architecture)
        return Initial("random", "", 0, tuple(name for name, _ in network.body.named_parameters()))
    try:
        state = models.get_weight(published).get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        log.warning(
            "NO PRETRAINED LAYERS: %s could not be downloaded (%s). Training starts from RANDOM weights and will be "
            "far worse; give a local file with --init.",
            published,
            error,
        )
        return Initial("random", "", 0, tuple(name for name, _ in network.body.named_parameters()))
    return _fill(network, state, published, "")


def _fill(network: FractureNetwork, state: dict[str, torch.Tensor], source: str, sha256: str) -> Initial:
    own = network.body.state_dict()
    usable = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    usable = {name: tensor for name, tensor in usable.items() if name in own}
    if not usable:
        raise ValueError(f"{source} holds none of this architecture's layers")
    for name, tensor in usable.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{source}: {name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
    network.body.load_state_dict(usable, strict=False)
    fresh = tuple(name for name, _ in network.body.named_parameters() if name not in usable)
    log.info("%d tensors from %s, %d parameters start random", len(usable), source, len(fresh))
    return Initial(source, sha256, len(usable), fresh)
