"""The model card's front matter for the Hub: YAML with language, licence, data sets and tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from t5smith.recipe.recipe import Recipe

_LICENSES = """
 apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr unknown"""
LICENSES = frozenset(_LICENSES.split())
"""Identifiers that the Hub knows (huggingface.co/docs/hub/repositories-licenses); others are `other`."""
_LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])", re.IGNORECASE)
_HUB_MODEL = re.compile(r"(?:hf:)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|(?:m|by)?t5-[\w.-]+)(?:@\S+)?")
_HUB_FILE = re.compile(r"hf://datasets/([^/@]+(?:/[^/@]+)?)[@/]")


def front_matter(recipe: Recipe, files: Iterable[Mapping[str, Any]], *, encoder_only: bool = False) -> str:
    """The YAML between the two lines of hyphens.

    Args:
      recipe: names language and licence.
      files: fingerprints of the files of text, from the manifest of the store.
      encoder_only: whether the model is an encoder alone.
    """
    fields: dict[str, str | list[str]] = {}
    if language := _LANGUAGE.match(recipe.language):
        fields["language"] = language[0].lower()
    fields |= license_fields(recipe.license)
    if base := hub_model(recipe.train.init_from):
        fields["base_model"] = base
    fields["library_name"] = "transformers"
    fields["tags"] = ["t5", "feature-extraction" if encoder_only else "text2text-generation", "t5smith"]
    if datasets := hub_datasets(files):
        fields["datasets"] = datasets
    return yaml_lines(fields)


def license_fields(name: str) -> dict[str, str]:
    """A licence as the Hub names it; nothing without one."""
    name = name.lower()
    if not name or name in LICENSES:
        return {"license": name} if name else {}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-") or "other"}


def yaml_lines(fields: Mapping[str, str | list[str]]) -> str:
    """Fields as YAML. JSON's strings are YAML's; without quotes the language code `no` would be false."""
    return "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())


def hub_model(name: str) -> str:
    """The name of a model on the Hub, without a revision; "" if it is a path."""
    found = _HUB_MODEL.fullmatch(name)
    return "" if found is None or Path(name).exists() else found[1]


def hub_datasets(files: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the data sets on the Hub that files are from."""
    found = (_HUB_FILE.match(file["name"]) for file in files)
    return list(dict.fromkeys(match[1] for match in found if match))
