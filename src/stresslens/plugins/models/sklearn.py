from __future__ import annotations

import warnings

from torch import nn

from stresslens.core.errors import DataError, first_line
from stresslens.core.files import digest_of_file
from stresslens.core.fitted_classifier import of_classifier
from stresslens.core.foreign_model import Layout, tried
from stresslens.core.types import ModelFile, Natural, Positive, Shape
from stresslens.plugins.models._foreign import Moments, Side, existing, preparation_of, trust_in

WHAT = "a fitted classifier that joblib.dump or pickle.dump wrote"
WHY = "joblib and pickle execute what is in the file"


def sklearn(
    shape: Shape,
    classes: int,
    names: tuple[str, ...],
    *,
    file: ModelFile,
    trusted: bool = False,
    columns: tuple[Natural, ...] | None = None,
    layout: Layout = "flat",
    bgr: bool = False,
    mean: Moments | None = None,
    std: Moments | None = None,
    scale: Positive = 1.0,
    size: Side | None = None,
) -> nn.Module:
    """A fitted classifier or pipeline of scikit-learn, from a file of joblib or pickle. It has no gradient.

    Opening such a file can run any code, so it needs `trusted`. Images in [0, 1] are resized to `size`
    and become (x - `mean`) / `std` · `scale` (`scale: 16` for a classifier of load_digits as it comes), in
    the order `layout` (with `bgr` the blue channel first); `flat` is channel by channel, row by row. Its
    logits are the logarithms of predict_proba, or decision_function, or else 1 for the predicted class.
    Its classes_ are matched with the classes of the data, by name or number, unless `columns` says which
    ones they are, in their order. The file is copied into the run. Raises ConfigError or DataError for
    a file that is no such classifier, or does not fit the images or the classes.
    """
    trust_in(trusted, file, WHY)
    import joblib

    path = existing(file, WHAT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files of other versions
            classifier = joblib.load(path)
    except Exception as error:  # unpickling runs code of others
        raise DataError(f"{path} cannot be read as {WHAT}: {first_line(error)[:200]}") from error
    model = of_classifier(
        classifier,
        names,
        what=f"the classifier in {path.name}",
        layout=layout,
        bgr=bgr,
        columns=columns,
        digest=digest_of_file(path)[:16],
    )
    return tried(model, shape, classes)


def trainable() -> bool:
    return False


def needs_trust() -> str:
    return WHY


own_preprocessing = preparation_of
