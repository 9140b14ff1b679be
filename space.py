"""What Hugging Face Spaces starts."""

from importlib.util import find_spec

from app.model.classifier import Classifier
from app.model.weights import together
from app.ui.page import launch


def borrow_gpu() -> str:
    """What a borrowed GPU is called."""
    import torch

    return torch.cuda.get_device_name()


if find_spec("spaces"):
    import spaces

    # ZeroGPU stops a Space that has no function of this kind. Nothing calls it: these networks answer within a second
    # on its processor, and every call would spend the visitor's share of GPU time.
    spaces.GPU(borrow_gpu)

launch(Classifier.load_all(together()))
