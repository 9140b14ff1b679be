"""Every method to explain an X-ray, described: what its map shows, what it cannot show, and what it costs.

Apart from ``app.explain.methods``, which draws the maps and imports torch, because ``--help`` lists them and must not
wait for torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DEFAULT", "METHODS", "Cost", "Method"]

Cost = Literal["instant", "seconds", "slow"]

DEFAULT = "gradcam"


@dataclass(frozen=True)
class Method:
    """A method to explain an X-ray.

    Attributes:
        title: its usual name.
        says: what it shows, and what it cannot, in a sentence or two.
        cost: "instant" needs the head only, "seconds" some dozen forwards of the network, "slow" hundreds.
        contrasts: whether it explains one type against another.
        says_of_gradients: the same of networks whose end is no linear layer, where that differs.
    """

    title: str
    says: str
    cost: Cost
    contrasts: bool = False
    says_of_gradients: str = ""


METHODS: dict[str, Method] = {
    "gradcam": Method(
        "Grad-CAM",
        "Exact: the evidence for the type. With the evidence against it, it adds up to the type's score.",
        "instant",
        says_of_gradients="Features weighted by the score's gradients there. A tangent to the score, no part of it.",
    ),
    "gradcam++": Method(
        "Grad-CAM++",
        "Grad-CAM that counts small findings alike. Its weights are not the model's, so it may show too much.",
        "instant",
    ),
    "hirescam": Method(
        "HiResCAM",
        "Features times gradient, cell by cell. Equals Grad-CAM here, since the head is linear.",
        "instant",
        says_of_gradients="Features times gradient, cell by cell. Equals Grad-CAM where features are averaged first.",
    ),
    "xgradcam": Method(
        "XGrad-CAM",
        "Gradients weighted by features. Equals Grad-CAM here, since the head is linear.",
        "instant",
        says_of_gradients="Gradients weighted by features. Equals Grad-CAM where features are averaged first.",
    ),
    "layercam": Method(
        "LayerCAM", "Features times positive gradient in each cell. Leaves out what speaks against.", "instant"
    ),
    "eigencam": Method(
        "EigenCAM", "The strongest pattern in the features, whatever the class: one map for every type.", "instant"
    ),
    "eigengradcam": Method(
        "EigenGradCAM", "The strongest pattern in features times gradient, high where features are strong.", "instant"
    ),
    "finercam": Method(
        "Finer-CAM",
        "Grad-CAM of one type's score less another's: why this, not that. Shows differences only.",
        "instant",
        contrasts=True,
    ),
    "ablationcam": Method(
        "Ablation-CAM",
        "Features weighted by the fall of the score without each. Hides interchangeable features.",
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
        "The mean map of the last two stages, hottest where they agree. No part of the score.",
        "seconds",
    ),
    "fullgrad": Method(
        "FullGrad", "The size of all gradients of input and biases. Has no sign: against looks like for.", "seconds"
    ),
    "integrated-gradients": Method(
        "Integrated gradients",
        "Each pixel's part of the change from a black image to this one. Grainy, and assumes that black is nothing.",
        "seconds",
    ),
    "occlusion": Method(
        "Occlusion",
        "The fall of the score when a window is black. Coarse; a black window is itself odd to the model.",
        "slow",
    ),
    "scorecam": Method(
        "Score-CAM",
        "Features weighted by the score of the image seen through each. The dimmed images are odd to the model.",
        "slow",
    ),
    "lime": Method(
        "LIME",
        "The patches that make the score, by a simple local model. Changes with patches and random draws.",
        "slow",
    ),
    "shap": Method(
        "SHAP", "Each patch's fair share of the score. Estimated from random draws; patches cut across bones.", "slow"
    ),
}
