"""Trains one recipe: ``python -m training fit training/recipes/resnet18.yaml``.

Everything lands in ``runs/<name>/``: the last checkpoint, TensorBoard and CSV logs, the split, the recipe, and
``initial.json``. The weights after the last epoch are kept: picking the best epoch by a few hundred validation images
would only make those useless for judging. ``export`` makes the model under ``weights/`` out of it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar, Timer, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision import models

from app.model.backbones import ARCHITECTURES
from app.model.network import FractureNetwork, build_network, channels_last
from app.model.ood import Detector
from app.model.weights import load_card, load_network, ranked, shipped
from training import aside, read_json
from training.data.bone_break import CLASSES
from training.data.datamodule import TypedData
from training.data.image import CACHE
from training.data.lessons import ManySources
from training.fitting.many_sources import LessonTask, even_odds
from training.fitting.task import KEPT, FractureTypes, Teacher, keep, load_kept
from training.machines import process
from training.recipe import Distil, Precision, Recipe, recipe_of

log = logging.getLogger(__name__)
# Lightning tells of its own products, and of each thing twice where anybody else logs.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
# A run's recipe and split lie there before its first checkpoint does.
warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")


Taught = tuple[np.ndarray, np.ndarray]
"""Which images teach types, and what: arguments of ``TypedData.teach``."""


@dataclass(frozen=True)
class Initial:
    """Where a backbone's first weights came from.

    Attributes:
        source: file name, torchvision's name for the weights, or "random".
        sha256: of the local file; empty otherwise.
        loaded: number of tensors taken over.
        fresh: the backbone's parameters that were left random.
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


def _alike(architecture: str, weights: Path) -> str | None:
    """The best model under a folder with the same backbone, if there is one."""
    return next((name for name in ranked(weights) if load_card(name, weights).architecture == architecture), None)


def packaged(package: str) -> Path | None:
    """The file of initial layers in a package of the package index; None where that is not installed."""
    found = find_spec(package.replace("-", "_")) if package else None
    return next(Path(found.origin).parent.glob("models/*.pth"), None) if found and found.origin else None


def load_initial(network: FractureNetwork, architecture: str, file: Path | None, beside: Path | None = None) -> Initial:
    """Fills the backbone with pretrained weights as far as they go.

    Args:
        architecture: a key of ``ARCHITECTURES``, for its package or torchvision's download.
        file: safetensors with torchvision's names, possibly for the first stages only.
        beside: folder of models to go on from where nothing can be downloaded; none where the images they learnt from
            may be those that judge.

    Raises:
        FileNotFoundError: ``file`` is given and not there.
        ValueError: ``file`` holds none of the backbone's tensors, or one of another shape.
    """
    if file is not None:
        if not file.is_file():
            raise FileNotFoundError(f"no initial layers at {file}")
        return _fill(network, load_file(file), file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    if layers := packaged(ARCHITECTURES[architecture].package):
        state = torch.load(layers, map_location="cpu", weights_only=True)
        return _fill(network, state, layers.name, hashlib.sha256(layers.read_bytes()).hexdigest())
    published = ARCHITECTURES[architecture].published
    reason = f"{architecture} has none published"
    if published:
        try:
            state = models.get_weight(published).get_state_dict(progress=False, check_hash=True)
            return _fill(network, state, published, "")
        except (URLError, OSError, RuntimeError) as error:
            reason = f"{published} could not be downloaded ({error})"
    if beside is not None and (name := _alike(architecture, beside)):
        log.info("%s; going on from the backbone of %s instead", reason, name)
        theirs, card = load_network(name, beside)
        return _fill(network, theirs.body.state_dict(), f"the backbone of {name}", card.weights.sha256)
    if (ARCHITECTURES[architecture].layers_of or architecture) == "resnet18" and (
        found := Detector.load(shipped("weights"))
    ):
        log.info("%s; going on from the ImageNet layers that the repository holds instead", reason)
        return _fill(network, found.extractor.state_dict(), f"ImageNet layers of {found.card.file}", found.card.sha256)
    log.warning(
        "NO PRETRAINED LAYERS: %s. Training starts from RANDOM weights and will be far worse; give a local file with "
        "--init.",
        reason,
    )
    return Initial("random", "", 0, tuple(name for name, _ in network.body.named_parameters()))


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


def faster_precision(recipe: Recipe) -> Literal["32-true", "bf16-mixed"]:
    """bf16 or float32, whichever trains this network faster here: both are timed for two steps on random pixels."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    seconds: dict[Literal["32-true", "bf16-mixed"], float] = {}
    for precision in ("32-true", "bf16-mixed"):
        network = channels_last(network_of(recipe))
        pixels = torch.randn(8, 3, recipe.size, recipe.size).contiguous(memory_format=torch.channels_last)
        for step in range(3):
            if step == 1:
                start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = network(pixels).logits.logsumexp(1).mean()
            loss.backward()
        seconds[precision] = time.perf_counter() - start
    log.info("seconds for two steps: %s", seconds)
    return min(seconds, key=lambda precision: seconds[precision])


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe's network tells apart, in the order of its outputs."""
    return recipe.own.classes if recipe.own else tuple(CLASSES)


def network_of(recipe: Recipe) -> FractureNetwork:
    """The network a recipe trains, before anything is loaded into it."""
    return build_network(
        recipe.architecture,
        len(class_names(recipe)),
        stride=recipe.stride,
        dropout=recipe.dropout,
        head=recipe.head,
        places=recipe.places is not None,
    )


def begin(recipe: Recipe, run: Path, resume: bool, teacher: Path | None) -> tuple[Initial | None, Path]:
    """What a run that goes on started from, none for a new one, and where its checkpoint lies.

    Raises:
        ValueError: no teacher is named, or what is to go on is another recipe's run.
    """
    if recipe.distil and teacher is None:
        raise ValueError(f"the recipe learns from {recipe.distil.teacher}; name its run")
    last = run / "last.ckpt"
    if not (resume and last.is_file()):
        return None, last
    # More epochs are what a run may be resumed for.
    refuse_another(run, recipe, "tune_epochs")
    return Initial(**read_json(run / "initial.json")), last


def build(
    recipe: Recipe,
    films: TypedData,
    initial: Initial | None,
    init: Path | None,
    teacher: Path | None = None,
    kind: Callable[..., FractureTypes] = FractureTypes,
) -> tuple[Any, Initial]:
    """A task of some kind with a recipe's network, filled with initial layers unless those are known already."""
    network = network_of(recipe)
    if initial is None:
        beside = shipped("weights") if recipe.own else None
        initial = load_initial(network, recipe.architecture, local_layers(init, recipe.architecture), beside)
    network = channels_last(network)
    its = None
    if recipe.distil and teacher:
        its = _teacher(recipe, recipe.distil, teacher, network.body, films.split_table())
    return kind(recipe, network, initial.fresh, films.class_counts(), its), initial


def _teacher(recipe: Recipe, how: Distil, run: Path, student: nn.Module, split_table: str) -> Teacher:
    theirs = recipe_of(run)
    if (run / "split.csv").read_text(encoding="utf-8") != split_table:
        raise ValueError(f"the teacher in {run} was trained on other images, some of which would judge the student")
    network = load_kept(network_of(theirs), run)
    known, learned = (ARCHITECTURES[each.architecture].stages for each in (theirs, recipe))
    return Teacher(channels_last(network), how, known, student, learned)


def fit(
    recipe: Recipe,
    data: Path,
    run: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    precision: Precision = "auto",
    cache: Path = CACHE,
    progress: bool = True,
    teacher: Path | None = None,
    taught: Taught | None = None,
) -> Path:
    """Trains for the recipe's epochs, or until time is up; started by torchrun, one of its processes.

    Args:
        data: folder with the sets.
        run: folder for everything that is written, by the first process.
        init: initial layers, or a folder of them.
        resume: go on from the run's last checkpoint, if there is one.
        minutes: of training, after which a recipe of many sources ends with its schedule; none for none.
        precision: "auto" takes what trains faster.
        cache: where decoded images are kept.
        progress: whether to draw a bar, unless the recipe is of many sources.
        teacher: run to learn from, for recipes that do; it kept its weights and was split alike.
        taught: what teaches types; none for the split's and their labels.

    Returns:
        The checkpoint after the last epoch.

    Raises:
        FileNotFoundError: images, initial layers or the teacher are not there.
        ValueError: no teacher is named, or one that was split otherwise, what is to go on is another recipe's run, the
            recipe is a linear probe, or it cannot end by time.
    """
    if recipe.frozen:
        raise ValueError("a linear probe trains no network to keep; cross-validate the recipe instead")
    here = process()
    if minutes and (not recipe.many or here.count > 1):
        raise ValueError("only a recipe of many sources, trained by one process, can end by the clock")
    known, last = begin(recipe, run, resume, teacher)
    # A logger that reopens its folder wipes it, so each attempt at a run logs into one of its own.
    attempt = 1 + len(list(run.glob("logs/csv-*")))
    # Every attempt, and every process, changes images otherwise: one that goes on would else see the first's again.
    lightning.seed_everything(recipe.seed + attempt - 1 + 1000 * here.rank, workers=True, verbose=False)
    lessons = ManySources(recipe, data, cache) if recipe.many else None
    films = lessons.typed if lessons else TypedData(recipe, data, cache)
    if taught:
        films.teach(*taught)
    kind = partial(LessonTask, limit=minutes and minutes * 60.0) if lessons else FractureTypes
    task, initial = build(recipe, films, known, init, teacher, kind)
    if lessons and known is None:
        even_odds(task.network, recipe)
    if here.rank == 0:
        keep_start(run, recipe, films, initial, lessons)
    if precision == "auto":
        precision = "32-true" if here.count > 1 and not torch.cuda.is_available() else faster_precision(recipe)
    timer = Timer(duration=None)
    watching: list[Callback] = [timer, *([RichProgressBar()] if progress and not lessons else [])]
    trainer = _trainer(recipe, run, attempt, precision, watching)
    how: dict[str, Any] = {"datamodule": lessons or films}
    trainer.fit(task, ckpt_path=last if known else None, weights_only=False, **how)
    if trainer.is_global_zero:
        keep(task.network, run)
        keep_effort(run, trainer.current_epoch, task.spent if lessons else timer.time_elapsed("train"), precision)
    if lessons:
        trainer.validate(task, verbose=False, **how)
    return last


JUDGED_EVERY = timedelta(minutes=30)
"""How often a moving average is judged on the validation images, to follow training by; nothing is chosen by it."""


def _trainer(
    recipe: Recipe, run: Path, attempt: int, precision: Literal["32-true", "bf16-mixed"], watching: list[Callback]
) -> lightning.Trainer:
    """What runs a recipe's epochs on this process's share of the machines."""
    here = process()
    how: dict[str, Any] = {"devices": 1}
    if here.count > 1:
        # Layers that do not learn in the first phase get no gradients.
        strategy = "ddp_find_unused_parameters_true"
        how = {"devices": here.beside, "num_nodes": here.count // here.beside, "strategy": strategy}
    loggers: list[Logger] = [CSVLogger(run, "logs", f"csv-{attempt}")]
    newest = ModelCheckpoint(run, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    if recipe.many:
        on = "cuda" if torch.cuda.is_available() else "cpu"
        watching = [*watching, WeightAveraging(on, multi_avg_fn=get_ema_multi_avg_fn(recipe.many.averaging))]
        how |= {"num_sanity_val_steps": 0, "check_val_every_n_epoch": None, "val_check_interval": JUDGED_EVERY}
    else:
        loggers = [TensorBoardLogger(run, "logs", "tensorboard"), *loggers]
    return lightning.Trainer(
        max_epochs=recipe.head_epochs + recipe.tune_epochs,
        precision=precision,
        accelerator="auto",
        benchmark=True,
        callbacks=[newest, *watching],
        logger=loggers,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        enable_progress_bar=any(isinstance(each, RichProgressBar) for each in watching),
        enable_model_summary=False,
        **how,
    )


def keep_start(
    run: Path, recipe: Recipe, films: TypedData, initial: Initial, lessons: ManySources | None = None
) -> None:
    """Writes what a run starts from; that it has ended is no longer said."""
    run.mkdir(parents=True, exist_ok=True)
    for finished in ("effort.json", KEPT):
        (run / finished).unlink(missing_ok=True)
    (run / "initial.json").write_text(json.dumps(vars(initial)))
    (run / "recipe.json").write_text(recipe.model_dump_json(indent=2), encoding="utf-8")
    (run / "split.csv").write_text(films.split_table(), encoding="utf-8")
    if lessons:
        (run / "sources.json").write_text(json.dumps(lessons.boxed.as_card(), indent=1))


def processor() -> str:
    """The processor, by the threads that torch takes of it."""
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"


def keep_effort(run: Path, epochs: int, seconds: float, precision: str) -> None:
    """Writes what a run cost; that the file is there says that the run has ended."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    effort = {"epochs": epochs, "minutes": round(seconds / 60, 1), "precision": precision, "device": device}
    (run / "effort.json").write_text(json.dumps(effort, indent=2))


def refuse_another(run: Path, recipe: Recipe, *free: str) -> None:
    """Raises ValueError where a folder holds a run of another recipe; the fields ``free`` may differ."""
    same = {name: getattr(recipe, name) for name in free}
    if (run / "recipe.json").is_file() and recipe_of(run).model_copy(update=same) != recipe:
        raise ValueError(f"{run} holds a run of another recipe; delete it or name another folder")


def save_whole(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays so that a file that is there is never a torn one."""
    with aside(path) as partial:
        np.savez(partial, **arrays)  # ty: ignore[invalid-argument-type]


def curve(run: Path) -> list[dict[str, float]]:
    """What a run logged, one row an epoch: "epoch" and whatever losses there are; later attempts overwrite earlier."""
    rows: dict[int, dict[str, float]] = {}
    for log in sorted(run.glob("logs/csv-*/metrics.csv"), key=lambda path: int(path.parent.name.split("-")[1])):
        with log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                losses = {key: round(float(value), 4) for key, value in row.items() if key.endswith("loss") and value}
                if losses:
                    rows.setdefault(int(row["epoch"]), {}).update(losses)
    return [{"epoch": epoch, **rows[epoch]} for epoch in sorted(rows)]


def read_groups(run: Path) -> np.ndarray:
    """The groups of near-duplicates that a run's split kept together, int (images of the set,)."""
    with (run / "split.csv").open(newline="", encoding="utf-8") as file:
        return np.array([int(row["group"]) for row in csv.DictReader(file)])


def load_task(
    run: Path, data: Path, cache: Path = CACHE, taught: Taught | None = None
) -> tuple[FractureTypes, TypedData, Initial]:
    """The trained network of a run with its images, ready to predict; ``taught`` as it was trained by.

    Raises:
        FileNotFoundError: the run has no finished training.
        ValueError: the images would be split otherwise than when the run was trained.
    """
    effort = run / "effort.json"
    if not effort.is_file():
        raise FileNotFoundError(f"{run} holds no finished training; run `python -m training fit` first")
    recipe = recipe_of(run)
    initial = Initial(**read_json(run / "initial.json"))
    films = TypedData(recipe, data, cache)
    if taught:
        films.teach(*taught)
    if films.split_table() != (run / "split.csv").read_text(encoding="utf-8"):
        raise ValueError(
            f"the split of {run} is not the one these images are dealt into now, so images it was trained on could be "
            "judged as validation; train again"
        )
    task, _ = build(recipe, films, initial, None)
    load_kept(task.network, run)
    return task.eval(), films, initial
