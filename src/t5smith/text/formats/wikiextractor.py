"""Documents of WikiExtractor's files: one `<doc id="…" url="…" title="…">` … `</doc>` per article.

The format is that of https://github.com/attardi/wikiextractor, versions 2 and 3: below the opening line the
title, a blank line and the text, all on lines of their own. Version 3 writes the text with `html.escape`,
version 2 with an option alone. The title is as it is in the XML of the dump.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from t5smith.base.errors import T5smithError
from t5smith.text.formats.plain import BOM, Lines, Positioned, too_long

BEGIN = re.compile(rb'<doc id="[^"\n]*"[^\n]* url="[^\n]*" title="([^\n]*?)"(?: \w+="[^"\n]*")*>\s*(?:\n|$)')
"""The line that opens a document. Quotes in its title are not escaped; some versions write more behind it."""
_END = re.compile(rb"</doc>\s*")
_ESCAPED = ("&amp;", "&lt;", "&gt;")
_ENTITY = re.compile("&(amp|lt|gt|quot|#0?39);")
_CHARACTERS = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "#39": "'", "#039": "'"}


def wiki_documents(lines: Lines) -> Iterator[Positioned]:
    """One document per `<doc>`: its title and text. Its position is that of its opening line.

    An article without text is counted as empty. Without `</doc>` before the next one or the end of the file
    the text may be incomplete: the document is skipped and counted. So is each stretch of lines between
    documents, which belongs to the block of the document before.
    """
    blocks, records = lines.blocks, lines.records
    held: list[str] = []
    title, position, first, size = b"", blocks.start, 1, 0
    # A reader that starts in the middle cannot tell what the lines before the first `<doc>` are.
    ours, within, broken = not blocks.start and blocks.includes(blocks.block_of(0)), False, False
    for raw in lines.raw():
        if raw[:3] == BOM:
            raw = raw[3:] or b"\n"  # files were joined
        if raw[:5] == b"<doc " and (begin := BEGIN.match(raw)):
            if ours and within and not broken:
                records.skip("without </doc>", _unfinished(lines, first))
            if blocks.stop is not None and lines.position >= blocks.stop:
                return
            title, position, first, size = begin[1], lines.position, lines.number, 0
            held, within, broken = [], True, False
            ours = blocks.includes(blocks.block_of(position))
            yield position, None
        elif not ours or broken:
            # Of a stretch between documents, the first line is counted.
            if within and _END.fullmatch(raw):
                within = broken = False
        elif not within:
            if not raw.isspace():
                broken = True
                what = "text outside of <doc> and </doc>"
                records.skip("text between documents", T5smithError(what, where=lines.here))
        elif raw[:6] == b"</doc>" and _END.fullmatch(raw):
            within = False
            text = _text(held, title)
            if text:
                yield position, lines.document(text, first)
            else:
                records.skip("empty pages", T5smithError("an article without text", where=lines.here))
        else:
            line = lines.decoded(raw)
            size += len(raw)
            if line is not None and size > lines.longest:
                records.skip("too long", too_long(lines))
                line = None
            broken = line is None
            held.append(line or "")
    if ours and within and not broken and not lines.damaged:
        records.skip("without </doc>", _unfinished(lines, first))
    yield lines.last, None


def _unfinished(lines: Lines, line: int) -> T5smithError:
    what = "a document without </doc>, so it may be incomplete"
    where = lines.document("", line).where
    return T5smithError(what, where=where, fix="run WikiExtractor again, or add the line")


def _text(held: Sequence[str], title: bytes) -> str:
    """The lines of a document as text; "" if there are none besides the title."""
    text = "\n".join(held).strip("\n")
    head, _, body = text.partition("\n")
    if head.encode() == title:
        if not body or body.isspace():
            return ""
        head = _ENTITY.sub(lambda entity: _CHARACTERS[entity[1]], head)
    else:
        head, body = "", text
    # What `html.escape` wrote has no brackets, and no other entities.
    escaped = "<" not in body and ">" not in body and body.count("&") == sum(map(body.count, _ESCAPED))
    if escaped:
        body = body.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return f"{head}\n{body}" if head else body if not body.isspace() else ""
