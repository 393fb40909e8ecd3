"""The packages of the wheel: every folder of code, and conf/ as gan_cli.conf. All else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["gan_cli*", "hydra_plugins*"]), "gan_cli.conf"])
