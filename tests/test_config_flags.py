import dataclasses

import pytest
from absl import flags

from data_prep.settings import Recipe
from umt_jax import config_flags
from umt_jax.config import ModelConfig, SamplingConfig, TrainingConfig


@pytest.mark.parametrize("kind", [ModelConfig, TrainingConfig, SamplingConfig, Recipe])
def test_every_field_is_explained_in_the_docstring_in_order(kind):
    helps = config_flags.help_by_field(kind)
    assert list(helps) == [field.name for field in dataclasses.fields(kind)]
    for text in helps.values():
        assert text[0].isupper() and text.endswith(".") and "`" not in text
        words = {word.strip(".,;:()") for word in text.split()}
        assert not words & set(helps) - {"seed"}, "fields are shown as flags"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of something.

    Attributes:
        width: How wide, in metres; at least
            `height`.
        height: How high; see `numpy.max`.
        is_red: Whether it is red.
        level: How loud; None for silence.
        name: What it is called.
    """

    width: int = 3
    height: float = 0.5
    is_red: bool = False
    level: float | None = None
    name: str = ""


def test_flags_have_the_names_values_and_words_of_the_fields():
    values = flags.FlagValues()
    found = config_flags.define(Sizes(width=7), leave_out=["name"], flag_values=values)
    assert list(found) == ["width", "height", "is_red", "level"]
    assert values["width"].help == "How wide, in metres; at least --height."
    assert values["height"].help == "How high; see numpy.max."
    values(["", "--height=2", "--is_red", "--level=-3.5"])
    given = {name: values[name].value for name in found}
    assert Sizes(**given) == Sizes(7, 2.0, True, -3.5)
