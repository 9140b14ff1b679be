"""Inference and demo: what bone-fracture type an X-ray film shows, and which regions say so."""
