"""What tools/bench/gpu/floors.py makes of measurements: the floors of a step, and the order of a simulated workload.

Method: lines as gpu_bench prints them, made by hand.
"""

import unittest

from tests.style.xml_main import main
from tools.bench.gpu import floors


def card(rates, tb_per_s=3.0):
    """A card on which the products of a layer with so many rows take so many microseconds."""
    lines = [{"bench": "add", "us": 1.0, "tb_per_s": tb_per_s}]
    for rows, us in rates.items():
        # gpu_bench has four products; SwiGLU is among them for more than 8 rows.
        swiglu = 0 if rows <= 8 else 6 * floors.FEED_FORWARD * rows / tb_per_s / 1e6
        lines += [{"bench": "product", "what": "qkv", "rows": rows, "us": us / 2},
                  {"bench": "product", "what": "down", "rows": rows, "us": us / 2 + swiglu}]
    return floors.Card(lines, head_flops=700e12, attention_flops=600e12)


class SlowSteps:
    """A card that takes a second for each step, and remembers them."""

    def __init__(self):
        self.steps = []

    def step(self, rows, outputs, context, attention_flop):
        self.steps.append((rows, outputs, context))
        return 1.0


class FloorsTest(unittest.TestCase):

    def test_products_between_measured_rows_lie_between_them(self):
        one = card({1: 100.0, 64: 200.0, 128: 400.0})
        self.assertAlmostEqual(one.layer(64) * 1e6, 200.0)
        self.assertAlmostEqual(one.layer(96) * 1e6, 300.0)
        self.assertAlmostEqual(one.layer(1) * 1e6, 100.0)

    def test_more_rows_than_were_measured_take_more(self):
        self.assertAlmostEqual(card({1: 100.0, 128: 400.0}).layer(256) * 1e6, 800.0)

    def test_one_generation_reads_all_weights(self):
        weights = floors.LAYERS * floors.LAYER_BYTES + floors.HEAD_BYTES
        self.assertAlmostEqual(weights / 1e9, 15.0, places=1)
        self.assertAlmostEqual(card({1: 1.0}).decode(1, 0), weights / 3e12)

    def test_no_step_takes_less_than_memory_needs(self):
        fast = card({1: 1.0, 64: 1.0})
        alone = floors.LAYERS * floors.LAYER_BYTES + floors.HEAD_BYTES + 64 * 1230 * floors.TOKEN_BYTES
        self.assertAlmostEqual(fast.decode(64, 1230), alone / 3e12)
        self.assertGreater(card({1: 200.0, 64: 200.0}).decode(64, 1230), alone / 3e12)

    def test_a_workload_is_done_with_as_many_tokens_as_it_asks_for(self):
        outputs, seconds, steps = floors.simulate(SlowSteps(), [(10, 3), (1, 1), (700, 20)], slots=2, budget=512)
        self.assertEqual(outputs, 24)
        self.assertEqual(seconds, steps)

    def test_prompts_fill_a_step_and_go_on_in_the_next(self):
        slow = SlowSteps()
        floors.simulate(slow, [(700, 1), (100, 2)], slots=8, budget=512)
        # 512 of the first; its other 188 and all of the second; the second's last token.
        self.assertEqual(slow.steps, [(512, 0, 512), (288, 2, 800), (1, 1, 100)])

    def test_no_more_run_than_there_are_slots(self):
        slow = SlowSteps()
        floors.simulate(slow, [(5, 4)] * 3, slots=2, budget=512)
        self.assertEqual([outputs for _, outputs, _ in slow.steps], [2, 2, 2, 2, 1, 1, 1, 1])


if __name__ == "__main__":
    main()
