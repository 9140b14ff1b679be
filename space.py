"""What Hugging Face Spaces starts."""

from app.classifier import Classifier
from app.ui.page import launch
from app.weights import ranked

launch([Classifier.load(name) for name in ranked()])
