from __future__ import annotations

from pathlib import Path
from typing import Literal

from stresslens.core.data import Data
from stresslens.core.image_files import Fit
from stresslens.core.types import Count, NonNegative, Positive, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._listed_images import Colours, Decoding, Unreadable, data_of_files
from stresslens.plugins.datasets._listing import listing


# long: options are spelled out, one a line, and the docstring explains each
def folder(
    *,
    path: str,
    classes: list[str] | None = None,
    names: dict[str, str] | list[str] | None = None,
    size: Count | tuple[Count, Count] | None = None,
    fit: Fit = "crop",
    colours: Colours = "auto",
    test: NonNegative | None = None,
    validation: NonNegative | None = None,
    group: str | None = None,
    slices: list[str] | None = None,
    unreadable: Unreadable = "error",
    cache_gb: Positive = 16.0,
    white: Literal["auto"] | Count = "auto",
    subset: Count | None = None,
    seed: Seed = 42,
    encoding: str | None = None,
) -> Data:
    """Your own images: a directory or archive with a folder for each class, or a CSV or parquet
    table.

    `path` is a directory, a zip or tar archive, or a table of path, label and more; it is relative
    to the working folder.

    Splits: folders train, validation and test (or the column `split`) are the parts; train must be
    one of them. A missing validation part is drawn from train, `validation` of its images. A missing
    test part is not drawn: there is no test split. Without any part, `test` and `validation` of all
    images are drawn. Both are counts or shares, by default a fifth; an option for a part that is there
    is refused. An archive with one folder around everything, whatever its name, has no parts in it
    but those inside. Images of one `group` stay in one part. For a
    table, `group` is a column, by default "group"; for folders it is a regular expression whose
    first group in parentheses matches the group in the file's path. `subset` keeps that many
    training images, class-balanced. `classes` keeps only images of these classes; folders called
    train or test are classes where it names them. `names` gives classes other names, for models that
    use them in captions: {automobile: car}, or a name for each class, in the order of `classes` (or
    of the alphabet). `slices` names the table's columns that scores
    are split by, by default all. `encoding` is that of a table, by default UTF-8, and of names in a
    zip that does not say it (cp1252, cp932).

    Decoding: every file is decoded once into a cache, which is used as long as names, sizes and
    times of the files are the same. `size` is in pixels, or [height, width]; it may be left out if
    all images have the same size. `fit` is `crop` (the centre), `pad` (with black) or `stretch`. If
    the pixels take more than `cache_gb` gigabytes, the files are kept and decoded for each batch.
    `colours: auto` means three channels if a training image has colours; other images follow.
    `white` is the value of white in files of 16 bits; `auto` takes that of 8, 10, 12, 14 or 16 bits
    that holds the largest value of the training images. Pixels are kept with 8 bits.
    Unreadable files are an error that names them all; with `unreadable: skip` they are left out and
    listed. Raises ConfigError for options that do not fit the data, and DataError for its mistakes.
    """
    source = Path(path).expanduser()
    return data_of_files(
        listing(source, classes, encoding),
        source.resolve().name,
        Decoding(size, fit, colours, unreadable, cache_gb, white),
        Division(test, validation, subset, seed),
        classes=classes,
        names=names,
        group=group,
        slices=slices,
        place=path,
    )
