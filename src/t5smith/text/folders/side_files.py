"""Side files by their names: what lies beside the text of a folder and is not read with it.

A card, a licence, check sums, scripts, images, marks of other programs. A file that is named by itself, or
by a glob, is always read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from t5smith.text.recognition import format_by_name

_TEXT_ENDING = r"(\.(md|markdown|mkd|txt|rst|adoc|html?|pdf|cff|bib|gz))*"
_KINDS: Mapping[str, str] = {
    "readme": rf"(readme|read[-_]me)([._-]\w+)?{_TEXT_ENDING}",
    "licence": rf"(un)?licen[cs]es?([._-][\w.-]+?)?{_TEXT_ENDING}|(copying|copyright|eula){_TEXT_ENDING}"
    r"|terms[-_ ]of[-_ ]use.*",
    "notice": r"(notice|citation|authors|contributors|contributing|code_of_conduct|security|changelog"
    rf"|changes){_TEXT_ENDING}",
    "check sums": r".+\.(sha\d+|sha\d+sums?|md5|md5sums?|sfv|crc|crc32|b2|b3|blake[23]\w?|asc|sig|minisig)"
    r"|.*(sha\d*|md5|check|b2|crc32?)[-_]?sums?(\.(txt|sha\d+|md5))?|(md5|sha\d+|checksum)s?(\.txt)?",
    "script or setting": r".+\.(py|pyc|ipynb|sh|bash|zsh|fish|bat|cmd|ps1|pl|awk|sed|slurm|sbatch|ya?ml"
    r"|toml|ini|cfg|conf|mk)|makefile|dockerfile|requirements(-\w+)?\.txt",
    "description of a data set": r"dataset_(infos?|dict)\.json|datapackage\.json|croissant\.json"
    r"|(_common)?_metadata",
    "image, sound or video": r".+\.(png|jpe?g|gif|svg|webp|bmp|ico|tiff?|heic|mp3|wav|flac|ogg|opus|m4a"
    r"|mp4|mkv|mov|avi|webm)",
    "part of a web page": r".+\.(css|js|woff2?|ttf)|robots\.txt|sitemap\.xml",
    "mark of a program": r".+\.(lock|idx|done|success)|_success|_(committed|started)_.*|thumbs\.db"
    r"|desktop\.ini|wget-log(\.\d+)?|nohup\.out",
    "unfinished or old copy": r".+(~|\.(part|partial|crdownload|aria2|tmp|temp|swp|bak|orig|incomplete))",
}
_SIDE = re.compile("|".join(f"(?P<k{i}>{names})" for i, names in enumerate(_KINDS.values())), re.IGNORECASE)
_NAMES = tuple(_KINDS)
_PROSE = ("readme", "licence", "notice")
"""What is written for people; a file of records with such a name, as `license.jsonl`, has data."""
_UPPER = re.compile(r"[A-Z][A-Z_]*(\..+)?")
"""How notices are written: a text may well be called `security.txt` or `changes.txt`."""
_LISTING = re.compile(rb"<title>\s*(Index of /|Directory listing for /)", re.IGNORECASE)
_NO_FOLDERS = {"__pycache__", "__macosx", "_temporary", "_delta_log", "node_modules", "lost+found"}
HIDDEN = "hidden"
LISTING = "listing of a server"


def side_file(name: str) -> str:
    """What kind of side file has this name, without its folder; "": none."""
    if name.startswith("."):
        return HIDDEN
    if not (found := _SIDE.fullmatch(name)):
        return ""
    kind = _NAMES[int(str(found.lastgroup)[1:])]
    if kind in _PROSE and (_has_records(name) or (kind == "notice" and not _UPPER.fullmatch(name))):
        return ""
    return kind


def _has_records(name: str) -> bool:
    return format_by_name(name) not in ("", "html")


def side_folder(name: str) -> str:
    """What kind of folder without text has this name; "": none."""
    if name.startswith("."):
        return HIDDEN
    return "folder of a program" if name.lower() in _NO_FOLDERS else ""


def is_listing(file: Path) -> bool:
    """Whether a file `index.html` is the list of a server's folder, as `wget -r` fetches it."""
    if not file.name.lower().startswith("index.html"):
        return False
    try:
        with file.open("rb") as stream:
            return _LISTING.search(stream.read(2048)) is not None
    except OSError:
        return False  # reading it has the error
