"""Writes tiny models with random weights, and the logits that a plain float64 reference computes of them.

python3 tests/goldens/families/generate.py [--check]

Needs numpy. The reference below is written from the papers and the configurations alone, in the pairing that these
weights are made for (element i of a head with i + half). With --check nothing is written: the logits on file are
compared with those of Hugging Face's transformers (and torch), where these are installed.
"""

import argparse
import json
import math
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).parent
TOKENS = [1, 17, 60, 3, 3, 88, 42, 96, 0, 5, 71, 23, 9, 9, 54, 31, 2, 80, 66, 12]

COMMON = dict(hidden_act="silu", max_position_embeddings=256, num_hidden_layers=2, vocab_size=97)
CONFIGS = {
    "qwen2": dict(COMMON, model_type="qwen2", architectures=["Qwen2ForCausalLM"], hidden_size=64,
                  intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
                  rope_theta=1000000.0, tie_word_embeddings=True, use_sliding_window=False, sliding_window=16),
    "qwen3": dict(COMMON, model_type="qwen3", architectures=["Qwen3ForCausalLM"], hidden_size=48,
                  intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6,
                  rope_theta=1000000.0, tie_word_embeddings=False, attention_bias=False, use_sliding_window=False),
    "llama3": dict(COMMON, model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=32,
                   intermediate_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-5,
                   rope_theta=10000.0, tie_word_embeddings=False,
                   rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=64)),
}
DTYPES = {"qwen2": "BF16", "qwen3": "F16", "llama3": "F32"}


def make_weights(config, dtype, rng):
    hidden, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim", hidden // heads)
    ffn, vocab = config["intermediate_size"], config["vocab_size"]
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        shapes[p + "input_layernorm.weight"] = (hidden,)
        shapes[p + "post_attention_layernorm.weight"] = (hidden,)
        for name, rows in (("q", heads * size), ("k", kv_heads * size), ("v", kv_heads * size)):
            shapes[p + f"self_attn.{name}_proj.weight"] = (rows, hidden)
            if config["model_type"] == "qwen2":
                shapes[p + f"self_attn.{name}_proj.bias"] = (rows,)
            if config["model_type"] == "qwen3" and name != "v":
                shapes[p + f"self_attn.{name}_norm.weight"] = (size,)
        shapes[p + "self_attn.o_proj.weight"] = (hidden, heads * size)
        shapes[p + "mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[p + "mlp.up_proj.weight"] = (ffn, hidden)
        shapes[p + "mlp.down_proj.weight"] = (hidden, ffn)
    weights = {}
    for name, shape in shapes.items():
        if "norm" in name:
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("bias"):
            values = rng.normal(0, 0.5, shape)
        else:
            values = rng.normal(0, 1.5 / math.sqrt(shape[-1]), shape)
        weights[name] = round_to(values.astype(np.float32), dtype)
    return weights


def round_to(values, dtype):
    """Cut to what `dtype` can hold, so that both sides see the same numbers."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "BF16":
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def to_bytes(values, dtype):
    values = np.ascontiguousarray(values)
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype("<f4").tobytes()


def save_safetensors(path, weights, dtype):
    header, data = {}, b""
    for name, values in sorted(weights.items()):
        raw = to_bytes(values, dtype)
        header[name] = dict(dtype=dtype, shape=list(values.shape), data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def frequencies(config, size):
    inverse = config["rope_theta"] ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    scaling = config.get("rope_scaling")
    if scaling is None:
        return inverse
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    scaled = []
    for f in inverse:
        wavelength = 2 * math.pi / f
        if wavelength < original / high:
            scaled.append(f)
        elif wavelength > original / low:
            scaled.append(f / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * f / factor + smooth * f)
    return np.array(scaled)


def norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def rope(x, angles):
    """x [tokens, heads, size], angles [tokens, size / 2]."""
    half = x.shape[-1] // 2
    cosine, sine = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def reference_logits(config, weights, tokens):
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim", config["hidden_size"] // heads)
    epsilon, count = config["rms_norm_eps"], len(tokens)
    angles = np.outer(np.arange(count), frequencies(config, size))
    x = w["model.embed_tokens.weight"][tokens]
    mask = np.triu(np.full((count, count), -np.inf), 1)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        h = norm(x, w[p + "input_layernorm.weight"], epsilon)
        qkv = {}
        for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            y = h @ w[p + f"self_attn.{name}_proj.weight"].T + w.get(p + f"self_attn.{name}_proj.bias", 0)
            y = y.reshape(count, n, size)
            if p + f"self_attn.{name}_norm.weight" in w:
                y = norm(y, w[p + f"self_attn.{name}_norm.weight"], epsilon)
            qkv[name] = y if name == "v" else rope(y, angles)
        k, v = (np.repeat(qkv[n], heads // kv_heads, axis=1) for n in "kv")
        scores = np.einsum("qhd,khd->hqk", qkv["q"], k) / math.sqrt(size) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        attention = np.einsum("hqk,khd->qhd", scores, v).reshape(count, heads * size)
        x = x + attention @ w[p + "self_attn.o_proj.weight"].T
        h = norm(x, w[p + "post_attention_layernorm.weight"], epsilon)
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, w["model.norm.weight"], epsilon) @ head.T


def write():
    for seed, (name, config) in enumerate(CONFIGS.items(), start=1):
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        dtype = DTYPES[name]
        weights = make_weights(config, dtype, np.random.default_rng(seed))
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_safetensors(folder / "model.safetensors", weights, dtype)
        logits = reference_logits(config, weights, TOKENS)
        (folder / "tokens.bin").write_bytes(np.array(TOKENS, "<i4").tobytes())
        (folder / "logits.bin").write_bytes(logits.astype("<f4").tobytes())


def check():
    import torch
    import transformers

    for name in CONFIGS:
        model = transformers.AutoModelForCausalLM.from_pretrained(HERE / name, torch_dtype=torch.float32)
        logits = model(torch.tensor([TOKENS])).logits[0].detach().numpy()
        expected = np.fromfile(HERE / name / "logits.bin", "<f4").reshape(logits.shape)
        print(json.dumps(dict(model=name, largest_difference=float(np.abs(logits - expected).max()))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check() if parser.parse_args().check else write()
