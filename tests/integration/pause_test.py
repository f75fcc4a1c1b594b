"""Goal: a pause from a second client is total and invisible: nothing arrives, and the text is the undisturbed one.

Method: greedy generations of the real model, streamed by one connection and held by another.
"""

import time
import unittest

from harness import ServerTestCase, greedy

SILENCE_SECONDS = 3


class PauseTest(ServerTestCase):

    def test_a_stream_is_accepted_first_and_brings_every_token_and_one_finish(self):
        stream = self.server.data.stream("Generate", generation_id="whole", spec=greedy(max_tokens=40))
        finish = stream.wait()
        accepted = stream.messages[0].accepted
        self.assertEqual(accepted.generation_id, "whole")
        self.assertGreater(accepted.prompt_token_count, 0)
        self.assertEqual(finish.finish_reason, self.server.data.enum("Generation.FinishReason")["LENGTH"])
        self.assertEqual(len(stream.token_ids), 40)
        offset = 0
        for chunk in stream.of("chunk"):
            self.assertEqual(chunk.offset, offset)
            offset += len(chunk.token_ids)
        self.assertEqual(finish.usage.output_token_count, 40)
        self.assertEqual(self.server.data.call("Detokenize", token_ids=stream.token_ids).text, stream.text)

    def test_a_pause_in_mid_stream_is_silent_keeps_kv_and_costs_nothing(self):
        undisturbed = self.server.data.stream("Generate", spec=greedy(max_tokens=120))
        undisturbed.wait()

        stream = self.server.data.stream("Generate", generation_id="held", spec=greedy(max_tokens=120))
        stream.wait_for_tokens(20)
        answer = self.verb("Preempt", "held", reason="to listen")
        held = answer.results[0].generation
        count = held.usage.output_token_count
        stream.wait_for_tokens(count)
        before = self.server.engine()
        self.assertGreater(held.kv_block_count, 0)
        self.assertLess(count, 120)

        time.sleep(SILENCE_SECONDS)

        self.assertEqual(len(stream.token_ids), count)
        self.assertLessEqual(stream.of("chunk")[-1].step, answer.step)
        after, resting = self.server.engine(), self.server.get("held")
        self.assertEqual(after.step_count, before.step_count)  # nothing else ran, so no step was made at all
        self.assertEqual(resting.usage.output_token_count, count)
        self.assertEqual(resting.kv_block_count, held.kv_block_count)
        self.assertGreaterEqual(after.kv_pools[0].paused_count, held.kv_block_count)
        self.assertEqual(resting.pause.reason, "to listen")

        continued = self.verb("Continue", "held")
        usage = stream.wait().usage
        self.assertEqual(stream.text, undisturbed.text)
        self.assertEqual(stream.token_ids, undisturbed.token_ids)
        self.assertEqual(usage.prefilled_token_count, usage.prompt_token_count)
        self.assertEqual(usage.recomputed_token_count, 0)
        self.assertEqual(usage.pause_count, 1)
        self.assertGreaterEqual(usage.paused_duration.ToTimedelta().total_seconds(), SILENCE_SECONDS)
        first_after = next(c for c in stream.of("chunk") if c.offset >= count)
        self.assertGreater(first_after.step, continued.step)
        states = [self.server.data.name("Generation.State", n.state) for n in stream.of("notice")]
        self.assertIn("PAUSED", states)

    def test_many_pauses_of_one_among_others_change_no_tokens(self):
        undisturbed = self.server.data.stream("Generate", spec=greedy(max_tokens=60))
        undisturbed.wait()
        others = [self.server.data.stream("Generate", spec=greedy(f"Chapter {n}", 80)) for n in range(3)]
        stream = self.server.data.stream("Generate", generation_id="often", spec=greedy(max_tokens=60))
        for count in (1, 10, 20, 30):
            stream.wait_for_tokens(count)
            self.verb("Preempt", "often")
            self.verb("Continue", "often")
        usage = stream.wait().usage
        self.assertEqual(stream.token_ids, undisturbed.token_ids)
        self.assertEqual(usage.pause_count, 4)
        self.assertEqual(usage.recomputed_token_count, 0)
        for other in others:
            self.assertEqual(other.wait().usage.output_token_count, 80)

    def test_the_verbs_are_idempotent(self):
        stream = self.server.data.stream("Generate", generation_id="twice", spec=greedy(max_tokens=80))
        stream.wait_for_tokens(5)
        self.verb("Preempt", "twice")
        self.verb("Preempt", "twice")
        self.verb("Continue", "twice")
        self.verb("Continue", "twice")
        self.assertEqual(stream.wait().usage.pause_count, 1)

    def test_enqueued_with_hold_rests_until_continued(self):
        self.server.control.call("Enqueue", generation_id="later", spec=greedy(max_tokens=10), hold=True)
        stream = self.server.data.stream("Attach", generation_id="later")
        self.assertEqual(self.server.state("later"), "PAUSED")
        self.assertEqual(self.server.get("later").usage.prefilled_token_count, 0)
        self.verb("Continue", "later")
        self.assertEqual(stream.wait().usage.output_token_count, 10)


if __name__ == "__main__":
    unittest.main()
