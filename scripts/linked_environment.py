"""An environment of the installed packages that a wheel asks for, and no others: for `scripts/check_wheel.sh`.

    python scripts/linked_environment.py FOLDER lookm-harness harness

Makes a virtual environment whose packages are links to those of this interpreter: the wheel's own requirements, those
of the extras named, and what these require in turn. Nothing is downloaded, and nothing else can be imported there. The
wheel is installed by itself before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(first: Distribution, extras: Iterable[str]) -> list[Distribution]:
    """What a distribution requires with these extras, directly or not, as far as this interpreter has it."""
    found: dict[str, Distribution] = {}
    waiting = [(first, frozenset(extras))]
    seen = set()
    while waiting:
        owner, wanted = waiting.pop()
        for requirement in map(Requirement, owner.requires or []):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                continue
            key = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if key in seen:
                continue
            seen.add(key)
            if key[0] == canonicalize_name(first.metadata["Name"]):
                waiting.append((first, key[1]))
                continue
            try:
                found[key[0]] = distribution(requirement.name)
            except PackageNotFoundError:
                if owner is first:
                    raise SystemExit(f"error: {requirement} is required but not installed here") from None
                continue  # optional in practice, such as CUDA's libraries of a CPU build
            waiting.append((found[key[0]], key[1]))
    return list(found.values())


def link(packages: Iterable[Distribution], site: Path) -> None:
    """Links the top-level files and folders of packages into a site folder."""
    for package in packages:
        tops = {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in sorted(tops):
            target = Path(str(package.locate_file(top)))
            if target.exists() and not (site / top).exists():
                (site / top).symlink_to(target)


def main() -> int:
    """Run the command line; returns the exit status."""
    environment, name, *extras = sys.argv[1:]
    (site,) = Path(environment).glob("lib/python*/site-packages")
    (wheel,) = [found for found in distributions(path=[str(site)]) if found.metadata["Name"] == name]
    packages = required(wheel, extras)
    link(packages, site)
    print(f"  {len(packages)} packages for {name}[{','.join(extras)}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
