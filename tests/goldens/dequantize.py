"""Random blocks of weights and what PyPI's gguf makes of them: python3 dequantize.py > dequantize.jsonl"""
import json

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

BLOCKS = 3
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208]}

random = np.random.default_rng(7)
for name, offsets in HALVES.items():
    kind = GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for offset in offsets:
        # About 2^-7, either sign.
        blocks[:, offset + 1] = 0x20 | (blocks[:, offset + 1] & 0x8F)
    values = dequantize(blocks.reshape(1, -1), kind).astype("<f4").reshape(-1)
    assert values.size == BLOCKS * elements
    print(json.dumps({"type": name, "blocks": blocks.tobytes().hex(), "values": values.tobytes().hex()}))
