"""What a step of decode, and a workload of many requests, take on a card at least: floors, from figures of gpu_bench.

  gpu_bench --warpgroup_products=false --fused_layers=false > products.jsonl
  python3 tools/bench/gpu/floors.py products.jsonl --workload=sharegpt_lengths.csv

A step takes at least its products as the library has them (SwiGLU's traffic is taken off where gpu_bench has it among
them), and the reading of keys and values; never less than the reading of all weights. A workload is simulated with such
steps: first come, first served, prompts in chunks that fill a step, nothing between two steps. For the shapes of Llama
3.1 8B in bfloat16. Prints one JSON object a line.
"""

import argparse
import bisect
import csv
import json
import pathlib

LAYERS = 32
EMBEDDING = 4096
FEED_FORWARD = 14336
VOCABULARY = 128256
LAYER_BYTES = 2 * EMBEDDING * (EMBEDDING + 6144 + 3 * FEED_FORWARD)
HEAD_BYTES = 2 * EMBEDDING * VOCABULARY
TOKEN_BYTES = 2 * 2 * LAYERS * 1024  # of keys and values
DECODES = [(1, 384), (8, 1230), (16, 1152), (64, 1230), (128, 1230), (256, 1230), (512, 720)]


class Card:
    """Seconds by what was measured on it."""

    def __init__(self, lines, head_flops, attention_flops):
        layers = {}
        for line in lines:
            if line['bench'] == 'add':
                self.bytes_per_s = line['tb_per_s'] * 1e12
            if line['bench'] == 'product':
                layers[line['rows']] = layers.get(line['rows'], 0) + line['us'] * 1e-6
        self.rows = sorted(layers)
        self.layers = [layers[rows] - self.swiglu(rows) for rows in self.rows]
        self.head_flops = head_flops
        self.attention_flops = attention_flops

    def swiglu(self, rows):
        """By a kernel of its own, which gpu_bench has for more than 8 rows."""
        return 0 if rows <= 8 else 3 * 2 * FEED_FORWARD * rows / self.bytes_per_s

    def layer(self, rows):
        """The products of one layer, between what was measured."""
        if rows >= self.rows[-1]:
            return self.layers[-1] * rows / self.rows[-1]
        i = bisect.bisect_left(self.rows, rows)
        if self.rows[i] == rows or i == 0:
            return self.layers[i]
        share = (rows - self.rows[i - 1]) / (self.rows[i] - self.rows[i - 1])
        return self.layers[i - 1] + share * (self.layers[i] - self.layers[i - 1])

    def head(self, rows):
        return max(HEAD_BYTES / self.bytes_per_s, HEAD_BYTES * rows / self.head_flops)

    def step(self, rows, outputs, context, attention_flop=0):
        """`context`: tokens whose keys and values are read."""
        products = LAYERS * self.layer(rows) + self.head(outputs)
        return products + context * TOKEN_BYTES / self.bytes_per_s + attention_flop / self.attention_flops

    def decode(self, streams, context):
        bytes_alone = LAYERS * LAYER_BYTES + HEAD_BYTES + streams * context * TOKEN_BYTES
        if streams == 1:
            return bytes_alone / self.bytes_per_s
        return max(bytes_alone / self.bytes_per_s, self.step(streams, streams, streams * context))


class Prompt:
    """A request whose prompt is computed, in chunks."""

    def __init__(self, length, outputs):
        self.length = length
        self.outputs = outputs
        self.done = 0


def simulate(card, requests, slots, budget):
    """Output tokens, seconds and steps of all requests, which are there from the beginning."""
    waiting = [Prompt(*request) for request in reversed(requests)]
    begun, running = [], []  # prompts; [context, outputs left]
    seconds, outputs, steps = 0.0, 0, 0
    while waiting or begun or running:
        rows = len(running)
        context = sum(each[0] for each in running)
        flop = 0
        finished = []
        while rows < budget:
            if not begun:
                if not waiting or len(running) + len(finished) >= slots:
                    break
                begun.append(waiting.pop())
            prompt = begun[0]
            chunk = min(budget - rows, prompt.length - prompt.done)
            flop += 4 * LAYERS * EMBEDDING * chunk * (prompt.done + chunk / 2)
            prompt.done += chunk
            context += prompt.done
            rows += chunk
            if prompt.done == prompt.length:
                finished.append(begun.pop(0))
        tokens = len(running) + len(finished)
        seconds += card.step(rows, tokens, context, flop)
        outputs += tokens
        steps += 1
        running = [[length + 1, left - 1] for length, left in running if left > 1]
        running += [[prompt.length, prompt.outputs - 1] for prompt in finished if prompt.outputs > 1]
    return outputs, seconds, steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('figures', type=pathlib.Path, help='lines of gpu_bench')
    parser.add_argument('--workload', type=pathlib.Path, help='lines of PROMPT,OUTPUT in tokens, after one with names')
    parser.add_argument('--requests', type=int, default=1500, help='of the workload')
    parser.add_argument('--slots', type=int, default=256)
    parser.add_argument('--step_tokens', type=int, default=512)
    parser.add_argument('--head_tflops', type=float, default=690, help='of the output matrix with many rows')
    parser.add_argument('--attention_tflops', type=float, default=600, help="of prefill's attention")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.figures.read_text().splitlines() if line.startswith('{')]
    card = Card(lines, arguments.head_tflops * 1e12, arguments.attention_tflops * 1e12)
    for streams, context in DECODES:
        print(json.dumps({'floor': 'decode', 'streams': streams, 'context': context,
                          'step_ms': round(card.decode(streams, context) * 1e3, 2)}))
    if arguments.workload is None:
        return
    with arguments.workload.open(newline='') as lengths:
        rows = list(csv.reader(lengths))[1:arguments.requests + 1]
    requests = [(int(prompt), int(outputs)) for prompt, outputs in rows]
    outputs, seconds, steps = simulate(card, requests, arguments.slots, arguments.step_tokens)
    print(json.dumps({'floor': 'workload', 'requests': len(requests), 'slots': arguments.slots,
                      'step_tokens': arguments.step_tokens, 'steps': steps, 'seconds': round(seconds, 2),
                      'output_tokens_per_s': round(outputs / seconds, 1)}))


if __name__ == '__main__':
    main()
