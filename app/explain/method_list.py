"""Every way to explain an X-ray, described: what it shows, what it cannot, and what it costs.

Apart from ``app.explain.methods``, which draws them and needs torch, because ``--help`` lists them and must not wait
for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DEFAULT", "METHODS", "Cost", "Method"]

Cost = Literal["instant", "seconds", "slow"]

DEFAULT = "gradcam"


@dataclass(frozen=True)
class Method:
    """A way to explain an X-ray.

    Attributes:
        title: as people know it.
        says: what it shows, and what it cannot, in a sentence or two.
        cost: "instant" needs the head only, "seconds" asks the network some dozen times, "slow" hundreds of times.
    """

    title: str
    says: str
    cost: Cost


METHODS: dict[str, Method] = {
    "gradcam": Method(
        "Grad-CAM",
        "Exact: it adds up to the score, place by place. Says nothing about what made the features.",
        "instant",
    ),
    "gradcam++": Method(
        "Grad-CAM++",
        "Grad-CAM that counts several small findings alike. Its weights are not the model's, so it may show too much.",
        "instant",
    ),
    "hirescam": Method(
        "HiResCAM",
        "Features times gradient, place by place. The same map as Grad-CAM here, where the head is linear.",
        "instant",
    ),
    "xgradcam": Method(
        "XGrad-CAM",
        "Grad-CAM with gradients weighted by where features are. The same map as Grad-CAM here, where the head is "
        "linear.",
        "instant",
    ),
    "layercam": Method(
        "LayerCAM",
        "Features times positive gradient at each place. Leaves out what speaks against.",
        "instant",
    ),
    "eigencam": Method(
        "EigenCAM",
        "The strongest pattern in the features, whatever the class: the same map for every type.",
        "instant",
    ),
    "eigengradcam": Method(
        "EigenGradCAM",
        "The strongest pattern in features times gradient. Its sign is a convention, not evidence.",
        "instant",
    ),
    "finercam": Method(
        "Finer-CAM",
        "Grad-CAM of one type's score less another's: why this and not that. Shows differences only.",
        "instant",
    ),
    "ablationcam": Method(
        "Ablation-CAM",
        "Features weighted by how far the score falls without each. Features that stand in for one another hide.",
        "instant",
    ),
    "gradcam-earlier": Method(
        "Grad-CAM, an earlier layer",
        "Drawn one stage earlier, where features are less about types; no finer in networks with a feature pyramid. "
        "What later layers make of it is only guessed.",
        "seconds",
    ),
    "gradcam-fused": Method(
        "Grad-CAM, last two stages",
        "Maps of the last two stages averaged; where they agree it is hottest. No longer a part of the score.",
        "seconds",
    ),
    "fullgrad": Method(
        "FullGrad",
        "Gradients of the input and of every bias, added up in size. Knows no sign: against looks like for.",
        "seconds",
    ),
    "integrated-gradients": Method(
        "Integrated gradients",
        "Each pixel's part in the way from a black film to this one. Grainy, and depends on black being nothing.",
        "seconds",
    ),
    "occlusion": Method(
        "Occlusion",
        "How far the score falls when a window is black. Honest but coarse; a black window is itself odd to the model.",
        "slow",
    ),
    "scorecam": Method(
        "Score-CAM",
        "Features weighted by the score of the film seen through each. No gradients; the dimmed films are odd ones.",
        "slow",
    ),
    "lime": Method(
        "LIME",
        "Which patches make the score, by a simple model around this film. Changes with patches and draws of lots.",
        "slow",
    ),
    "shap": Method(
        "SHAP",
        "Each patch's fair share of the score. Estimated from draws of lots, and patches cut across bones.",
        "slow",
    ),
}
