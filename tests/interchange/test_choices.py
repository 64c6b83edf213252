"""Options about coordinates and sizes over what the files say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiltwise.errors import ConfigError
from tiltwise.interchange import choices
from tiltwise.interchange.conventions import DYNAMO, RELION5
from tiltwise.interchange.drafts import Optics
from tiltwise.interchange.options import ImportOptions


def options(**values: object) -> ImportOptions:
    return ImportOptions(input=Path("in"), output=Path("out"), **values)


def test_nothing_said_leaves_the_program() -> None:
    assert choices.coordinate_convention(DYNAMO, options()) is DYNAMO
    assert choices.coordinate_binning(DYNAMO, options(), 1.35) == 1.0
    assert choices.coordinate_binning(DYNAMO, options(), 1.35, of_file=4.0) == 4.0
    assert choices.optics(Optics(200.0), options()) == Optics(200.0)
    assert choices.image_size(options()) is choices.tomogram_size(options()) is None


def test_what_is_said_counts() -> None:
    said = options(coordinate_unit="angstrom", coordinate_origin="centre")
    convention = choices.coordinate_convention(DYNAMO, said)
    found = convention.to_position_px(
        [[2.7, 0, -2.7]], binning=1.0, tomogram_size=(40, 20, 10), pixel_size_angstrom=1.35
    )
    np.testing.assert_allclose(found, [[22, 10, 3]])
    zero = choices.coordinate_convention(DYNAMO, options(coordinate_first=0.0))
    assert zero.first == 0.0
    assert "as given" in zero.key
    assert choices.coordinate_binning(DYNAMO, options(coordinate_pixel_size=5.4), 1.35, of_file=2.0) == pytest.approx(4)
    assert choices.optics(Optics(), options(voltage=200, amplitude_contrast=0.07)) == Optics(200, 2.7, 0.07)
    assert choices.image_size(options(image_size="3710x3838")) == (3710, 3838)
    assert choices.tomogram_size(options(tomogram_size="400,300,200")) == (400, 300, 200)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        choices.coordinate_binning(DYNAMO, options(coordinate_pixel_size=5.4, coordinate_binning=2.0), 1.35)
    with pytest.raises(ConfigError, match="no pixel size"):
        choices.coordinate_convention(RELION5, options(coordinate_pixel_size=5.4))
    with pytest.raises(ConfigError, match="--image-size"):
        choices.image_size(options(image_size="3710"))
    with pytest.raises(ConfigError, match="such as 4000"):
        options(tomogram_size="40,many,20")
