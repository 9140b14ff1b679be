from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from app.errors import Progress
from app.explain import checks
from app.explain.checks import OTHERS, check_heatmap, hide, quick_checks
from app.explain.faithfulness import measure_faithfulness
from app.explain.methods import MapRequest, draw, map_request
from app.explain.sanity import REPEATS
from app.imaging.radiograph import Radiograph
from app.model.classifier import Classifier


def test_the_terms_of_a_score_add_up(classifier: Classifier, film: Radiograph) -> None:
    explanation = classifier.explain([film])[0]
    for name, logit in zip(explanation.prediction.classes, explanation.prediction.logits, strict=True):
        terms = explanation.terms(name)
        assert terms[0] >= 0.0 >= terms[1]
        assert sum(terms) == pytest.approx(float(logit), abs=1e-4)


@pytest.mark.slow
def test_all_tests_of_a_heatmap_report_one_progress(
    classifier: Classifier, film: Radiograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.explain.checks.measure_faithfulness", partial(measure_faithfulness, random=2))
    monkeypatch.setattr("app.explain.sanity.REPEATS", dict.fromkeys(REPEATS, 1))
    told: list[float] = []
    explanation = classifier.explain([film])[0]
    checks = check_heatmap(map_request(classifier, film, watch=Progress(tell=told.append)), "gradcam", explanation)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert len(checks.findings()) == 4
    assert {found.kind for found in checks.findings()} <= {"good", "mixed", "poor"}
    assert f"{checks.stability:.2f}" in checks.findings()[2].figures


def test_quick_checks_tell_agreement_from_contradiction(
    classifier: Classifier, film: Radiograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    explanation, request = classifier.explain([film])[0], map_request(classifier, film)
    ours = draw(request)
    corner = np.zeros_like(ours)
    corner[np.unravel_index(ours.argmin(), ours.shape)] = 1.0

    def drawn(asked: MapRequest, method: str = "gradcam", *, others: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        if asked is not request:
            return mirrored
        return ours if method == "gradcam" else others

    monkeypatch.setattr(checks, "draw", partial(drawn, others=ours, mirrored=ours))
    monkeypatch.setattr("app.explain.sanity.draw", partial(drawn, others=ours, mirrored=ours[:, ::-1]))
    _, agreement, mirrored = quick_checks(request, explanation)
    assert (agreement.kind, mirrored.kind) == ("good", "good")
    assert agreement.words.startswith(f"{len(OTHERS)} of {len(OTHERS)}")
    monkeypatch.setattr(checks, "draw", partial(drawn, others=corner, mirrored=ours))
    monkeypatch.setattr("app.explain.sanity.draw", partial(drawn, others=ours, mirrored=ours.max() - ours[:, ::-1]))
    _, agreement, mirrored = quick_checks(request, explanation)
    assert (agreement.kind, mirrored.kind) == ("poor", "poor")
    monkeypatch.setattr(checks, "draw", lambda *_: np.zeros_like(ours))
    assert quick_checks(request, explanation) == ()


def test_only_what_is_painted_is_hidden(classifier: Classifier, film: Radiograph) -> None:
    image = film.display()
    layer = np.zeros((image.shape[0] // 2, image.shape[1] // 2, 4), np.uint8)
    assert hide(classifier, image, []) is None
    assert hide(classifier, image, [layer]) is None
    layer[: layer.shape[0] // 2] = 255
    found = hide(classifier, image, [layer])
    assert found is not None
    assert found.share == pytest.approx(0.5, abs=0.01)
    before, after = found.before.radiograph.display(), found.after.radiograph.display()
    assert np.array_equal(before, image)
    half = image.shape[0] // 2
    assert np.array_equal(after[half + 2 :], image[half + 2 :])
    assert not np.array_equal(after[:half], image[:half])
    assert found.full_colour >= max(found.before.full_colour, found.after.full_colour)
