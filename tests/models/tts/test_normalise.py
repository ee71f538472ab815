"""Written text to spoken text: a table of cases, and properties that hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.models.tts.normalise import normalise, split_sentences

ENGLISH = [
    # numbers
    ("I have 2 cats, 3 dogs.", "I have two cats, three dogs."),
    ("1,234,567", "one million two hundred and thirty-four thousand five hundred and sixty-seven"),
    ("1000000", "one million"),
    ("10 000 people", "ten thousand people"),
    ("3.14", "three point one four"),
    (".5", "zero point five"),
    ("007", "zero zero seven"),
    ("-5 degrees", "minus five degrees"),
    ("1st 2nd 23rd", "first second twenty-third"),
    ("pages 10-20", "pages ten to twenty"),
    ("10–20 km", "ten to twenty kilometers"),
    ("1-2-3", "one, two, three"),
    ("#1", "number one"),
    ("No. 5", "number five"),
    ("order 12345678", "order one two three four five six seven eight"),
    ("Is it 5?", "Is it five?"),
    # fractions
    ("1/2 cup", "one half cup"),
    ("2 1/2 cups", "two and a half cups"),
    ("¾", "three quarters"),
    ("8/10", "eight out of ten"),
    ("24/7", "twenty-four seven"),
    # versions, codes
    ("Python 3.11.2", "Python three point eleven point two"),
    ("v2.0.1", "version two point zero point one"),
    ("MP3 and 4K", "M-P three and four K"),
    ("GPT-4", "G-P-T four"),
    # times
    ("It's 5:30.", "It's five thirty."),
    ("at 5:05 pm", "at five oh five P-M"),
    ("5:00 PM", "five P-M"),
    ("12:00", "twelve o'clock"),
    ("17:30", "seventeen thirty"),
    ("9am-5pm", "nine A-M to five P-M"),
    ("9:30-10:45", "nine thirty to ten forty-five"),
    ("at 7.30pm", "at seven thirty P-M"),
    ("We met at 5 p.m. Then we left.", "We met at five P-M. Then we left."),
    ("at 5 p.m. we go", "at five P-M we go"),
    ("3:1", "three to one"),
    # dates and years
    ("March 3rd, 2024", "March third, twenty twenty-four"),
    ("3 March 2024", "the third of March, twenty twenty-four"),
    ("In March 2024,", "In March twenty twenty-four,"),
    ("2024-03-15", "March fifteenth, twenty twenty-four"),
    ("3/15/2024", "March fifteenth, twenty twenty-four"),
    ("15/3/2024", "March fifteenth, twenty twenty-four"),
    ("in 1998 and 2005", "in nineteen ninety-eight and two thousand and five"),
    ("in 1492", "in fourteen ninety-two"),
    ("1500 people", "one thousand five hundred people"),
    ("the 1990s and 80s", "the nineteen nineties and eighties"),
    ("1990-1995", "nineteen ninety to nineteen ninety-five"),
    # money, percentages, measures
    ("$5.50", "five dollars and fifty cents"),
    ("$1", "one dollar"),
    ("$0.99", "ninety-nine cents"),
    ("$1,200", "one thousand two hundred dollars"),
    ("$3 million", "three million dollars"),
    ("$1.5M", "one point five million dollars"),
    ("$5-10", "five to ten dollars"),
    ("20 €", "twenty euros"),
    ("£3.20", "three pounds and twenty pence"),
    ("50 USD", "fifty dollars"),
    ("10$", "ten dollars"),
    ("50%", "fifty percent"),
    ("5-10%", "five to ten percent"),
    ("1 km", "one kilometer"),
    ("5 km", "five kilometers"),
    ("3kg", "three kilograms"),
    ("20°C", "twenty degrees Celsius"),
    ("-3.5 °F", "minus three point five degrees Fahrenheit"),
    ("100 km/h", "one hundred kilometers per hour"),
    ("10 m²", "ten square meters"),
    ("5'10\"", "five foot ten"),
    ("16 GB", "sixteen gigabytes"),
    ("3 kWh", "three kilowatt hours"),
    ("5 in a row", "five in a row"),
    # telephone
    ("555-1234", "five five five, one two three four"),
    ("415-555-2671", "four one five, five five five, two six seven one"),
    (
        "+1 (415) 555-2671",
        "plus one, four one five, five five five, two six seven one",
    ),
    ("0800 123 456", "zero eight zero zero, one two three, four five six"),
    # addresses
    ("see example.com.", "see example dot com."),
    ("me@example.com", "me at example dot com"),
    ("a.b_42@mail.co.uk", "A dot B underscore four two at mail dot co dot U-K"),
    ("https://www.example.com/path?x=1", "example dot com slash path"),
    ("Visit https://github.com/foo/a-b now", "Visit github dot com slash foo slash A dash B now"),
    # acronyms and abbreviations
    ("The API and GPU", "The A-P-I and G-P-U"),
    ("APIs, the CPU's load", "A-P-I's, the C-P-U's load"),
    ("NASA", "Nasa"),
    ("the U.S. and the U.S.A.", "the U-S and the U-S-A."),
    ("I said NO, STOP it NOW!", "I said No, Stop it Now!"),
    ("STOP DOING THAT", "Stop doing that"),
    ("AT&T and R&D", "A-T and T and R and D"),
    ("plan A is", "plan ay is"),
    ("Dr. Smith vs. Mrs. Jones, etc.", "Doctor Smith versus Missus Jones, et cetera."),
    ("e.g. at St. John's on Main St. today", "for example at Saint John's on Main Street today"),
    # symbols
    ("salt & pepper", "salt and pepper"),
    ("2+2=4", "two plus two equals four"),
    ("3 - 2 = 1", "three minus two equals one"),
    ("2 * 3", "two times three"),
    ("1920x1080", "nineteen twenty by one thousand and eighty"),
    ("he/she and/or", "he slash she and or"),
    ("foo@bar", "foo at bar"),
    ("#fun", "hashtag fun"),
    ("C# and C++", "C sharp and C plus plus"),
    ("wait — what", "wait, what"),
    ("well-known", "well-known"),
    ("snake_case", "snake case"),
    ("main.py", "main dot py"),
    # scripts that an English voice cannot say
    ("naïve café Zürich", "naïve café Zürich"),
    ("привет", ""),
]

MARKUP = [
    ("**bold** and `code` and *it* and __b__ and _i_", "bold and code and it and b and i"),
    ("**cut off", "cut off"),
    ("cut off** more", "cut off more"),
    ("~~gone~~", "gone"),
    ("# Title\nText", "Title. Text"),
    ("- item", "item"),
    ("- one\n- two\n* three", "one. two. three"),
    ("> quote", "quote"),
    ("[the link](http://x.y/z)", "the link"),
    ("![alt text](a.png)", "alt text"),
    ("a <b>bold</b><br>word", "a bold word"),
    ("first\n\nsecond", "first. second"),
    ("soft\nwrap", "soft wrap"),
    ("```python\nrun\n```", "run"),
    ("| a | b |\n|---|---|\n| c | d |", "a, b. c, d"),
    ("---\nafter", "after"),
    ("Hello 😀 world! 👍🏽", "Hello world!"),
    ("a\u200bb\x07c\ufeff", "ab c"),
    ("“quoted” it’s", '"quoted" it\'s'),
    ("", ""),
    ("😀", ""),
]


@pytest.mark.parametrize(("written", "spoken"), ENGLISH)
def test_english(written: str, spoken: str) -> None:
    assert normalise(written) == spoken


@pytest.mark.parametrize("language", ["en", "en-GB", "de", ""])
@pytest.mark.parametrize(("written", "spoken"), MARKUP)
def test_markup_goes_in_every_language(written: str, spoken: str, language: str) -> None:
    assert normalise(written, language) == spoken


def test_numbered_lists() -> None:
    assert normalise("1. First\n2. Second") == "one, First. two, Second"


def test_other_languages_keep_their_numbers() -> None:
    assert normalise("**Um 5:30 Uhr** für 20 €", "de") == "Um 5:30 Uhr für 20 €"
    assert normalise("привет", "ru") == "привет"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=120))
def test_any_text_becomes_one_line_without_digits(text: str) -> None:
    spoken = normalise(text)
    assert spoken == spoken.strip()
    assert "\n" not in spoken
    assert not any("0" <= character <= "9" for character in spoken)


AWKWARD = st.sampled_from("0123456789 .,:;-/$€%#@&*_`+=<>()[]'\"\n|~^apPMstknrdhKvVxX°²½–—AZ")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=AWKWARD, max_size=60))
def test_awkward_text_becomes_one_line_without_digits(text: str) -> None:
    spoken = normalise(text)
    assert "\n" not in spoken
    assert not any("0" <= character <= "9" for character in spoken)


@pytest.mark.parametrize(
    "pattern",
    ["a", "1", "a-", "a.", "1-", "$", " \n", "*", "<a", "| - ", "A.", "1,", "_a", "x@", "[a", "1/"],
)
def test_long_runs_do_not_take_quadratic_time(pattern: str) -> None:
    """20,000 characters; a pattern that backtracks would take minutes and stop the suite."""
    normalise(pattern * (20_000 // len(pattern)))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("J. K. Rowling wrote it. Then left.", ["J. K. Rowling wrote it.", "Then left."]),
        ("Wait... what?", ["Wait...", "what?"]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("text", ["word " * 500, "x" * 2_000, "one two, three four; " * 100])
def test_long_sentences_are_cut_and_nothing_is_lost(text: str) -> None:
    pieces = split_sentences(text)
    assert max(map(len, pieces)) <= 300
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
