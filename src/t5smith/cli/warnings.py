"""Warnings of what a model did not do with the texts of `t5smith generate`."""

from __future__ import annotations

from collections.abc import Sequence

from t5smith.base.progress import warn
from t5smith.base.wrapping import pluralize
from t5smith.generation.completion import Completion

SHOWN = 60
"""Characters of a text in a message."""


def warn_of_completions(
    texts: Sequence[str], completions: Sequence[Completion | None], max_new_tokens: int
) -> None:
    """Warn of texts in which nothing is masked, of output that was cut, and of sentinels without an answer.

    Args:
      texts: as they were given.
      completions: of each text; None: it is a blank line.
      max_new_tokens: the most tokens per text.
    """
    pairs = zip(texts, completions, strict=True)
    done = [(f"text {number}", text, one) for number, (text, one) in enumerate(pairs, 1) if one]
    unmasked = [text for _, text, one in done if not one.fills and not one.continued]
    if unmasked:
        have = "has" if len(unmasked) == 1 else "have"
        which = f"{pluralize(len(unmasked), 'text')} {have} no <extra_id_0> to mark missing words"
        warn(f"{which}: {unmasked[0][:SHOWN]!r}")
    several = len(done) > 1
    if cut := [name for name, _, one in done if one.cut]:
        which = f"{len(cut):,} of {len(done):,} outputs were" if several else "the output was"
        first = f", the first of {cut[0]}" if several else ""
        warn(f"{which} cut at {pluralize(max_new_tokens, 'token')} (--max-new-tokens){first}")
    if left := [(name, ", ".join(one.unanswered)) for name, _, one in done if one.unanswered]:
        name, sentinels = left[0]
        what = f"the model did not fill in {sentinels}, left as it is"
        if several:
            what = (
                f"the model left sentinels of {len(left):,} of {len(done):,} texts as they are, the first: "
            )
            what += f"{sentinels} of {name}"
        warn(what)
