"""Explanations that need the pixels: they run the whole network again and again, in batches.

captum computes integrated gradients, occlusion, LIME and SHAP, pytorch-grad-cam FullGrad. Calls share nothing: methods
that need hooks work on a copy of the network, and random draws have a generator of their own.

Each function takes the network in evaluation mode, ``pixels`` and where needed ``black``, a black image, normalised,
float (1, 3, H, W), the index of the class to explain, and for slow methods a ``watch`` that is told after every batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from captum._utils.models.model import Model
from captum.attr import IntegratedGradients, KernelShap, Lime, Occlusion
from pytorch_grad_cam import FullGrad, GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.nn import functional
from torch.utils.data import DataLoader

from app.errors import Progress
from app.model.network import FractureNetwork, Logits

__all__ = [
    "BATCH",
    "fullgrad",
    "integrated_gradients",
    "layer_maps",
    "lime",
    "occlusion",
    "score_cam",
    "shap",
    "superpixels",
]

BATCH = 16
"""Pictures in one forward: what bounds the memory of every method here."""

SUPERPIXELS = 48
STEPS = 32
SAMPLES = 320


Scores = Callable[[torch.Tensor], torch.Tensor]


def _counted(network: FractureNetwork, watch: Progress, expected: int) -> Scores:
    """The network's logits; reports after every batch how many of the expected images are done."""
    done = 0

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal done
        found = network.logits(pixels)
        done += len(pixels)
        watch.step(done / expected)
        return found

    return logits


def _positive(attributed: torch.Tensor) -> np.ndarray:
    return np.maximum(attributed[0].sum(dim=0).detach().numpy(), 0.0).astype(np.float32)


def score_cam(network: FractureNetwork, pixels: torch.Tensor, class_index: int, watch: Progress) -> np.ndarray:
    """Score-CAM (Wang et al., 2020): features weighted by the score of the image seen through each of them alone.

    The features are the backbone's before its gate, which would double them, and the time, with copies dimmed by one
    weight.

    Returns:
        float32 (h, w), at least 0, unscaled.
    """
    scores = []
    with torch.inference_mode():
        features = network.body(pixels)
        scored = _counted(network, watch, features.shape[1])
        for some in features[0].split(BATCH):
            masks = functional.interpolate(some[:, None], pixels.shape[2:], mode="bilinear", align_corners=True)
            low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            scores.append(scored(pixels * (masks - low) / (high - low + 1e-8))[:, class_index])
        weights = torch.cat(scores).softmax(dim=0)
        drawn = torch.einsum("k,khw->hw", weights, features[0])
    return np.maximum(drawn.numpy(), 0.0).astype(np.float32)


def fullgrad(network: FractureNetwork, pixels: torch.Tensor, class_index: int) -> np.ndarray:
    """FullGrad (Srinivas and Fleuret, 2019), the sizes of input and bias gradients: float32 (H, W), 0 to 1."""
    # The package hangs hooks; on a copy they meet no other call's.
    alone = Logits(copy.deepcopy(network))
    with torch.inference_mode(False), torch.enable_grad():
        leaf = pixels.clone().requires_grad_(True)
        with FullGrad(model=alone, target_layers=[]) as cam:
            return cam(leaf, [ClassifierOutputTarget(class_index)])[0].astype(np.float32)


def layer_maps(network: FractureNetwork, pixels: torch.Tensor, class_index: int, layers: Sequence[str]) -> np.ndarray:
    """Grad-CAM at earlier layers of the backbone: float32 (H, W), 0 to 1, the mean of each layer's map scaled to 0..1.

    Raises:
        AttributeError: no such layer.
    """
    alone = Logits(copy.deepcopy(network)).requires_grad_(True)
    targets = [alone.network.stage(name) for name in layers]
    with torch.inference_mode(False), torch.enable_grad(), GradCAM(model=alone, target_layers=targets) as cam:
        return cam(pixels.clone(), [ClassifierOutputTarget(class_index)])[0].astype(np.float32)


def integrated_gradients(
    network: FractureNetwork, pixels: torch.Tensor, black: torch.Tensor, class_index: int, watch: Progress
) -> np.ndarray:
    """Integrated gradients (Sundararajan et al., 2017) from black: float32 (H, W), at least 0, logits a pixel."""
    method = IntegratedGradients(_counted(network, watch, STEPS))
    with torch.inference_mode(False), torch.enable_grad():
        given = method.attribute(
            pixels.clone(), black.clone(), target=class_index, n_steps=STEPS, internal_batch_size=BATCH
        )
    return _positive(given)


def occlusion(
    network: FractureNetwork, pixels: torch.Tensor, black: torch.Tensor, class_index: int, watch: Progress
) -> np.ndarray:
    """Occlusion (Zeiler and Fergus, 2014): the fall of the score when a window, an eighth of the side, is black.

    Returns:
        float32 (H, W), at least 0, in logits.
    """
    side = pixels.shape[-1] // 8
    stride = max(1, side // 2)
    across = 1 + math.ceil((pixels.shape[-1] - side) / stride)
    method = Occlusion(_counted(network, watch, 1 + across**2))
    with torch.inference_mode():
        given = method.attribute(
            pixels,
            sliding_window_shapes=(3, side, side),
            strides=(3, stride, stride),
            baselines=black,
            target=class_index,
            perturbations_per_eval=BATCH,
        )
    return _positive(given / 3.0)


def superpixels(square: np.ndarray, count: int) -> np.ndarray:
    """About ``count`` patches of alike brightness, by k-means on position and brightness (SLIC, Achanta et al., 2012).

    Args:
        square: float (S, S), or (S, S, 3) in colour, in 0..1.
        count: of patches, about.

    Returns:
        int64 (S, S), numbered from 0 without gaps.
    """
    square = square if square.ndim == 2 else square.mean(axis=2)
    size = square.shape[0]
    small = min(size, 96)
    shrunk = cv2.resize(square.astype(np.float32), (small, small), interpolation=cv2.INTER_AREA)
    rows, columns = np.mgrid[0:small, 0:small].astype(np.float32) / small
    points = np.stack([rows, columns, 0.6 * shrunk], axis=2).reshape(-1, 3)
    side = round(math.sqrt(count))
    start = (np.mgrid[0:side, 0:side] + 0.5) / side
    at = np.minimum((start * small).astype(int), small - 1)
    labels = (np.abs(at[0].reshape(-1, 1) - rows.reshape(1, -1) * small) ** 2).astype(np.float32)
    labels += np.abs(at[1].reshape(-1, 1) - columns.reshape(1, -1) * small) ** 2
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1e-3)
    first = labels.argmin(axis=0).astype(np.int32)[:, None]
    # Given labels to start from, k-means draws nothing at random, so that an image always has the same patches.
    _, found, _ = cv2.kmeans(points, side**2, first, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    numbered = np.unique(found, return_inverse=True)[1].reshape(small, small).astype(np.float32)
    return cv2.resize(numbered, (size, size), interpolation=cv2.INTER_NEAREST).astype(np.int64)


class _LeastSquares(Model):
    """Weighted linear regression with a little ridge, for which captum would need scikit-learn."""

    def __init__(self, ridge: float) -> None:
        self.ridge = ridge
        self.weights = torch.zeros(0)

    def fit(self, train_data: DataLoader, **_: object) -> None:
        parts = list(train_data)
        seen, score, weight = (torch.cat([part[i] for part in parts]).double() for i in range(3))
        design = torch.cat([seen, torch.ones(len(seen), 1)], dim=1)
        weighted = design * weight.reshape(-1, 1)
        penalty = self.ridge * torch.eye(design.shape[1], dtype=torch.double)
        penalty[-1, -1] = 0.0
        solved = torch.linalg.lstsq(weighted.T @ design + penalty, weighted.T @ score.reshape(-1, 1), driver="gelsd")
        self.weights = solved.solution[:, 0].float()

    def representation(self) -> torch.Tensor:
        return self.weights[:-1][None]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() @ self.weights[:-1] + self.weights[-1]


class _Shap(KernelShap):
    def __init__(self, scores: Scores, generator: torch.Generator) -> None:
        Lime.__init__(
            self,
            scores,
            interpretable_model=_LeastSquares(1e-6),
            similarity_func=self.kernel_shap_similarity_kernel,
            perturb_func=self.kernel_shap_perturb_generator,
        )
        self.inf_weight = 1e6
        self.generator = generator

    def kernel_shap_perturb_generator(
        self, original_inp: object, **kwargs: object
    ) -> Generator[torch.Tensor, None, None]:
        count = int(kwargs["num_interp_features"])  # ty: ignore[invalid-argument-type]
        yield torch.ones(1, count, dtype=torch.long)
        yield torch.zeros(1, count, dtype=torch.long)
        sizes = torch.arange(1, count, dtype=torch.double)
        chances = (count - 1) / (sizes * (count - sizes))
        while True:
            kept = 1 + int(torch.multinomial(chances, 1, generator=self.generator))
            chosen = torch.zeros(1, count, dtype=torch.long)
            chosen[0, torch.randperm(count, generator=self.generator)[:kept]] = 1
            yield chosen


def _lime(scores: Scores, generator: torch.Generator) -> Lime:
    def draw(*_: object, num_interp_features: int, **__: object) -> torch.Tensor:
        return torch.randint(0, 2, (1, num_interp_features), generator=generator)

    return Lime(scores, interpretable_model=_LeastSquares(1.0), perturb_func=draw)


def _patch_map(
    method: Callable[[Scores, torch.Generator], Lime],
    network: FractureNetwork,
    pixels: torch.Tensor,
    black: torch.Tensor,
    square: np.ndarray,
    class_index: int,
    watch: Progress,
) -> np.ndarray:
    with torch.inference_mode():
        given = method(_counted(network, watch, SAMPLES), torch.Generator().manual_seed(0)).attribute(
            pixels,
            baselines=black,
            target=class_index,
            feature_mask=torch.from_numpy(superpixels(square, SUPERPIXELS))[None, None],
            n_samples=SAMPLES,
            perturbations_per_eval=BATCH,
        )
    return np.maximum(given[0, 0].numpy(), 0.0).astype(np.float32)


lime = partial(_patch_map, _lime)
"""LIME (Ribeiro et al., 2016): a linear model of which patches, left in or blackened, make the score.

Takes the ``square`` too, brightness, float (H, W) in 0..1, which is cut into patches. Returns each patch's weight in
logits: float32 (H, W), at least 0.
"""

shap = partial(_patch_map, _Shap)
"""Kernel SHAP (Lundberg and Lee, 2017): each patch's share of the score, fair over all orders of adding patches.

Takes and returns what ``lime`` does.
"""
