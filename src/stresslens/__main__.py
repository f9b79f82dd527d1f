"""Where the command line begins: in one process, or in several that torchrun started."""

from __future__ import annotations

from stresslens.cli import main as command_line
from stresslens.core import torchrun


def main() -> None:
    """The first process carries out the command; the others, which torchrun starts beside it, train
    with it."""
    place = torchrun.rank_of_process()
    if place.world == 1:
        command_line.main()
        return
    from stresslens.training import distributed

    if place.rank == 0:
        with distributed.leading():
            command_line.main()
    else:
        command_line.main(distributed.follow)


if __name__ == "__main__":
    main()
