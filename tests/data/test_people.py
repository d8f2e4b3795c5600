"""How people are recorded: sexes, ages, and races by the beginning of what was written."""

import pandas as pd
import pytest

from causalcxr.data.people import age_in_years, numbers, one_race_each, race, sex, whole_years


@pytest.mark.parametrize(
    ("recorded", "group"),
    [
        *[(text, "white") for text in ("WHITE", "WHITE - RUSSIAN", "White, non-Hispanic", "White or Caucasian")],
        *[
            (text, "black")
            for text in ("BLACK/AFRICAN AMERICAN", "BLACK/CAPE VERDEAN", "Black or African American")
        ],
        *[(text, "asian") for text in ("ASIAN", "ASIAN - ASIAN INDIAN", "Asian - Historical Conv", "asian")],
        ("HISPANIC/LATINO - CUBAN", "HISPANIC/LATINO"),
        ("Other, Hispanic", "Other, Hispanic"),
        ("UNKNOWN", "UNKNOWN"),
        ("Whitehall", "Whitehall"),  # the word must end
        ("MULTIPLE: WHITE", "MULTIPLE: WHITE"),  # and be the first
        ("", ""),
    ],
)
def test_race_is_matched_by_its_first_word(recorded, group):
    assert race(pd.Series([recorded, "WHITE"])).tolist() == [group, "white"]


def test_people_with_one_race_and_with_several():
    entries = [
        *[("a", "WHITE"), ("a", "WHITE - RUSSIAN"), ("a", "")],
        *[("b", "WHITE"), ("b", "ASIAN"), ("b", "UNKNOWN")],
        *[("c", "OTHER"), ("d", "")],
    ]
    people, recorded = (pd.Series(column) for column in zip(*entries, strict=True))
    one, several = one_race_each(people, recorded)
    assert one.to_dict() == {"a": "white", "c": "OTHER"}
    assert several.to_dict() == {"b": "UNKNOWN and asian and white"}


def test_ages_are_years():
    recorded = pd.Series(["058Y", "018M", "003W", "010D", "413", "", "58 Y", "063Y"])
    expected = ["58", "1.5", f"{21 / 365.25:g}", f"{10 / 365.25:g}", "413", "", "58 Y", "63"]
    assert age_in_years(recorded).tolist() == expected


def test_numbers_are_blank_where_there_are_none():
    assert whole_years(numbers(pd.Series(["1961.0", "", "x", "20"])) + 1).tolist() == ["1962", "", "", "21"]


def test_other_words_for_sex_are_kept():
    assert sex(pd.Series(["F", "Male", "m", "O", "Unknown", ""])).tolist() == [
        *("female", "male", "male", "O", "Unknown", "")
    ]
