"""Plain text of wikitext: what a reader of the page sees, and no hang on what is broken."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t5smith.text.formats.wiki_elements import without_elements
from t5smith.text.formats.wikitext import MAX_PARSE_COST, TooMuchMarkupError, Wikitext

WIKI = Wikitext(["Fil", "Kategori"])

PAGE = """{{Infoboks by
| navn = Bergen
| bilde = [[Fil:Bryggen.jpg|250px]]
| innbyggere = {{formatnum:{{#expr: 285000 + 600}}}}
}}
{{Otheruses|byen i Norge}}<!-- en kommentar
over to linjer -->
[[Fil:Bryggen i Bergen.jpg|miniatyr|høyre|Bryggen, sett fra [[Vågen (Bergen)|Vågen]] i
[[1990]].]]
'''Bergen''' ({{IPA|[ˈbærɡən]}}, på [[tysk språk|tysk]]: ''Bergen'') er en [[by]] og [[kommune]] i \
[[Vestland]] fylke.<ref name="ssb">{{Kilde www|url=http://ssb.no|tittel=Folketall {{dato}}}}</ref> Byen\
<ref name="ssb" /> har 285&nbsp;601 innbyggere &ndash; flest på [[Vestlandet]]s kyst.<ref>Se [[ssb]].</ref>

== Historie ==
Byen ble grunnlagt av [[Olav Kyrre]] i 1070.<br />Den het ''Bjørgvin'', «enga mellom fjellene».

=== Tomt ===
{{Utdypende|Bergens historie}}

=== Brannen i 1702 ===
{| class="wikitable"
! År !! Hus
|-
| 1702 || {{tall|9}}
{| class="indre"
| 7
|}
| 8
|}
* 90 % av byen brant, se [http://brann.no/1702?a=b Brannvesenet] og [http://b.no].
* [[:Kategori:Bybranner|Bybranner]]
# Formelen <math>E = mc^2 {</math> og <code>a < b</code>, H<sub>2</sub>O og <small>liten</small>.
: Skriv <nowiki>[[lenke]] og '''fet'''</nowiki> slik.

<gallery>
Fil:a.jpg|En [[båt]]
</gallery>

== Referanser ==
<references />

== Eksterne lenker ==
{{Commons|Bergen}}

[[Kategori:Bergen| ]]
[[Category:Byer]]
[[de:Bergen (Norwegen)]]
[[zh-min-nan:Bergen]]
__INGENINNHOLDSFORTEGNELSE__
"""

TEXT = """Bergen (på tysk: Bergen) er en by og kommune i Vestland fylke. Byen har 285\u00a0601 innbyggere \
– flest på Vestlandets kyst.
Historie
Byen ble grunnlagt av Olav Kyrre i 1070.
Den het Bjørgvin, «enga mellom fjellene».
Brannen i 1702
90 % av byen brant, se Brannvesenet og.
Bybranner
Formelen og a < b, H2O og liten.
Skriv [[lenke]] og '''fet''' slik."""


def test_a_page() -> None:
    """In the form of WikiExtractor's output, with the headings of sections that have text."""
    assert WIKI.plain_text(PAGE) == TEXT


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("{{a|{{b}}|{{{c|{{d}}}}}}} x", "x"),
        ("{{{{{a}}}}} x", "x"),
        ("a {{b c\nd e", "a\nd e"),  # a template without its end
        ("a }} b", "a b"),
        ("{{{a}} b", "{ b"),
        ("{|\n| a\n\nb", "b"),  # a table without its end
        ("{{t|\n{| a\n}} b", "b"),  # within a template
        ("{|\n{{ a\n|}\nb", "b"),
        (":{| class=x\n| a\n|}\nb", "b"),
        ("{{t|}} a\n{{t\n|}} b", "a\nb"),
        ("a <ref>b\nc", "a\nc"),
        ("a <ref>b <ref name=x>c</ref> d\ne", "a\ne"),
        ("a<ref name=x/>b<REF>c</REF >d", "abd"),
        ("<includeonly>a</includeonly><noinclude>b</noinclude>", "b"),
        ("<math>{{</math> a <nowiki>{{</nowiki> b }}", "a {{ b"),
        ("<pre>\n* a\n== b ==\n</pre>", "* a\n== b =="),
        ("<nowiki>&lt;b&gt; [[a]]</nowiki>", "<b> [[a]]"),
        ("a <!-- b", "a"),
        ("a <b>b</i> <div style='x'>c", "a b c"),
        ("</div>a</span>", "a"),
        ("[[a]]b [[a|b]]c [[a#b]] [[a b|c ''d'']]", "ab bc a#b c d"),
        ("[[Image:a.png|thumb|[[b]] [http://c d]]]e", "e"),
        ("[[FIL : a.png|b]]c [[ kategori:x]]", "c"),
        ("[[Bilde:a.JPG|thumb|b]]c", "c"),  # an alias, which the dump does not name
        ("[[:Fil:a.png]] [[:de:b|c]]", "Fil:a.png c"),
        ("[[Wikipedia:a|b]] [[Hjelp:c]]", "b Hjelp:c"),
        ("[[Fil:a.png|b\nc\n[[d]]\ne]]f", "f"),
        ("[[a|b\n\nc", "[[a|b\nc"),
        ("[[a]] [b] [c", "a [b] [c"),
        ("x http://a.b/c_d y", "x http://a.b/c_d y"),
        ("[//a.b c] [mailto:a@b.c d] [ftp://x]", "c d"),
        ("l''''a' '''b''' ''c'' '''''d''''' ''''''e", "l'a' b c d 'e"),
        ("&amp;lt; &#65;&#x42; &nope; &copy &eacute;", "&lt; AB &nope; &copy é"),
        ("== a ==\n=== b ===\n== c ==\nd\n== e ==", "c\nd"),
        ("= a =\n== b ==\nc", "a\nb\nc"),
        ("=a\n==", "=a\n=="),
        ("; a : b\n:: c\n*# d\n----\n-e", "a : b\nc\nd\n-e"),
        ("| a\n|- b", ""),
        ("Ola ({{x}}; {{y}}, født 1900) og {{z}}, ja ( ) .", "Ola (født 1900) og, ja."),
        ("__TOC__a __NOTOC__ b__c__", "a b__c__"),
        ("\u2028a\x85b", "\u2028a\x85b".strip()),
    ],
)
def test_markup(source: str, text: str) -> None:
    assert WIKI.plain_text(source) == text


TEXTS = ["a", "bc d", "é ", "1.", ", ", "&amp;", "&#39;", ":", "#", "http://x.y/z ", "("]
PLAIN = st.lists(st.sampled_from(TEXTS), max_size=3).map("".join)


def within(inner: st.SearchStrategy[str], *around: str) -> st.SearchStrategy[str]:
    return st.one_of(
        inner, st.builds(str.format, st.sampled_from(around), st.lists(inner, max_size=3).map("".join))
    )


LINK = within(
    PLAIN, "[[x|{}]]", "[[x y]]{}", "[[:de:x]]{}", "[http://x.y/z {}]", "[https://x.y]{}", "[[de:x]]{}"
)
LINE = within(LINK, "[[Fil:x.png|thumb|{}]]", "[[Fil:x|a|[[File:y|{}]]]]")


@settings(deadline=None)
@given(parts=st.lists(LINE, max_size=5))
def test_lines_are_as_mwparserfromhell_has_them(parts: list[str]) -> None:
    """Links lie within captions only, as MediaWiki has it."""
    line = "".join(parts)
    WIKI._cost = 0
    assert WIKI._replaced(line).strip() == WIKI._parsed(line).strip()


HOSTILE = [
    *("{{", "}}", "{{{", "}}}", "{|\n", "|}", "\n{|", "\n|}", "<ref>", "</ref>", "<ref", "[[", "]]"),
    *("[http://a ", "]", "<b>", "<b ", "</b>", "<!--", "-->", "''", "=", "==\n", "|", "a", "&", "<nowiki>"),
    *("</nowiki>", "<math>", "\n* ", "[[Fil:a|", "__", '<div a="', "{", "<", ">", "\n"),
]


@settings(deadline=None, max_examples=300)
@given(source=st.lists(st.sampled_from(HOSTILE), max_size=40).map("".join))
def test_any_markup_gives_some_text(source: str) -> None:
    text = WIKI.plain_text(source)
    assert not text or (text == text.strip() and "\n\n" not in text)


@pytest.mark.parametrize(
    "piece", [*HOSTILE, "[[a|", "{{{a|", "<ref name=", "[[a]]<b>[[", "{{a {|\n", "\n<ref>{{"]
)
def test_much_of_anything_is_read_in_linear_time(piece: str) -> None:
    """A line or page of one kind of markup alone: each takes well under a second, or is given up."""
    source = piece * (200_000 // len(piece))
    cut = without_elements(source)
    assert len(cut) <= len(source) * 6
    try:
        WIKI.plain_text(source)
    except TooMuchMarkupError:
        assert WIKI._cost > MAX_PARSE_COST
