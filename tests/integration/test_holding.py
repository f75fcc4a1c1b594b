"""Holding generations from outside: a stream paused by a second client, silence, and the same text afterwards."""

import signal
import subprocess
import sys
import time
import unittest

from harness import Client, Server, spec

STORY = 'Once upon a time, in a small village by the sea,'


class HoldingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server('--context_tokens=2048')
        cls.undisturbed = cls.server.generate('undisturbed', spec(STORY, 120))
        cls.undisturbed.finish()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def test_pause_in_mid_stream_then_three_seconds_of_silence_then_the_same_text(self):
        stream = self.server.generate('held', spec(STORY, 120))
        stream.await_tokens(20)
        held = self.server.verb('Preempt', 'held', reason='a test')
        self.assertGreater(held.kv_block_count, 0)
        self.assertLess(held.usage.output_token_count, 120)
        stream.await_tokens(held.usage.output_token_count)
        steps = self.server.engine().step_count
        time.sleep(3)
        self.assertEqual(len(stream.tokens()), held.usage.output_token_count)
        engine = self.server.engine()
        self.assertEqual(engine.step_count, steps, 'no step includes it')
        self.assertEqual(engine.kv_pools[0].paused_count, held.kv_block_count)
        self.server.verb('Continue', 'held')
        usage = stream.finish().usage
        self.assertEqual(stream.tokens(), self.undisturbed.tokens())
        self.assertEqual(stream.text(), self.undisturbed.text())
        self.assertEqual(usage.prefilled_token_count, usage.prompt_token_count)
        self.assertEqual(usage.recomputed_token_count, 0)
        self.assertEqual(usage.pause_count, 1)

    def test_attach_replays_from_an_offset(self):
        again = self.server.attach('undisturbed')
        again.finish()
        self.assertEqual(again.text(), self.undisturbed.text())
        rest = self.server.attach('undisturbed', 100)
        rest.finish()
        self.assertEqual(rest.tokens(), self.undisturbed.tokens()[100:])

    def test_abort_ends_the_stream_with_its_finish(self):
        stream = self.server.generate('aborted', spec(STORY, 1500))
        stream.await_tokens(5)
        self.server.verb('Abort', 'aborted', reason='enough')
        finish = stream.finish()
        self.assertEqual(finish.finish_reason, 3)  # ABORTED
        self.assertEqual(finish.error_message, 'enough')

    def test_a_client_killed_in_mid_stream_leaves_no_memory_behind(self):
        code = (f'import sys; sys.path.insert(0, {sys.path[0]!r}); import harness\n'
                f'client = harness.Client({self.server.data_address!r})\n'
                f'what = harness.spec({STORY!r}, 1500)\n'
                'for message in client.data("Generate", generation_id="orphan", spec=what):\n'
                '    print("message", flush=True)\n')
        child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
        for _ in range(5):
            self.assertEqual(child.stdout.readline(), b'message\n')
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        generation = self.server.await_state('orphan', 'FINISHED')
        self.assertEqual(generation.finish_reason, 3)  # ABORTED
        pool = self.server.engine().kv_pools[0]
        self.assertEqual(pool.free_count + pool.cached_count, pool.total_count)

    def test_a_reader_that_leaves_may_ask_for_a_pause(self):
        stream = self.server.generate('pausing', spec(STORY, 60, on_disconnect=3))  # PAUSE
        stream.await_tokens(5)
        stream.call.cancel()
        held = self.server.await_state('pausing', 'PAUSED')
        back = self.server.attach('pausing', held.usage.output_token_count)
        back.finish()
        self.assertEqual(len(back.tokens()), 60 - held.usage.output_token_count)
        self.assertEqual(back.tokens(), self.undisturbed.tokens()[held.usage.output_token_count:60])

    def test_a_client_that_pings_much_keeps_its_paused_stream(self):
        eager = Client(self.server.data_address, [('grpc.keepalive_time_ms', 1000), ('grpc.keepalive_timeout_ms', 5000),
                                                  ('grpc.keepalive_permit_without_calls', 1),
                                                  ('grpc.http2.max_pings_without_data', 0)])
        call = eager.data('Generate', generation_id='patient', spec=spec(STORY, 80))
        next(call)
        self.server.verb('Preempt', 'patient')
        time.sleep(8)
        self.server.verb('Continue', 'patient')
        last = None
        for last in call:
            pass
        self.assertTrue(last.HasField('finish'))
        eager.close()


class OneSlotTest(unittest.TestCase):
    def test_the_urgent_one_starts_at_once_and_the_other_goes_on_without_recomputation(self):
        with Server('--max_running=1', '--context_tokens=2048') as server:
            batch = server.generate('batch', spec(STORY, 200, priority=10))
            batch.await_tokens(20)
            urgent = server.generate('urgent', spec('The sun', 10, priority=0))
            finish = urgent.finish()
            accepted = urgent.messages[0].accepted
            self.assertEqual(finish.step, accepted.step + 10, 'from the next step on, one token a step')
            usage = batch.finish().usage
            self.assertEqual(usage.preemption_count, 1)
            self.assertEqual(usage.prefilled_token_count, usage.prompt_token_count)
            self.assertEqual(usage.recomputed_token_count, 0)

    def test_a_thousand_at_once_finish(self):
        with Server('--context_tokens=64', '--max_queued=1000') as server:
            for i in range(1000):
                server.control.control('Enqueue', generation_id=f'g{i}',
                                       spec=dict(prompt=dict(token_ids=dict(token_ids=[1 + i % 100])),
                                                 sampling=dict(max_tokens=2, temperature=0, ignore_eos=True)))
            for i in range(0, 1000, 97):
                self.assertEqual(server.attach(f'g{i}').finish().usage.output_token_count, 2)
            server.await_state('g999', 'FINISHED')
            deadline = time.monotonic() + 60
            while server.engine().totals.finished_count < 1000 and time.monotonic() < deadline:
                time.sleep(0.1)
            self.assertEqual(server.engine().totals.finished_count, 1000)


if __name__ == '__main__':
    unittest.main()
