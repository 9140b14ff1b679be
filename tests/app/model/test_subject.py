from __future__ import annotations

import pytest

from app.model.subject import OURS, Subject

PHOTOS = Subject(title="Flowers", image="photo", finding="")
SCANS = Subject(title="Brains", image="MRI scan", finding="tumour")


@pytest.mark.parametrize(
    ("sentence", "photos", "scans"),
    [
        ("Drop an X-ray here.", "Drop a photo here.", "Drop an MRI scan here."),
        ("X-rays: two X-rays", "Photos: two photos", "MRI scans: two MRI scans"),
        ("<p>X-ray</p>", "<p>Photo</p>", "<p>MRI scan</p>"),
        ("Which of 3 types of fracture?", "Which of 3 types?", "Which of 3 types of tumour?"),
        ("Fracture seen", "Finding seen", "Tumour seen"),
        ("Possible fracture", "Possible finding", "Possible tumour"),
        ("Unlike any radiograph known here", "Unlike any photo known here", "Unlike any MRI scan known here"),
        ("An unusual radiograph", "An unusual photo", "An unusual MRI scan"),
    ],
)
def test_sentences_are_retold(sentence: str, photos: str, scans: str) -> None:
    assert OURS.retell(sentence) == sentence
    assert PHOTOS.retell(sentence) == photos
    assert SCANS.retell(sentence) == scans
