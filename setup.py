"""What pyproject.toml cannot say: packages are found by themselves, and the weights, which lie beside them, become one.

An installed ``app`` thus carries its models as ``app/shipped_weights``; a working tree keeps them in ``weights``.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["app*", "training*"]), "app.shipped_weights"],
    package_dir={"app.shipped_weights": "weights"},
)
