"""How the collections write down what they recorded of people, brought to one vocabulary.

Race is what somebody entered in a form, in the words of that form; nothing here knows more than the form did.
"""

import numpy as np
import pandas as pd

__all__ = ["age_in_years", "numbers", "one_race_each", "race", "sex", "whole_years"]

SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}
RACES = r"^(white|asian|black)\b"
YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}  # units of a DICOM age


def sex(recorded: pd.Series) -> pd.Series:
    """female or male; any other word is kept, and rejected later."""
    return recorded.map(lambda word: SEXES.get(word.lower(), word))


def race(recorded: pd.Series) -> pd.Series:
    """white, asian or black by the beginning of the text (`WHITE - RUSSIAN`); any other up to its first ` - `."""
    kinds = pd.Series(recorded.unique(), dtype=str)
    found = kinds.str.lower().str.extract(RACES, expand=False)
    ours = found.where(found.notna(), kinds.str.split(" - ").str[0])
    return recorded.map(dict(zip(kinds, ours, strict=True)))


def one_race_each(people: pd.Series, recorded: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The race of each person with one, and what is recorded of those with several: both indexed by person.

    Blank entries don't count. `UNKNOWN` and `OTHER` do: they contradict a group, as in the published cohorts.
    """
    one: dict[str, str] = {}
    several: dict[str, str] = {}
    for person, kind in sorted(set(zip(people.tolist(), race(recorded).tolist(), strict=True))):
        if kind and person in one:
            several[person] = f"{several.get(person, one[person])} and {kind}"
        elif kind:
            one[person] = kind
    agreed = {person: kind for person, kind in one.items() if person not in several}
    return pd.Series(agreed, dtype=str), pd.Series(several, dtype=str)


def age_in_years(recorded: pd.Series) -> pd.Series:
    """`058Y`, `018M`, `003W` and `010D` in years; any other text is kept."""
    kinds = pd.Series(recorded.unique(), dtype=str)
    parts = kinds.str.extract(r"^(\d+)([YMWD])$")
    years = parts[0].astype(float) * parts[1].map(YEARS)
    ours = np.where(years.notna(), years.map("{:g}".format), kinds)
    return recorded.map(dict(zip(kinds, ours, strict=True)))


def numbers(recorded: pd.Series) -> np.ndarray:
    """float64, NaN where there is no number."""
    return np.asarray(pd.to_numeric(recorded, errors="coerce"), dtype=np.float64)


def whole_years(ages: np.ndarray) -> pd.Series:
    """Ages as the text of a table, blank where unknown."""
    return pd.Series(np.where(np.isnan(ages), "", np.nan_to_num(ages).astype(int).astype(str)), dtype=str)
