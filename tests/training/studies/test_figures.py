"""Seeds, ablation, localisation and the report: figures that come from runs, on drawn films."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from app.errors import RejectedError
from app.explain import measured as verified
from app.explain.faithfulness import HEAD, REST
from app.explain.methods import DEFAULT, METHODS
from app.imaging.letterbox import letterbox
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier
from app.model.weights import load_card
from app.ui.trial import bench
from benchmarks.record import keep
from tests.training.evaluation.test_places import JOINT
from training.data.datamodule import BoneBreakData
from training.evaluation.classification import evaluate
from training.evaluation.faithfulness import faithfulness
from training.evaluation.localisation import ASKED, BASELINES, localise
from training.evaluation.metrics import area
from training.evaluation.ood import checked_by, refusal, tampered
from training.evaluation.presence import operating_points, presence
from training.fitting.cross_validation import cross_validate, read_folds, record
from training.fitting.seeds import seeds
from training.release.export import export, write_card
from training.release.model_card import model_card
from training.studies.ablation import Ablation, Switch, ablate, load_ablation
from training.studies.ensembles import averaged, ensemble
from training.studies.gallery import MOST, gallery, mean_heat
from training.studies.report import report
from training.studies.tables import percent, with_interval

PLANS = sorted(Path("training/recipes/ablation").glob("*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_are_valid_and_every_switch_changes_something(path: Path) -> None:
    plan = load_ablation(path)
    recipes = [plan.recipe(name) for name in ("base", *plan.switches)]
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)
    assert all(recipe.fold is None and not recipe.whole for recipe in recipes)


def test_a_switch_that_changes_nothing_real_is_refused(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    fields = "{name: x, architecture: resnet18, tune: [layer4]}"
    plan.write_text(f"base: {fields}\nfolds: [0]\nswitches: {{a: {{says: a, changes: {{speed: 9}}}}}}\n")
    with pytest.raises(ValidationError, match="speed"):
        load_ablation(plan)


def test_switches_are_paired_by_film_and_not_repeated(drawn_atlas: Path, tmp_path: Path, cache: Path) -> None:
    plan = Ablation(
        base=JOINT,
        folds=(0,),
        switches={"alone": Switch(says="types alone", changes={"head": "mean", "places": None})},
    )
    options = {"precision": "32-true", "results": tmp_path / "ablation.json", "cache": cache}
    rows = ablate(plan, drawn_atlas, tmp_path / "runs", None, **options)
    assert list(rows) == ["base", "ten-views", "alone"]
    views = rows["ten-views"]
    assert views["accuracy"]["value"] == rows["base"]["views_averaged"]
    assert "presence_auroc" not in views
    assert views["difference"]["value"] == pytest.approx(views["accuracy"]["value"] - rows["base"]["accuracy"]["value"])
    assert rows["base"]["difference"]["value"] == 0.0
    difference = rows["alone"]["accuracy"]["value"] - rows["base"]["accuracy"]["value"]
    assert rows["alone"]["difference"]["value"] == pytest.approx(difference)
    assert "presence_auroc" in rows["base"]
    assert "presence_auroc" not in rows["alone"]
    judged = (tmp_path / "runs" / "alone" / "fold0" / "judged.npz").stat().st_mtime_ns
    with pytest.raises(ValueError, match="another base"):
        ablate(plan.model_copy(update={"folds": (1,)}), drawn_atlas, tmp_path / "runs", None, **options)
    assert rows["alone"]["difference"]["groups"] == rows["base"]["accuracy"]["groups"]
    again = ablate(plan, drawn_atlas, tmp_path / "runs", None, names=("alone",), **options)
    assert again == rows
    assert (tmp_path / "runs" / "alone" / "fold0" / "judged.npz").stat().st_mtime_ns == judged


@pytest.fixture(scope="module")
def repository(drawn_atlas: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """What a repository holds after a model was trained on drawn films: its weights and all of its figures."""
    root = tmp_path_factory.mktemp("repository")
    weights = root / "weights"
    recipe = JOINT.model_copy(update={"name": "resnet18"})
    options = {"precision": "32-true", "cache": cache}
    results, folds, trained = root / "training/results", root / "folds/resnet18", root / "seeds/resnet18"
    for chosen, where in ((recipe, folds), (recipe.model_copy(update={"whole": True}), root / "whole/resnet18")):
        cross_validate(chosen, drawn_atlas, where, **options)
        record(read_folds(where, chosen), chosen, where, results)
    seeds(recipe, range(2), drawn_atlas, trained, results=results / "seeds", **options)
    export(trained / "seed0", folds, drawn_atlas, weights, cache)
    evaluate("resnet18", drawn_atlas, weights, cache)
    localise("resnet18", drawn_atlas, weights)
    presence("resnet18", drawn_atlas, weights, cache)
    faithfulness("resnet18", drawn_atlas, weights, films=1, runs=root / "faithfulness")
    ensemble([recipe, recipe], root / "folds", root / "seeds", results / "ensembles.json")
    return root


def test_members_who_agree_say_together_what_they_say_alone(repository: Path) -> None:
    row = json.loads((repository / "training/results/ensembles.json").read_text())["resnet18 + resnet18"]
    card = json.loads((repository / "weights/resnet18/card.json").read_text())
    folds = card["metrics"]["cross_validation"]
    assert row["cross_validation"]["types"]["films"] == folds["films"]
    assert set(row["test"]) == {"0", "1"}
    right = np.array([[3.0, 0.0], [0.0, 1.0]])
    wrong = np.array([[0.0, 9.0], [0.0, 1.0]])
    assert averaged([np.stack([right, right])], [1.0]).argmax(axis=1).tolist() == [0, 1]
    assert averaged([np.stack([right, wrong])], [1.0]).argmax(axis=1).tolist() == [1, 1]
    cooled = averaged([np.stack([right, right]), np.stack([wrong, wrong])], [1.0, 100.0])
    assert cooled.argmax(axis=1).tolist() == [0, 1]
    np.testing.assert_allclose(np.exp(cooled).sum(axis=1), 1.0)


def test_members_judged_on_other_films_are_refused(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "folds" / "resnet18", tmp_path / "resnet18")
    shutil.copytree(repository / "folds" / "resnet18", tmp_path / "other")
    recipe = JOINT.model_copy(update={"name": "resnet18"})
    for path in (tmp_path / "other").glob("fold*/recipe.json"):
        path.write_text(path.read_text().replace('"resnet18"', '"other"'))
    path = tmp_path / "other" / "fold0" / "judged.npz"
    judged = dict(np.load(path))
    together = [recipe, recipe.model_copy(update={"name": "other"})]
    np.savez(path, **{**judged, "films": np.arange(len(judged["films"]))})
    with pytest.raises(ValueError, match="judged the same films"):
        ensemble(together, tmp_path, tmp_path, tmp_path / "rows.json")
    every = read_folds(repository / "folds/resnet18", recipe).films
    stranger = next(index for index in range(len(every) + 1) if index not in every)
    np.savez(path, **{**judged, "films": np.array([stranger, *judged["films"][1:]])})
    with pytest.raises(ValueError, match="different films"):
        ensemble(together, tmp_path, tmp_path, tmp_path / "rows.json")


def test_seeds_are_judged_on_the_test_films(repository: Path, drawn_atlas: Path, cache: Path) -> None:
    found = json.loads((repository / "training/results/seeds/resnet18.json").read_text())
    films = BoneBreakData(JOINT, drawn_atlas, cache)
    shares = []
    for number in ("0", "1"):
        with np.load(repository / "seeds" / "resnet18" / f"seed{number}" / "test.npz") as judged:
            assert np.array_equal(judged["films"], films.split.test)
            shares.append(float((judged["logits"].argmax(axis=1) == films.labels[films.split.test]).mean()))
        assert found["seeds"][number]["accuracy"]["value"] == pytest.approx(shares[-1])
    assert found["mean"] == pytest.approx(np.mean(shares))
    assert found["spread"] == pytest.approx(np.std(shares, ddof=1))


def test_the_exported_seed_and_the_judged_one_are_the_same_network(repository: Path) -> None:
    card = json.loads((repository / "weights/resnet18/card.json").read_text())
    found = json.loads((repository / "training/results/seeds/resnet18.json").read_text())
    # Half precision may tip a film or two of a network that has learnt next to nothing.
    assert abs(card["metrics"]["test"]["accuracy"]["value"] - found["seeds"]["0"]["accuracy"]["value"]) <= 0.2
    assert card["training"]["curve"][0].keys() >= {"epoch", "training_loss", "place_loss"}
    assert card["data"]["places"]["set"] == "fracatlas"


def test_methods_are_judged_film_by_film_and_an_interrupted_run_goes_on(
    repository: Path, drawn_atlas: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(repository / "weights", weights)
    options = {"films": 3, "runs": tmp_path / "runs"}
    first = faithfulness("resnet18", drawn_atlas, weights, methods=["gradcam", "eigencam"], **options)
    kept = next((tmp_path / "runs").glob("*.json"))
    known = json.loads(kept.read_text())
    assert len(known) == 3
    rows = [film["eigencam"] for film in known.values()]
    margin = first["methods"]["eigencam"]["margins"]["ROAD"]
    assert margin["value"] == pytest.approx(np.mean([row["margins"]["ROAD"] for row in rows]))
    assert margin["n"] == 3
    lost = next(iter(known))
    seconds = {name: film["gradcam"]["seconds"] for name, film in known.items()}
    kept.write_text(json.dumps({name: film for name, film in known.items() if name != lost}))
    again = faithfulness("resnet18", drawn_atlas, weights, methods=["gradcam", "eigencam", "layercam"], **options)
    judged = json.loads(kept.read_text())
    assert {n for n, film in judged.items() if film["gradcam"]["seconds"] != seconds[n]} == {lost}
    assert set(again["methods"]) == {"gradcam", "eigencam", "layercam"}
    for measure in ("deletion", "insertion", "road", "inside"):
        assert again["methods"]["gradcam"][measure] == first["methods"]["gradcam"][measure]
    assert verified.load("resnet18", weights) == again
    one = faithfulness("resnet18", drawn_atlas, weights, methods=["eigencam"], films=3, runs=tmp_path / "elsewhere")
    assert list(one["methods"]) == ["gradcam", "layercam", "eigencam"]
    assert one["methods"]["layercam"] == again["methods"]["layercam"]
    fewer = faithfulness("resnet18", drawn_atlas, weights, methods=["eigencam"], films=2, runs=tmp_path / "elsewhere")
    assert list(fewer["methods"]) == ["eigencam"]
    assert len(verified.rows(again)) == 3
    with pytest.raises(ValueError, match="unknown methods: guess"):
        faithfulness("resnet18", drawn_atlas, weights, methods=["guess"], **options)


def test_costs_are_told_as_the_benchmarks_kept_them(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "weights", tmp_path / "weights")
    report(tmp_path)
    page = tmp_path / "docs" / "results.md"
    assert "What does it cost?" not in page.read_text()
    folder = tmp_path / "benchmarks" / "results"
    keep("cam", {"gradcam, some network": {"bare forward": 1.0, "ours": 1.04, "package": 3.5}}, folder)
    keep(
        "fuzz",
        {
            "megapixels": 40,
            "bound_mib": 1024.0,
            "largest_files_mib": {"a small one": 70, "a large one": 700},
            "damaged_files": 9,
            "outcomes": {"a film": 4, "a sentence": 5},
            "damaged_files_mib": 99,
        },
        folder,
    )
    report(tmp_path)
    told = page.read_text()
    assert "| gradcam, some network | 1.04 x | 3.50 x |" in told
    assert "Of 9 damaged pictures" in told
    assert "4 gave an image, 5 gave a sentence" in told
    assert "700 MiB (a large one)" in told


def test_a_figure_carries_its_interval_and_its_number_of_images() -> None:
    share = {"value": 0.5892, "low": 0.5089, "high": 0.669, "n": 1168}
    assert with_interval(share) == "58.9 % (95 % CI 50.9 to 66.9, n = 1,168)"
    assert with_interval(share, 2) == "0.59 (95 % CI 0.51 to 0.67, n = 1,168)"
    assert with_interval({**share, "low": -0.01}, 2, signed=True) == "+0.59 (95 % CI -0.01 to +0.67, n = 1,168)"
    assert with_interval(None) == "not measured"
    assert percent(0.2564) == "25.6 %"


def test_a_method_that_stays_when_weights_are_shuffled_is_named() -> None:
    def row(correlation: float, low: float, head: float = 0.5) -> dict:
        share = {"value": 0.1, "low": low, "high": 0.2, "n": 9}
        return {
            "seconds": 0.1,
            "margins": dict.fromkeys(("deletion", "insertion", "ROAD"), share),
            "inside": share,
            "near": share,
            "stability": share,
            "scrambled": {HEAD: {**share, "value": head}, REST: {**share, "value": correlation}},
        }

    methods = {"gradcam": row(0.1, 0.05), "eigencam": row(0.6, -0.1), "fullgrad": row(0.1, 0.05, 0.95)}
    found = {"films": 9, "threads": 1, "methods": methods}
    told = [cells[-2] for cells in verified.rows(found)]
    assert told == [
        "0.10 (0.05 to 0.20, 9 films)",
        "0.60 (-0.10 to 0.20, 9 films), does not depend on the model",
        "0.10 (0.05 to 0.20, 9 films), does not depend on the type asked about",
    ]
    assert all(verified.beats_random(found["methods"]["gradcam"]).values())
    assert "Not measured yet: Grad-CAM++, HiResCAM," in verified.unmeasured(found)
    assert verified.unmeasured({"methods": METHODS}) == ""
    assert not any(verified.beats_random(found["methods"]["eigencam"]).values())
    page = bench("A model", found)
    assert "does not depend on the model" in page
    assert "does not beat random maps" not in page
    assert "does not beat random maps" in bench(
        "A model", {"films": 9, "threads": 1, "methods": {"gradcam": row(0.1, -0.1)}}
    )


def test_localisation_knows_maps_baselines_regions_and_sizes(repository: Path) -> None:
    found = json.loads((repository / "weights/resnet18/localisation.json").read_text())
    assert found["part"] == "validation"
    instant = {how.title for name, how in METHODS.items() if how.cost == "instant" and name != DEFAULT}
    taught = {f"{name}{how}" for name in (ASKED, "fracture map") for how in ("", ", mirror image asked too")}
    assert set(found["maps"]) == {*taught, *BASELINES, *instant}
    for row in found["maps"].values():
        assert row["inside"]["n"] == found["films"] > 0
        assert row["inside"]["value"] <= row["near"]["value"]
        for kind in ("by_region", "by_size"):
            assert sum(its["inside"]["n"] for its in row[kind].values()) == found["films"]


def test_the_report_says_what_was_measured_and_what_was_not(repository: Path) -> None:
    (repository / "README.md").write_text("<!-- report: headline -->\n<!-- end -->\n")
    written = report(repository)
    text = (repository / "docs" / "results.md").read_text()
    card = json.loads((repository / "weights/resnet18/card.json").read_text())
    accuracy = with_interval(card["metrics"]["test"]["accuracy"])
    assert accuracy in text
    assert f"test images | {accuracy} |" in (repository / "README.md").read_text()
    assert "Not a medical device" in text
    assert "No set has been audited" in (repository / "docs" / "data.md").read_text()
    assert "resnet18 + resnet18" in text
    for part in ("folds", "whole"):
        found = json.loads((repository / f"training/results/{part}/resnet18.json").read_text())
        assert found["folds"] == [0, 1]
        row = next(
            line
            for line in text.splitlines()
            if "(`resnet18`)" in line and with_interval(found["types"]["accuracy"]) in line
        )
        assert "| all 2 folds |" in row
    assert (repository / "docs" / "reliability-resnet18.png").is_file()
    first = [path.read_text() for path in written]
    assert (repository / "weights/resnet18/README.md").read_text() == model_card(
        load_card("resnet18", repository / "weights"), repository
    )
    report(repository)
    assert [path.read_text() for path in written] == first


def test_the_model_card_says_what_was_measured_and_what_was_not(repository: Path, tmp_path: Path) -> None:
    card = load_card("resnet18", repository / "weights")
    text = model_card(card, repository)
    front = yaml.safe_load(text.split("---\n")[1])
    accuracy = front["model-index"][0]["results"][0]["metrics"][0]
    assert accuracy == {"type": "accuracy", "value": round(card.metrics["test"]["accuracy"]["value"], 4)}
    assert card.intended_use in text
    for row in card.metrics["cross_validation"]["per_class"]:
        assert f"| {row['name']} | {row['films']} |" in text
    assert "does not notice when a picture is no X-ray" in text
    assert "has not been audited" in text
    untested = card.model_copy(
        update={"metrics": {"cross_validation": card.metrics["cross_validation"]}, "presence": None}
    )
    bare = model_card(untested, tmp_path)
    assert "Not evaluated on test images" in bare
    assert "cannot tell whether a bone is broken" in bare
    assert "model-index" not in bare


def test_failures_are_picked_by_what_was_measured(repository: Path) -> None:
    card = load_card("resnet18", repository / "weights")
    folds = card.metrics["cross_validation"]
    names = [kind.name for kind in card.classes]
    confusion = np.diag([10] * len(names))
    confusion[0, 0], confusion[0, 3] = 1, 9
    rows = [{**row, "recall": float(confusion[i, i] / 10)} for i, row in enumerate(folds["per_class"])]
    spoilt = {**folds, "confusion": confusion.tolist(), "per_class": rows}
    text = model_card(card.model_copy(update={"metrics": {"cross_validation": spoilt}}), repository)
    assert f"out of fold: {names[0]} (10.0 %)." in text
    assert f"90.0 % of {names[0]} called {names[3]}" in text


def test_some_folds_are_enough_for_a_card_that_says_which(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    recipe = JOINT.model_copy(update={"name": "resnet18"})
    shutil.copytree(repository / "folds/resnet18/fold1", tmp_path / "folds/fold1")
    with pytest.raises(FileNotFoundError, match="1 of 2 folds"):
        read_folds(tmp_path / "folds", recipe)
    found = read_folds(tmp_path / "folds", recipe, partial=True)
    assert record(found, recipe, tmp_path / "folds", tmp_path)["folds"] == [1]
    more = repository / "training/results/folds/resnet18.json"
    before = more.read_text()
    assert record(found, recipe, tmp_path / "folds", repository / "training/results")["folds"] == [1]
    assert more.read_text() == before
    card = export(repository / "seeds/resnet18/seed0", tmp_path / "folds", drawn_atlas, tmp_path, cache)
    assert card.metrics["cross_validation"]["folds"] == [1]
    assert (
        card.metrics["cross_validation"]["films"]
        == len(found.labels)
        < len(read_folds(repository / "folds/resnet18", recipe).labels)
    )


def test_the_gallery_shows_films_of_the_fold_and_every_mistake_first(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    fold, weights = repository / "folds/resnet18/fold1", repository / "weights"
    page = gallery("resnet18", fold, drawn_atlas, weights, tmp_path, cache).read_text()
    with np.load(fold / "judged.npz") as judged:
        wrong = int((judged["logits"].argmax(axis=1) != judged["labels"]).sum())
        count = len(judged["labels"])
    assert f"{count} films that this fold" in page
    assert f"of {wrong})" in page
    assert page.count("class='pair'") == min(wrong, MOST)
    assert "keep it to yourself" in page
    with pytest.raises(ValueError, match="not a fold"):
        gallery("resnet18", repository / "seeds/resnet18/seed0", drawn_atlas, weights, tmp_path, cache)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        gallery("resnet18", tmp_path, drawn_atlas, weights, tmp_path, cache)
    with pytest.raises(ValueError, match="no films"):
        mean_heat([])


def test_operating_points_reach_what_they_were_chosen_for() -> None:
    rng = np.random.default_rng(0)
    fractured = rng.random(2000) < 0.3
    scores = rng.normal(size=2000) + 1.5 * fractured
    points = operating_points(scores, fractured)
    assert 0.9 <= (scores[fractured] >= points.sensitive).mean() < 0.91
    assert 0.95 <= (scores[~fractured] < points.specific).mean() < 0.96
    apart = operating_points(np.where(fractured, 5.0, -5.0), fractured)
    assert apart.sensitive == apart.specific
    assert -5.0 < apart.specific < 5.0
    found = area(scores, fractured)
    assert found["low"] < found["value"] < found["high"]
    assert found["high"] - found["low"] < 0.1


def test_presence_is_judged_on_films_that_chose_nothing(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    shutil.copytree(repository / "weights", tmp_path / "weights")
    found = presence("resnet18", drawn_atlas, tmp_path / "weights", cache)
    assert found == json.loads((tmp_path / "weights/resnet18/presence.json").read_text())
    card = load_card("resnet18", tmp_path / "weights")
    assert card.presence.model_dump() == found["points"]
    for part in ("validation", "test"):
        assert sum(its["films"] for its in found[part]["by_region"].values()) == found[part]["films"]
    assert found["validation"]["sensitive"]["sensitivity"]["value"] >= 0.9
    assert card.metrics["presence"]["films"] == found["test"]["films"]
    assert card.metrics["presence"]["elsewhere"]["bone-break"]["sensitive"]["sensitivity"]["n"] == 10
    whole = card.model_copy(update={"data": {**card.data, "places": {**card.data["places"], "sha256": "0" * 64}}})
    write_card(whole, tmp_path / "weights" / "resnet18")
    with pytest.raises(ValueError, match="not those"):
        presence("resnet18", drawn_atlas, tmp_path / "weights", cache)


def test_refusal_is_judged_by_pictures_that_chose_nothing(
    repository: Path, drawn_atlas: Path, tmp_path: Path, cache: Path
) -> None:
    shutil.copytree(repository / "weights", tmp_path / "weights")
    shutil.copytree(drawn_atlas, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="no pictures"):
        refusal("resnet18", tmp_path / "data", tmp_path / "weights", cache)
    (tmp_path / "data/not-xray").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 255, (90, 90), np.uint8)
        cv2.imwrite(str(tmp_path / f"data/not-xray/{number}.png"), noise)
    (tmp_path / "data/not-xray/words.txt").write_text("not a picture")
    found = refusal("resnet18", tmp_path / "data", tmp_path / "weights", cache)
    assert found["others_refused"]["n"] == 3
    assert found["tampered_refused"]["noise"]["value"] == 1.0
    for share in found["real_films_kept"].values():
        assert share["value"] >= 0.95
    loaded = Classifier.load("resnet18", tmp_path / "weights")
    assert loaded.typical is not None
    assert loaded.typical.limit == pytest.approx(found["limit"])
    assert len(loaded.typical.bank) == found["known_films"]
    shutil.copytree(tmp_path / "weights/resnet18", tmp_path / "weights/other")
    card = load_card("other", tmp_path / "weights")
    write_card(card.model_copy(update={"name": "other", "typical": None}), tmp_path / "weights/other")
    with pytest.raises(FileNotFoundError, match="refusal other"):
        checked_by("resnet18", "other", tmp_path / "weights")
    told = checked_by("other", "resnet18", tmp_path / "weights")
    assert told == {**found, "by": "resnet18"}
    checked, checker = Classifier.load_all(["other", "resnet18"], tmp_path / "weights")
    assert checked.checker is checker
    assert (checked.card.name, checker.card.name) == ("other", "resnet18")
    assert checked.card.refuses
    noise = Radiograph(rng.integers(0, 255, (90, 90), np.uint8), (0, 255))
    with pytest.raises(RejectedError):
        checked.check(noise)
    assert checked.check(noise, anyway=True)
    assert not (tmp_path / "weights/other/typical.safetensors").exists()


def test_what_people_may_drop_in_is_made_from_films() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 30), np.uint8)
    films = [Radiograph(each, (0, 255)) for each in pixels]
    squares = np.stack([letterbox(film, 48)[0] for film in films])
    made = tampered(films, 48)
    assert all(each.shape[1:] == (48, 48) for each in made.values())
    assert all(0.0 <= each.min() <= each.max() <= 1.0 for each in made.values())
    np.testing.assert_allclose(made["upside down"][:, 0], squares[:, -1], atol=1e-6)
    np.testing.assert_allclose((made["inverted"] + squares)[:, :, 9:39], 1.0, atol=1e-6)
    assert not made["inverted"][:, :, :9].any(), "the square's border is black, whatever lies in it"
    assert np.ptp(made["blank"], axis=(1, 2)).max() == 0.0
