"""Text cleaning."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rakuten.features.text import _clean_once, clean_text, tag_names


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("<p>Piscine&nbsp;ronde</p>", "Piscine ronde"),
        ("L&#39;&eacute;t&eacute;", "L'été"),
        ("caf&amp;eacute; &amp;lt;b&amp;gt;noir&amp;lt;/b&amp;gt;", "café noir"),
        ("Bricolage dâ€™enfant, cafÃ©", "Bricolage d'enfant, café"),
        ("ﬁgurine １２ cm", "figurine 12 cm"),
        ("un<br />deux<br>trois", "un deux trois"),
        ("a<script>alert('x')</script>b<!-- hidden -->c", "a b c"),
        ("a<SCRIPT src=x>if (a > b)</Script >b<style>p {}</style>c<!-- <script> -->d</script>", "a b c d"),
        ("a<script>b<!-- c -->d<style>e", "a b d e"),  # what never ends is no more than a tag
        ("a<script b<script>c</style>d<!-- e", "a<script b c d<!-- e"),
        ("1&#0000000065;2&#65;3" + "&#" + "1" * 5_000 + ";4", "1A2A3\ufffd4"),
        ("e" + "\u0301" * 5_000 + "t", "\xe9" + "\u0301" * 29 + "t"),
        ("taille < 5 et > 3, je <3 les jeux", "taille < 5 et > 3, je <3 les jeux"),
        ("<NA>", "<NA>"),
        ("Livre <Le Petit Prince> poche", "Livre <Le Petit Prince> poche"),
        ("&lt;Neuf&gt; <Label rouge> <Table basse> <A4>", "<Neuf> <Label rouge> <Table basse> <A4>"),
        ("a<b et c>d <Titre: Les Misérables> <!Promo>", "a<b et c>d <Titre: Les Misérables> <!Promo>"),
        ("<P/>un</p ><BR\n/>deux<font color=red>trois</font><td nowrap='nowrap'>", "un deux trois"),
        ("<!DOCTYPE html><![if !supportLists]>un<![endif]><o:p></o:p><st1:place w:st='on'>deux</st1:place>", "un deux"),
        ("Pis\u200bcine gon\u00adfla&shy;ble\u200e \ufeffronde \u200b bleue", "Piscine gonflable ronde bleue"),
        ("du fourrÃ\u00ad", "du fourrí"),
        ("e" + ("\u0301" * 20 + "\u00ad") * 2_000 + "t", "\xe9" + "\u0301" * 29 + "t"),
        ("  deux\t\n  mots  ", "deux mots"),
        ("", ""),
        ("Größe & Maße", "Größe & Maße"),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert clean_text(raw, lowercase=False, strip_accents=False) == clean


def test_case_and_accents_are_parameters() -> None:
    assert clean_text("Été À Nîmes", lowercase=True, strip_accents=False) == "été à nîmes"
    assert clean_text("Été À Nîmes", lowercase=False, strip_accents=True) == "Ete A Nimes"


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=160)), st.booleans(), st.booleans())
@example("Lot de  2 CHAISES", True, True)
def test_the_shortcut_for_plain_text_gives_the_same(text: str, lowercase: bool, strip_accents: bool) -> None:
    cleaned = [text]
    while len(cleaned) < 2 or cleaned[-1] != cleaned[-2]:
        cleaned.append(_clean_once(cleaned[-1], lowercase, strip_accents))
    assert clean_text(text, lowercase=lowercase, strip_accents=strip_accents) == cleaned[-1]


HTML = st.sampled_from([
    "<p>", "</b>", "<a =", "<NA>", "&amp;", "&lt;", "&eacute;", "<", ">", "&", ";", "Ã©", "é", " ", "\n", "İ", "ﬁ", "b",
    "\u00ad", "\u200b", "\u0301",
])  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(HTML, max_size=12).map("".join)), st.booleans(), st.booleans())
@example("&amp;amp;amp;lt;p&gt;", True, True)
@example("\uac00", False, True)
def test_cleaning_twice_gives_the_same(text: str, lowercase: bool, strip_accents: bool) -> None:
    clean = clean_text(text, lowercase=lowercase, strip_accents=strip_accents)
    assert clean_text(clean, lowercase=lowercase, strip_accents=strip_accents) == clean
    assert clean == " ".join(clean.split())
    assert not tag_names(clean)
    assert unicodedata.is_normalized("NFKC", clean)
    if lowercase:
        assert clean == clean.lower()


def test_the_names_of_tags_are_those_of_elements() -> None:
    assert tag_names("<P>a</p><br/><o:p>b</o:p><NA><Le Petit Prince><a href=x><Table basse>") == {"p", "br", "o", "a"}
