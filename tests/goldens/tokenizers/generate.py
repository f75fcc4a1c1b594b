"""Trains tiny byte-level BPE tokenizers with Hugging Face's tokenizers, and writes the ids that it gives for some texts.

pip install tokenizers; python3 tests/goldens/tokenizers/generate.py

One folder for each pre-tokenizer: tokenizer.json, and ids.jsonl with {"text": ..., "ids": [...]} a line.
"""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)

CORPUS = [
    "A fermata is the sign over a note that says: hold it, for as long as the conductor wants.",
    "The orchestra waits, and then it goes on with the very same note: 12 bars, 345 beats, 6789 strokes.",
    "I'll say it's what they've done; we'd hold, you're holding, I'm HOLDING. DON'T stop, IT'S fine.",
    "    for (int i = 0; i < 100; ++i) {\n        sum += values[i];\n    }\n\n\n\treturn sum;\r\n",
    "Größe, façade, naïve, señor; Привет, мир; 你好，世界; こんにちは; مرحبا; 😀🎼🎵",
] * 4

TEXTS = CORPUS[:5] + [
    "", " ", "  ", "\n", " \n \n", "\t\ttabs", "a  b   c    d", "trailing   ", "'S 'T 'LL we'Ve don'T", "x'y''z",
    "1", "12", "123", "1234", "1234567 and 3.14159", "½ ² Ⅷ ٣٤٥", "e\u0301 and é", "\u00a0nbsp\u2003em\u3000wide",
    "!!!\n\n???\r\n...", "hello_world.foo(bar)->baz", "🏳️‍🌈👩‍👩‍👧", "नमस्ते", "ſ Kelvin: \u212a's \u017f'\u017f",
    "<|one|> is <|two|>special<|one|><|one|>", "the the the holdhold note conductor", "\x00\x01\x7f",
]

KINDS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
    "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
}


def main():
    for name, pre_tokenizer in KINDS.items():
        tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
        tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                      show_progress=False)
        tokenizer.train_from_iterator(CORPUS, trainer)
        tokenizer.add_special_tokens([AddedToken("<|one|>", special=True)])
        tokenizer.add_tokens([AddedToken("<|two|>", special=False, normalized=False)])
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        with open(folder / "ids.jsonl", "w", encoding="utf-8") as file:
            for text in TEXTS:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                file.write(json.dumps(dict(text=text, ids=ids)) + "\n")


if __name__ == "__main__":
    main()
