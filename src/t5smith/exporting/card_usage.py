"""The model card's code: loading the model, filling in or continuing a text, adding tokens.

It runs as printed from the exported folder, in transformers 4.57 and 5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from t5smith.model.config import ModelConfig
from t5smith.objective.denoisers import Denoiser

UNTIED = """model.config.tie_word_embeddings = False  # for transformers 5, see below
"""
TRANSFORMERS_5 = """\
transformers 5 takes the head of every T5 to be tied to its embedding. It loads this model, whose head is not
tied, correctly, and prints a warning. But without the line that sets `tie_word_embeddings`,
`resize_token_embeddings` replaces the head by the embedding, and `save_pretrained` writes
`tie_word_embeddings: true`, with which transformers 4 ties them too. With that line, both versions load what
either of them has saved.
"""
ENCODER_USAGE = """\
## Use

```python
from transformers import AutoTokenizer, T5EncoderModel

folder = "."  # the folder of this file, or the name of the model on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = T5EncoderModel.from_pretrained(folder)
inputs = tokenizer(["Your text", "Another, longer text"], padding=True, return_tensors="pt")
vectors = model(**inputs).last_hidden_state  # (texts, tokens, d_model)
mask = inputs.attention_mask[..., None]
print(((vectors * mask).sum(1) / mask.sum(1)).shape)  # one vector per text: the mean of its tokens
```

The folder has no decoder. The scores below are of the whole model; as vectors of texts, these means are
untested: train the encoder on pairs of similar texts before you search with it.
"""


def loaded(config: ModelConfig) -> str:
    """The lines of code that load tokenizer and model from the folder of the card."""
    return f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder = "."  # the folder of this file, or the name of the model on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSeq2SeqLM.from_pretrained(folder)
{"" if config.tie_word_embeddings else UNTIED}"""


def usage(config: ModelConfig, denoisers: Sequence[Denoiser]) -> str:
    """The sections on using the model and adding tokens to it, as Markdown."""
    return f"""## Use

```python
{loaded(config)}\
inputs = tokenizer({_prompt(denoisers)}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```

{_answer(denoisers)}

To add tokens before fine-tuning:

```python
tokenizer.add_tokens(["<my-token>"])
if len(tokenizer) > model.config.vocab_size:
    model.resize_token_embeddings(len(tokenizer))
```

{_spare_rows(config)}
{"" if config.tie_word_embeddings else chr(10) + TRANSFORMERS_5}"""


def is_prefix(denoiser: Denoiser) -> bool:
    """Whether a denoiser has the end of a text predicted, not spans of it."""
    return denoiser.mean_noise_span_length is None


def _shown(denoisers: Sequence[Denoiser]) -> Denoiser:
    """The denoiser that the example is for: the first that masks spans, if there is one."""
    return min(denoisers, key=is_prefix)


def _prompt(denoisers: Sequence[Denoiser]) -> str:
    """A string literal of Python with a text for the model."""
    shown = _shown(denoisers)
    text = "The beginning of a text" if is_prefix(shown) else "Your text with a <extra_id_0> to fill in"
    return json.dumps(f"{shown.prefix} {text}".lstrip(), ensure_ascii=False)


def _answer(denoisers: Sequence[Denoiser]) -> str:
    """What the model writes, and which mode token is for what."""
    fills = "writes `<extra_id_0>` and the missing text, then `<extra_id_1>` and so on"
    continues = "continues the text"
    spans, prefix = ([d for d in denoisers if is_prefix(d) == wanted] for wanted in (False, True))
    if not any(denoiser.prefix for denoiser in denoisers):
        answers = ([fills] if spans else []) + ([continues] if prefix else [])
        return f"The model {' or '.join(answers)}."
    lines = ["The model was trained with a mode token before each text, which says what to do:", ""]
    for kind, what in ((spans, fills), (prefix, continues)):
        for mode in dict.fromkeys(denoiser.prefix for denoiser in kind):
            trained = "; ".join(denoiser.title for denoiser in kind if denoiser.prefix == mode)
            name = f"`{mode}`" if mode else "no mode token"
            lines.append(f"- {name}: the model {what} (trained with {trained})")
    return "\n".join(lines)


def _spare_rows(config: ModelConfig) -> str:
    spare = config.vocab_size - config.real_vocab_size
    if not spare:
        return "Every row of the embedding has a token, so any token that you add needs a new row."
    rows = "row of the embedding has" if spare == 1 else "rows of the embedding have"
    return f"""{spare} {rows} no token yet, for tokens that you add: only more of them need new rows. A row
without a token is never the most probable: in the head it is the mean of all rows that have one."""
