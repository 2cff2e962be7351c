from hypothesis import given
from hypothesis import strategies as st

from t5smith.pages.markup import Html, document, join, stylesheet, tag


def test_text_is_escaped_and_html_is_not() -> None:
    assert tag("p", "a < b & c", Html("<br>"), None) == "<p>a &lt; b &amp; c<br></p>"


def test_attributes_are_escaped_and_none_is_skipped() -> None:
    assert tag("a", class_='x" onload="y', aria_label="&", title=None) == (
        '<a class="x&quot; onload=&quot;y" aria-label="&amp;"></a>'
    )


@given(st.lists(st.text(), max_size=4))
def test_no_text_can_open_an_element(parts: list[str]) -> None:
    assert "<" not in join(parts, between="<>")
    assert isinstance(join(parts), Html)


def test_a_document_may_load_nothing_and_escapes_its_title() -> None:
    page = document("<script>", tag("p", "x"), ["p { color: red }"])
    assert "default-src 'none'" in page
    assert "<title>&lt;script&gt;</title>" in page
    assert "<main><p>x</p></main>" in page
    assert "<style>p { color: red }</style>" in page


def test_stylesheets_are_part_of_the_package() -> None:
    assert "--paper" in stylesheet("t5smith.pages", "theme.css")
