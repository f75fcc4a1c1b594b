"""Writes small models of random weights with transformers, and their logits by transformers, for family_check.

python3 tests/kernels/cuda/write_families.py FOLDER

Needs torch and transformers. Each folder in FOLDER is what save_pretrained() writes, in bfloat16, with tokens.bin
(int32), logits.bin and logits_bf16.bin (float32): computed in float32 on the CPU, and in bfloat16, on a GPU if there is
one.
"""

import pathlib
import sys

import torch
import transformers

TOKENS = 70

COMMON = dict(vocab_size=1003, num_hidden_layers=3, hidden_act='silu', max_position_embeddings=256)
MODELS = {
    'llama': transformers.LlamaConfig(
        hidden_size=256, intermediate_size=520, num_attention_heads=8, num_key_value_heads=2, head_dim=64,
        rope_parameters=dict(rope_type='llama3', rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=64), **COMMON),
    'mistral': transformers.MistralConfig(
        hidden_size=384, intermediate_size=520, num_attention_heads=4, num_key_value_heads=1, head_dim=80,
        sliding_window=None, **COMMON),
    'qwen2': transformers.Qwen2Config(
        hidden_size=512, intermediate_size=520, num_attention_heads=4, num_key_value_heads=4,
        tie_word_embeddings=True, **COMMON),
    'qwen3': transformers.Qwen3Config(
        hidden_size=256, intermediate_size=520, num_attention_heads=6, num_key_value_heads=2, head_dim=128, **COMMON),
}


def randomize(model):
    """Every weight counts: norms are not all one, biases not nought."""
    for name, weight in model.named_parameters():
        if 'norm' in name:
            weight.data.uniform_(0.5, 1.5)
        elif name.endswith('bias'):
            weight.data.normal_(0, 0.5)
        else:
            weight.data.normal_(0, weight.shape[-1] ** -0.5)
        weight.data = weight.data.bfloat16().float()


def logits_of(model, tokens):
    with torch.no_grad():
        return model(tokens.to(model.device)).logits[0].float().cpu().numpy()


def main():
    folder = pathlib.Path(sys.argv[1])
    for seed, (name, config) in enumerate(MODELS.items(), start=1):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation='eager')
        model = model.float().eval()
        randomize(model)
        tokens = torch.randint(config.vocab_size, (1, TOKENS))
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        tokens[0].int().numpy().tofile(path / 'tokens.bin')
        logits_of(model, tokens).tofile(path / 'logits.bin')
        model = model.bfloat16()
        model.save_pretrained(path)
        # Angles of rotary positions stay in float32 only in a model that is loaded.
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16,
                                                                  attn_implementation='eager').eval()
        if torch.cuda.is_available():
            model = model.cuda()
        logits_of(model, tokens).tofile(path / 'logits_bf16.bin')
        print(path, flush=True)


if __name__ == '__main__':
    main()
