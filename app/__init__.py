"""Inference and demo: what bone-fracture type an X-ray shows, and which regions say so."""

__version__ = "0.1.0"
