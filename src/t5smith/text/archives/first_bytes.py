"""What first bytes show of an archive: whether it is one, and whether it is a document of some program."""

from __future__ import annotations

import re

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of a zip archive, and of one without members."""
TAR_BLOCK = 512

_FIRST = re.compile(rb"PK\x03\x04.{22}(..)..", re.DOTALL)
_OFFICE = re.compile(rb"\[Content_Types\]\.xml|_rels/|docProps/|word/|xl/|ppt/")
"""Members with which documents of Office begin; programs write them in different orders."""
_APPLICATIONS = (
    (_OFFICE, b"PK\x03\x04.{26}word/", "a Word document (.docx)"),
    (_OFFICE, b"PK\x03\x04.{26}xl/", "an Excel workbook (.xlsx)"),
    (_OFFICE, b"PK\x03\x04.{26}ppt/", "a PowerPoint presentation (.pptx)"),
    (_OFFICE, b"", "a document of Microsoft Office"),
    (re.compile(rb"mimetype"), rb"application/epub\+zip", "an EPUB book"),
    (re.compile(rb"mimetype"), rb"opendocument\.text", "an OpenDocument text (.odt)"),
    (re.compile(rb"mimetype"), rb"opendocument\.", "an OpenDocument file"),
    (re.compile(rb"META-INF/"), b"", "a Java archive (.jar)"),
    (re.compile(rb"AndroidManifest\.xml"), b"", "an Android app (.apk)"),
    (re.compile(rb"[^/]*/data\.pkl"), b"", "a PyTorch file"),
    (re.compile(rb"[^/]+\.npy"), b"", "a NumPy archive (.npz)"),
)
"""The name of the first member, what else is among the first bytes, and what the file is."""


def archive_kind(head: bytes) -> str:
    """`zip` or `tar`, if a file begins as one; otherwise ""."""
    if head.startswith(ZIP) and b"\0" in head[:64]:
        return "zip"
    if len(head) < TAR_BLOCK:
        return ""
    return "tar" if head[257:262] == b"ustar" or is_tar_header(head[:TAR_BLOCK]) else ""


def is_tar_header(block: bytes) -> bool:
    """Whether a block is the header of a member of a tar archive, by its check sum."""
    try:
        stated = int(block[148:156].rstrip(b" \0").lstrip() or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + 8 * 32 + sum(block[156:])


def application(head: bytes) -> str:
    """Which program's document a zip archive is, by its first members; "": it is an ordinary one."""
    found = _FIRST.match(head)
    if not found:
        return ""
    name = head[30 : 30 + int.from_bytes(found[1], "little")]
    for first, more, what in _APPLICATIONS:
        if first.match(name) and (not more or re.search(more, head, re.DOTALL)):
            return what
    return ""
