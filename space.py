"""What Hugging Face Spaces starts."""

from app.classifier import Classifier
from app.ui.page import launch
from app.weights import available

launch(Classifier.load(available()[0]))
