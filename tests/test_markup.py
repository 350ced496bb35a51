import pytest

from hotfolder.markup import Html, bdi, join, link, tag


def test_text_is_escaped_and_html_is_not() -> None:
    assert tag("p", "a < b & c", tag("b", "x"), class_="note") == '<p class="note">a &lt; b &amp; c<b>x</b></p>'
    assert join("<", Html("<br>")) == "&lt;<br>"


def test_an_attribute_cannot_be_left() -> None:
    assert tag("img", alt='"><script>') == '<img alt="&quot;&gt;&lt;script&gt;">'


def test_an_attribute_that_is_html_already_is_not_escaped_again() -> None:
    assert tag("img", src=Html("data:,a&amp;b")) == '<img src="data:,a&amp;b">'


def test_names_of_attributes_are_those_of_html_and_empty_ones_are_left_out() -> None:
    assert tag("nav", aria_label="Pages", class_="") == '<nav aria-label="Pages"></nav>'


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("a/b c.png", "a/b%20c.png"),
        ("50%.png", "50%25.png"),
        ("a#1?x.png", "a%231%3Fx.png"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("größe.png", "gr%C3%B6%C3%9Fe.png"),
        ("\udcff.png", "%FF.png"),
    ],
)
def test_a_link_leads_to_the_file_whatever_its_name(path: str, href: str) -> None:
    assert link(path, "x") == f'<a href="{href}"><bdi>x</bdi></a>'


def test_codes_and_marks_that_turn_text_around_are_shown_as_codes() -> None:
    assert bdi("a\x1b[31m\u202egnp.exe\udcff\x00") == "<bdi>a\\x1b[31m\\u202egnp.exe\\udcff\\x00</bdi>"
    assert bdi("two\nlines\t👩‍👩‍👧 ü") == "<bdi>two\nlines\t👩‍👩‍👧 ü</bdi>"
