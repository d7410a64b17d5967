"""Brings the corpora and tokenizers of the published studies below data/, where their configs look for them.

    pip install datasets huggingface_hub
    python configs/corpora.py cosmopedia [DOCUMENTS]    data/cosmopedia-v2.jsonl, data/smollm-135m/tokenizer.json
    python configs/corpora.py wikitext                  data/wikitext-103/*.txt, data/gpt2/tokenizer.json

Cosmopedia is streamed: the first 70,000 documents by default, as many as the largest of the configs uses; the others take
the first of them. WikiText-103 (raw) is written as it was made, a row after the other, in 19 files of training text and one
of validation text, so that the last of 20 "documents" is the validation side.
"""

import json
import sys
from pathlib import Path

from datasets import load_dataset
from huggingface_hub import hf_hub_download

TRAINING_FILES = 19


def cosmopedia(documents: int = 70_000) -> None:
    hf_hub_download("HuggingFaceTB/SmolLM-135M", "tokenizer.json", local_dir="data/smollm-135m")
    rows = load_dataset("HuggingFaceTB/smollm-corpus", "cosmopedia-v2", split="train", streaming=True)
    with open("data/cosmopedia-v2.jsonl", "w", encoding="utf-8", newline="\n") as file:
        for row in rows.take(documents):
            file.write(json.dumps({"text": row["text"]}, ensure_ascii=False) + "\n")


def wikitext() -> None:
    hf_hub_download("openai-community/gpt2", "tokenizer.json", local_dir="data/gpt2")
    folder = Path("data/wikitext-103")
    folder.mkdir(parents=True, exist_ok=True)
    for side, files in (("train", TRAINING_FILES), ("validation", 1)):
        rows = load_dataset("Salesforce/wikitext", "wikitext-103-raw-v1", split=side)["text"]
        for part in range(files):
            begin, end = len(rows) * part // files, len(rows) * (part + 1) // files
            name = f"{side}-{part:02}.txt" if files > 1 else f"{side}.txt"
            (folder / name).write_text("".join(rows[begin:end]), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cosmopedia"]:
            cosmopedia()
        case ["cosmopedia", documents]:
            cosmopedia(int(documents))
        case ["wikitext"]:
            wikitext()
        case _:
            sys.exit(__doc__)
