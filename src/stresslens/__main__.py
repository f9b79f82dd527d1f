"""Where the command line begins: in one process, or in several that torchrun started."""

from __future__ import annotations

from stresslens import cli
from stresslens.core import torchrun


def main() -> None:
    """The first process carries out the command; the others, which torchrun starts beside it, train with it."""
    place = torchrun.place()
    if place.world == 1:
        cli.main()
        return
    from stresslens import processes

    if place.rank == 0:
        with processes.leading():
            cli.main()
    else:
        cli.main(processes.follow)


if __name__ == "__main__":
    main()
