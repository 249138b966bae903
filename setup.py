"""What goes into the wheel under another name; all else is in pyproject.toml.

The repository's folders scripts, configs and results/paper would be top-level packages of too common a name.
"""

from setuptools import find_namespace_packages, setup

MOVED = {"lookm_scripts": "scripts", "lookm.configs": "configs", "benchmarks.paper": "results/paper"}
KEPT = ("lookm", "baselines", "benchmarks", "hydra_plugins")


def packages_in(folder: str) -> list[str]:
    """A top-level package and those in it, with or without `__init__.py`."""
    return find_namespace_packages(include=[folder, f"{folder}.*"], exclude=["*.__pycache__"])


setup(
    packages=[
        *(name for folder in KEPT for name in packages_in(folder)),
        *(name.replace("scripts", "lookm_scripts", 1) for name in packages_in("scripts")),
        *("lookm.configs", "benchmarks.paper"),
    ],
    package_dir=MOVED,
    package_data={
        "lookm": ["models/*.json", "models/*/*"],
        "lookm.configs": ["*.yaml", "*/*.yaml", "*/*/*.yaml"],
        "benchmarks": ["report/templates/*"],
        "benchmarks.paper": ["*"],
    },
)
