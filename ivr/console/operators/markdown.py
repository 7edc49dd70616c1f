"""A model card as HTML, for a page that has a heading of its own. What is HTML in it stays text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_TABLE = '<div class="wide" tabindex="0" role="group" aria-label="{}">'


def to_html(text: str, pictures: Mapping[str, str], table: str = "Table") -> Markup:
    """``pictures``: addresses of those that may be shown. Other pictures, and links within the repository, are text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    shown: list[Token] = []
    for number, token in enumerate(tokens):
        if token.type == "th_open" and not tokens[number + 1].content:
            token.tag = tokens[number + 2].tag = "td"  # heads nothing
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"
        if token.children:
            token.children = _inline(token.children, pictures)
        opens, closes = token.type == "table_open", token.type == "table_close"
        shown += [_raw(_TABLE.format(table)), token] if opens else [token, _raw("</div>")] if closes else [token]
    return Markup(markdown.renderer.render(shown, markdown.options, {}))


def _inline(tokens: Sequence[Token], pictures: Mapping[str, str]) -> list[Token]:
    shown: list[Token] = []
    dropped = False
    for token in tokens:
        if token.type == "link_open" and not str(token.attrs["href"]).startswith("https://"):
            dropped = True
        elif token.type == "link_close" and dropped:
            dropped = False
        elif token.type == "image" and str(token.attrs["src"]) not in pictures:
            shown += token.children or []
        else:
            if token.type == "image":
                token.attrs["src"] = pictures[str(token.attrs["src"])]
            shown.append(token)
    return shown


def _raw(html: str) -> Token:
    return Token("html_block", "", 0, content=html)
