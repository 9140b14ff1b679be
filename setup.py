"""What pyproject.toml cannot say: packages are found by themselves; the weights and pages beside them become packages.

An installed ``app`` thus carries its models as ``app/shipped_weights`` and its pages as ``app/shipped_docs``; a
working tree keeps them in ``weights`` and ``docs``.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["app*", "training*"]), "app.shipped_weights", "app.shipped_docs"],
    package_dir={"app.shipped_weights": "weights", "app.shipped_docs": "docs"},
)
