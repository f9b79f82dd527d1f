from __future__ import annotations

from pathlib import Path

from stresslens.core.data import Data
from stresslens.core.image_files import Fit
from stresslens.core.types import Count, NonNegative, Positive, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._listed_images import Colours, Decoding, Unreadable, data_of_files
from stresslens.plugins.datasets._tar_samples import listing_of_shards, shards_at


# long: options are spelled out, one a line, and the docstring explains each
def webdataset(
    *,
    path: str,
    image: str | None = None,
    label: str | None = None,
    classes: list[str] | None = None,
    names: dict[str, str] | list[str] | None = None,
    group: str | None = None,
    size: Count | tuple[Count, Count] | None = None,
    fit: Fit = "crop",
    colours: Colours = "auto",
    test: NonNegative | None = None,
    validation: NonNegative | None = None,
    unreadable: Unreadable = "error",
    cache_gb: Positive = 16.0,
    subset: Count | None = None,
    seed: Seed = 42,
) -> Data:
    """WebDataset shards: tar archives whose members of one name are a sample (0001.jpg and 0001.cls).

    `path` is a folder of tar archives, a pattern ('shards/*.tar', 'train-{000..009}.tar') or one
    archive, relative to the working folder. Archives with train, val or test in their name or folder
    are the parts; otherwise test and validation are drawn.

    `image` is the suffix of the pictures, by default that of any format that is read. `label` is the
    suffix of the labels, by default cls, or json.KEY for a key in the JSON of each sample. Labels are
    words or whole numbers; a file classnames.txt or classes.txt beside the archives names the classes
    0, 1, …, one a line.

    Archives are read with tarfile and never unpacked; links, and names that lead outside of a folder,
    are refused. The other options are those of the dataset `folder`. Raises ConfigError for options
    that do not fit the data, and DataError for its mistakes.
    """
    shards, root = shards_at(path)
    listed, every = listing_of_shards(shards, root, image, label)
    place = Path(path).expanduser()
    return data_of_files(
        listed,
        (place if place.exists() else root).resolve().name,
        Decoding(size, fit, colours, unreadable, cache_gb),
        Division(test, validation, subset, seed),
        every=every,
        classes=classes,
        names=names,
        group=group,
    )
