"""What a user does with an exported folder in transformers: run here in version 5, in .venv4 in version 4.57.

As a program: the name of a function, its arguments as JSON; prints its result as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

TEXTS = ["Alle <extra_id_0> er født", "Menn og kvinner"]
NEW = ["<første>", "<andre>"]


def run_card(folder: str) -> dict[str, object]:
    """Run the code blocks of a model card, as printed, in its folder."""
    blocks = re.findall(
        r"```python\n(.*?)```", Path(folder, "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(block, names)
    model, tokenizer = names["model"], names["tokenizer"]
    return {
        "blocks": len(blocks),
        "printed": printed.getvalue(),
        "ids": names["inputs"].input_ids[0].tolist(),
        "tied": model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr(),
        "added": tokenizer.convert_tokens_to_ids("<my-token>"),
        "rows": model.get_input_embeddings().num_embeddings,
    }


def encoder(folder: str, ids: list[list[int]]) -> dict[str, object]:
    """Run the code of an encoder's card, as printed, and encode some ids, 0 being padding."""
    import torch

    text = Path(folder, "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(block, names)
    inputs = torch.tensor(ids)
    with torch.no_grad():
        found = names["model"](input_ids=inputs, attention_mask=(inputs != 0).long())
    return {
        "printed": printed.getvalue(),
        "ids": names["inputs"].input_ids.tolist(),
        "vectors": found.last_hidden_state.tolist(),
        "parameters": sum(one.numel() for one in names["model"].parameters()),
    }


def save_again(folder: str, target: str, as_printed: bool) -> None:
    """Load and save; `as_printed`: with the line about tied weights that the card prints."""
    model = load(folder)
    if as_printed and "tie_word_embeddings = False" in Path(folder, "README.md").read_text(encoding="utf-8"):
        model.config.tie_word_embeddings = False
    model.save_pretrained(target)


def load(folder: str):
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def logits(folder: str) -> list[float]:
    """Some logits."""
    import torch

    inputs = torch.tensor([[3, 9, 40, 5, 1]])
    with torch.no_grad():
        return load(folder)(input_ids=inputs, decoder_input_ids=inputs).logits[0, -1, :64].tolist()


def add_tokens(folder: str, target: str, count: int, resize: bool) -> dict[str, object]:
    """Add tokens, fine-tune the model to answer two texts with one each, generate before and after, save."""
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load(folder)
    model.config.tie_word_embeddings = model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr()
    tokenizer.add_tokens([*NEW, *(f"<ny_{number}>" for number in range(count - len(NEW)))])
    if resize:
        model.resize_token_embeddings(len(tokenizer))
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    ids = tokenizer.convert_tokens_to_ids(NEW)
    answers = torch.tensor([[number, tokenizer.eos_token_id] for number in ids])

    def generate() -> list[list[int]]:
        return model.generate(**inputs, max_new_tokens=4)[:, 1:].tolist()

    before = generate()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        loss = model(**inputs, labels=answers).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.05:
            break
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return {"ids": ids, "before": before, "after": generate(), "saved": generate_from(target)}


def generate_from(folder: str) -> list[list[int]]:
    """What the model in a folder writes for the texts."""
    from transformers import AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, return_tensors="pt", padding=True)
    return load(folder).generate(**inputs, max_new_tokens=4)[:, 1:].tolist()


if __name__ == "__main__":
    import transformers

    assert transformers.__version__.startswith("4.57"), transformers.__version__
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
