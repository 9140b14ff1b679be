"""A recipe says everything that decides how a model comes out; it travels in the model's card.

A YAML file is a list of overrides: ``extends: other.yaml`` takes the fields of the file named, relative to its own
folder or else to ``training/recipes``, and replaces those it has itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.imaging.imagenet import MEAN, STD

Precision = Literal["auto", "32-true", "bf16-mixed"]
Protocol = Literal["official", "random", "overlapping", "twins"]
Duplicates = Literal["lenient", "strict", "exact"]
RECIPES = Path(__file__).with_name("recipes")
REPLICATIONS = RECIPES / "replications"


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OwnData(_Fields):
    """Images of one's own, which the network learns instead of fracture types."""

    root: Path = Field(description="folder of class folders, or CSV file; relative to the recipe's own folder")
    classes: tuple[str, ...] = Field(min_length=2, max_length=100, description="in the order of the outputs")
    title: str = Field(min_length=1, description="of the set and the page, as in 'Skin lesions'")
    image: str = Field("image", min_length=1, description="what the page calls one, as in 'photo' or 'X-ray'")
    finding: str = Field("", description="what the classes are types of, as in 'tumour'; empty for none")
    duplicates: Duplicates = Field("lenient", description="what counts as a near-duplicate; exact: the same pixels")
    licence: str = Field("unknown", description="of the images, for the model's card")
    limits: tuple[str, ...] = Field((), description="sentences for the card: what nobody should expect of the model")
    intended_use: str = Field("For study. Not checked for any other use.", min_length=1)


class Augment(_Fields):
    """Ranges of random change, each drawn evenly and anew for every image of a batch."""

    rotation: float = Field(20.0, ge=0, le=180, description="degrees to either side")
    zoom: float = Field(0.2, ge=0, lt=1, description="relative change of scale to either side")
    shift: float = Field(0.08, ge=0, lt=1, description="share of the side, in both directions")
    shear: float = Field(8.0, ge=0, lt=90, description="degrees to either side")
    flip: bool = Field(True, description="mirror left and right, half of the time")
    brightness: float = Field(0.15, ge=0, le=1, description="added, in units of full brightness")
    contrast: float = Field(0.25, ge=0, lt=1, description="relative change of the spread around the image's mean")


class Places(_Fields):
    """Learning where fractures lie, from boxed images, beside the types."""

    batch_size: int = Field(32, ge=2, description="boxed images beside each batch of typed ones")
    fractured: float = Field(0.5, gt=0, lt=1, description="share of fractured images among the boxed ones drawn")
    weight: float = Field(1.0, gt=0, description="of the fracture map's loss beside the types'")
    where: float = Field(
        0.0, ge=0, description="weight of the cross-entropy over the cells that an image's boxes cover"
    )
    positive_weight: float = Field(4.0, gt=0, description="of a cell inside a box beside one outside")
    target: Literal["touch", "share"] = Field(
        "touch", description="of a cell: whether a box touches it, or how much of it compared with its best neighbour"
    )


class Signature(_Fields):
    """Probability, an image, of each change that takes away what tells its source; 0 turns a change off."""

    gamma: float = Field(0.6, ge=0, le=1, description="brightness to a power between 0.55 and 1.8")
    sharpness: float = Field(0.5, ge=0, le=1, description="from blurred to over-sharpened")
    resolution: float = Field(0.3, ge=0, le=1, description="scaled down by up to 2.5 and up again")
    noise: float = Field(0.4, ge=0, le=1, description="of a standard deviation up to 0.05")
    jpeg: float = Field(0.3, ge=0, le=1, description="compressed at a quality between 15 and 80")
    border: float = Field(0.2, ge=0, le=1, description="a frame, grey to white, up to 6 % of the side")
    letters: float = Field(0.3, ge=0, le=1, description="burnt-in letters outside the boxes")
    collimation: float = Field(0.2, ge=0, le=1, description="edges blackened, boxes spared")


class Many(_Fields):
    """Learning presence and place from many sources, instead of FracAtlas alone."""

    draws: dict[str, float] = Field(min_length=1, description="share of each source among the images drawn")
    without: str = Field("", description="a source left out, with every image that shares a group with one of its")
    steps: int = Field(ge=1, description="batches an epoch; the images are drawn with replacement")
    rates: dict[str, float] = Field(
        default_factory=dict, description="learning rate by prefix of the backbone's names, as a multiple of body_rate"
    )
    averaging: float = Field(0.99, gt=0, lt=1, description="decay of the moving average of the weights, which ships")
    signature: Signature = Signature()


class Distil(_Fields):
    """Knowledge distillation: learning from the run of a teacher, beside the labels."""

    teacher: str = Field(description="name of its recipe; its runs lie beside this one's")
    weight: float = Field(0.5, gt=0, description="of the teacher's loss beside the labels'")
    temperature: float = Field(2.0, gt=0)
    hint: float = Field(0.0, ge=0, description="weight of feature distillation; 0 for none")


class Frozen(_Fields):
    """Linear probe: logistic regression on pooled features of pretrained layers, none of which learn."""

    stages: tuple[str, ...] = Field(min_length=1, description="of the backbone, whose mean and spread over cells count")
    decay: float = Field(0.01, gt=0, description="weight of the squared coefficients in the loss")


class Recipe(_Fields):
    """How one model is trained; the fields of a YAML file in ``training/recipes``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="folder under weights/")
    architecture: str
    own: OwnData | None = Field(
        None, exclude_if=lambda own: own is None, description="none: the public sets of fractures are learnt"
    )
    size: int = Field(224, ge=32, le=1024, description="side of the letterboxed square in pixels")
    stride: int = Field(32, description="pixels per cell of the class maps, as its backbone has them")
    head: Literal["mean", "attended"] = "mean"
    places: Places | None = Field(None, description="none: the network learns types only")
    many: Many | None = Field(
        None, exclude_if=lambda many: many is None, description="none: places come from FracAtlas alone"
    )
    distil: Distil | None = Field(None, description="none: the network learns from labels only")
    frozen: Frozen | None = Field(None, description="none: the network learns; else it is a linear probe")
    dropout: float = Field(0.3, ge=0, lt=1)
    equalise: bool = Field(False, description="equalise each image's contrast, in training and ever after")
    colour: bool = Field(
        False, exclude_if=lambda colour: not colour, description="see images in colour, in training and ever after"
    )
    clean: bool = Field(
        False, description="leave out training images whose near-duplicates or case carry another label"
    )
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    initial_licence: str = Field("BSD-3-Clause (torchvision)", description="of the layers training starts from")

    seed: int = 0
    folds: int = Field(5, ge=2, description="validation is one fold of this many, the same for every seed")
    fold: int | None = Field(None, description="which fold validates; none: all training images train")
    whole: bool = Field(False, description="deal the test images out with the others: to cross-validate, never to ship")

    early_size: int | None = Field(None, ge=32, description="side of the square in the first early_epochs epochs")
    early_epochs: int = Field(0, ge=0, description="progressive learning (Tan and Le, 2021, EfficientNetV2)")
    batch_size: int = Field(32, ge=2)
    head_epochs: int = Field(2, ge=0, description="phase 1: only layers without pretrained weights learn")
    tune_epochs: int = Field(24, ge=0, description="phase 2: the layers named in tune learn as well")
    tune: tuple[str, ...] = Field(description="prefixes of the backbone's parameter names")
    head_rate: float = Field(1e-3, gt=0, description="learning rate of layers without pretrained weights")
    body_rate: float = Field(1e-4, gt=0, description="learning rate of pretrained layers")
    weight_decay: float = Field(0.05, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    class_weighted: bool = True
    augment: Augment = Augment()

    def model_post_init(self, _context: object) -> None:
        # Here, since it brings torch, which a file with a slip of the pen can be refused without.
        from app.model.backbones import ARCHITECTURES

        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.architecture!r}; known are {', '.join(ARCHITECTURES)}")
        if (self.early_size is None) != (self.early_epochs == 0):
            raise ValueError("early_size and early_epochs go together")
        if self.many and not self.places:
            raise ValueError("many sources teach presence and place, so the recipe needs places")
        if self.own and (self.places or self.many):
            raise ValueError("own images teach classes alone: places and many sources are of the public sets")
        if self.colour and self.equalise:
            raise ValueError("contrast is equalised in grey: choose either colour or equalise")
        if self.frozen and (self.places or self.distil):
            raise ValueError("a linear probe learns from labels alone: neither places nor a teacher is of use")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds}")


def fold_of(recipe: Recipe, fold: int) -> Recipe:
    """What one fold trains; of many sources, each fold does without one of them beside its share of the typed images.

    So each training answers two questions: which types it names on typed images it never saw, and what it finds on a
    source it never saw.

    Raises:
        ValueError: there are fewer folds than sources, or no such fold.
    """
    chosen = recipe.model_copy(update={"fold": fold})
    if recipe.many is None or fold >= len(recipe.many.draws):
        return chosen
    left_out = tuple(recipe.many.draws)[fold]
    draws = {source: share for source, share in recipe.many.draws.items() if source != left_out}
    return chosen.model_copy(update={"many": recipe.many.model_copy(update={"draws": draws, "without": left_out})})


def fold_without(recipe: Recipe, source: str) -> int:
    """The fold that does without a source.

    Raises:
        ValueError: the recipe has no such source, or too few folds to leave it out.
    """
    sources = tuple(recipe.many.draws) if recipe.many else ()
    if source not in sources or len(sources) < 2 or sources.index(source) >= recipe.folds:
        raise ValueError(f"{recipe.name} cannot leave out {source}: no fold of it does without that source")
    return sources.index(source)


class Switch(_Fields):
    """One change of the base recipe: what it is in words, and the fields it replaces."""

    says: str
    changes: dict[str, Any]


class Ablation(_Fields):
    """A base recipe, what all are judged on, and the switches by name."""

    base: Recipe
    folds: tuple[int, ...] = Field((), description="whose typed images judge")
    left_out: str = Field(
        "", exclude_if=lambda source: not source, description="a source of many that judges instead, and does not teach"
    )
    switches: dict[str, Switch]

    def model_post_init(self, _context: object) -> None:
        if bool(self.folds) == bool(self.left_out):
            raise ValueError("either folds or left_out says what judges")
        if self.left_out:
            fold_without(self.base, self.left_out)

    def recipe(self, name: str) -> Recipe:
        """The base with one switch thrown; the base itself where the name is "base"."""
        changes = {} if name == "base" else self.switches[name].changes
        return Recipe.model_validate({**self.base.model_dump(), **changes})


class ShortRecipe(_Fields):
    """How a network is trained for a comparison, not to be shipped."""

    network: str
    size: int = Field(ge=32, le=512)
    epochs: int = Field(ge=1, description="passes over the training images when run here")
    batch_size: int = Field(32, ge=2)
    rate: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weighted: bool = False
    dropout: float = Field(0.0, ge=0, lt=1, description="before the last layer; of whole blocks in ConvNeXt")
    mixup: float = Field(0.0, ge=0, description="parameter of the beta distribution; 0 for none")
    focal: float = Field(0.0, ge=0, description="exponent of the focal loss; 0 for cross-entropy")
    flip_judging: bool = Field(False, description="test-time augmentation: average with the mirrored image")
    initial: str = Field("", description="start of the name of the file with initial layers; from scratch where empty")
    augment: Augment = Augment()
    seed: int = 0


class ReplicationRecipe(ShortRecipe):
    """The fields of a YAML file in ``training/recipes/replications``."""

    title: str = Field(description="the row's name in the table")
    claim: str = Field(description="whose claim it is and how it was made, in a sentence")
    claimed: float | None = Field(ge=0, le=1, description="published accuracy; none where no figure was published")
    data: str
    protocol: Protocol
    judged: float = Field(0.2, gt=0, lt=1, description="share of the images that judge, where the split is our draw")


Checked = TypeVar("Checked", bound=BaseModel)


def _resolved(fields: Any, file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Fields over those of the file they extend, if they name one."""
    if not isinstance(fields, dict):
        raise ValueError(f"{file} holds no fields.")
    if "extends" not in fields:
        return fields
    chain = (*above, file.resolve())
    base = file.parent / str(fields["extends"])
    if not base.is_file():
        base = RECIPES / str(fields["extends"])
    if base.resolve() in chain:
        raise ValueError(f"{file} extends {base}, which extends it again.")
    if not base.is_file():
        raise FileNotFoundError(f"There is no {fields['extends']}, which {file} extends.")
    own = {name: value for name, value in fields.items() if name != "extends"}
    return {**_resolved(_parsed(base), base, chain), **own}


def _parsed(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe {path}.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError(f"{path} is not YAML.") from None


def _checked(kind: type[Checked], fields: dict[str, Any], path: Path) -> Checked:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = {
            "extra_forbidden": f"there is no field '{field}'",
            "missing": f"the field '{field}' is missing",
            "value_error": first["msg"].removeprefix("Value error, "),
        }.get(first["type"], f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}")
        raise ValueError(f"{path}: {problem}.") from None


def load_recipe(path: Path, **changes: object) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: a YAML file with the fields of ``Recipe``, or some of them and ``extends``.
        changes: fields that replace the file's; those that are None do not.

    Raises:
        FileNotFoundError: no such file, or none that it extends.
        ValueError: an unknown, missing or impossible field, or files that extend each other.
    """
    fields = _resolved(_parsed(path), path)
    if isinstance(own := fields.get("own"), dict) and isinstance(own.get("root"), str):
        # Absolute, so that a run may go on from elsewhere.
        fields = {**fields, "own": {**own, "root": str((path.parent / own["root"]).resolve())}}
    return _checked(Recipe, {**fields, **{k: v for k, v in changes.items() if v is not None}}, path)


def recipe_of(run: Path) -> Recipe:
    """The recipe that a run was started with."""
    return Recipe.model_validate_json((run / "recipe.json").read_text(encoding="utf-8"))


def load_ablation(path: Path) -> Ablation:
    """Reads and checks a plan of switches; raises as ``load_recipe``, for every switch too."""
    fields = _parsed(path)
    if not isinstance(fields, dict) or "base" not in fields:
        raise ValueError(f"{path} names no base.")
    plan = _checked(Ablation, {**fields, "base": _resolved(fields["base"], path)}, path)
    for switch in plan.switches.values():
        _checked(Recipe, {**plan.base.model_dump(), **switch.changes}, path)
    return plan


def load_short(path: Path) -> ShortRecipe:
    """Reads and checks the recipe of a short training; raises as ``load_recipe``."""
    return _checked(ShortRecipe, _resolved(_parsed(path), path), path)


def load_replications(folder: Path = REPLICATIONS) -> dict[str, ReplicationRecipe]:
    """Every replication's recipe by the name of its file, sorted."""
    return {
        path.stem: _checked(ReplicationRecipe, _resolved(_parsed(path), path), path)
        for path in sorted(folder.glob("*.yaml"))
    }
