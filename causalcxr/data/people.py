"""How the collections write down what they recorded of people, brought to one vocabulary.

Race is what somebody entered in a form, in the words of that form; nothing here knows more than the form did.
"""

import re
import unicodedata

import numpy as np
import pandas as pd

__all__ = [
    "age_in_years",
    "ages_of_bands",
    "is_band",
    "numbers",
    "one_race_each",
    "person",
    "race",
    "sex",
    "whole_years",
    "years",
]

SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}
RACES = r"^(white|asian|black)\b"
YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}  # units of a DICOM age
WORDS = {"Y": ("y", "yr", "yrs", "yo", "year", "years"), "M": ("mo", "month", "months")}
WORDS |= {"W": ("w", "wk", "week", "weeks"), "D": ("d", "day", "days")}
UNITS = {word: YEARS[unit] for unit, words in WORDS.items() for word in words}
AGE = re.compile(r"(\d+(?:[.,]\d{1,2})?) ?([a-z]+)(?: old)?")
MONTHS = re.compile(r"(\d{3})m")  # as DICOM writes them; 45M may as well be a man of 45
BAND = re.compile(r"(\d+) ?(?:-|–|to) ?(\d+)")
OPEN_BAND = re.compile(r"(?:>=?|≥) ?\d+|\d+ ?(?:\+|or (?:more|older|over|above)|and (?:over|older|above))")
WHOLE = re.compile(r"(\d+)(?:\.0*)?")


def person(name: str, spelling: str = "merge") -> str:
    """One text for all spellings of a person: `123`, `123.0` and `0123`; ` P7` and `p7`.

    `spelling`: as `data.patient_spelling`; with `exact` every spelling is a person.
    """
    if spelling == "exact":
        return name
    text = " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
    whole = WHOLE.fullmatch(text)
    return whole[1].lstrip("0") or "0" if whole else text


def years(text: str) -> float | None:
    """An age with its unit, in years: `045Y`, `018M`, `3 weeks`, `45 years`; None if it isn't one."""
    text = text.strip().lower()
    if months := MONTHS.fullmatch(text):
        return int(months[1]) * YEARS["M"]
    found = AGE.fullmatch(text)
    if found is None or found[2] not in UNITS:
        return None
    return float(found[1].replace(",", ".")) * UNITS[found[2]]


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


def is_band(text: str) -> bool:
    """Whether this is `60-64`, `85 or more` or the like."""
    return any(kind.fullmatch(text.strip().lower()) for kind in (BAND, OPEN_BAND))


def ages_of_bands(recorded: pd.Series, open_age: float) -> tuple[pd.Series, pd.Series]:
    """Bands such as `60-64` as their middle, `85 or more` as `open_age`, other text kept; and which are open."""
    kinds = recorded.unique().tolist()
    written = {kind: " ".join(kind.lower().removesuffix("years").split()) for kind in kinds}
    ours = {kind: kind for kind in kinds}
    for kind, text in written.items():
        if (band := BAND.fullmatch(text)) and int(band[1]) <= int(band[2]):
            ours[kind] = f"{(int(band[1]) + int(band[2])) / 2:g}"
        elif OPEN_BAND.fullmatch(text):
            ours[kind] = f"{open_age:g}"
    is_open = {kind: OPEN_BAND.fullmatch(text) is not None for kind, text in written.items()}
    return recorded.map(ours), recorded.map(is_open).astype(bool)


def numbers(recorded: pd.Series) -> np.ndarray:
    """float64, NaN where there is no number."""
    return np.asarray(pd.to_numeric(recorded, errors="coerce"), dtype=np.float64)


def whole_years(ages: np.ndarray) -> pd.Series:
    """Ages as the text of a table, blank where unknown."""
    return pd.Series(np.where(np.isnan(ages), "", np.nan_to_num(ages).astype(int).astype(str)), dtype=str)
