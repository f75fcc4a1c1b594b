"""Who runs when a server has a single slot, read from the steps that tokens carry."""

import unittest

from harness import Server, spec

STORY = 'Once upon a time, in a small village by the sea,'


def steps(stream):
    """The steps in which a stream's tokens were computed, in their order."""
    return [m.step for m in (message.chunk for message in stream.messages if message.HasField('chunk'))]


class OrderTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server('--max_running=1', '--context_tokens=2048')

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def start(self, generation_id, priority, max_tokens):
        return self.server.generate(generation_id, spec(STORY, max_tokens, priority=priority))

    def test_the_displaced_one_is_not_in_the_steps_of_the_urgent_one_and_its_tokens_stay_the_same(self):
        undisturbed = self.start('undisturbed', 0, 150)
        undisturbed.finish()
        patient = self.start('patient', 10, 150)
        patient.await_tokens(20)
        urgent = self.start('urgent', 0, 20)
        urgent.finish()
        patient.finish()
        self.assertFalse(set(steps(urgent)) & set(steps(patient)), 'both ran in one slot')
        self.assertEqual(patient.tokens(), undisturbed.tokens())

    def test_an_equally_urgent_one_waits(self):
        first = self.start('first', 0, 60)
        first.await_tokens(5)
        second = self.start('second', 0, 5)
        second.finish()
        self.assertEqual(first.finish().usage.preemption_count, 0)
        self.assertGreater(steps(second)[0], steps(first)[-1])

    def test_a_new_priority_reorders_what_waits(self):
        running = self.start('running', -1, 1500)
        running.await_tokens(1)
        early, late = self.start('early', 5, 5), self.start('late', 5, 5)
        self.server.await_state('early', 'QUEUED')
        self.server.await_state('late', 'QUEUED')
        self.server.verb('SetPriority', 'late', priority=4)
        self.server.verb('Abort', 'running')
        early.finish()
        late.finish()
        self.assertLess(steps(late)[-1], steps(early)[0])

    def test_a_pause_gives_the_slot_to_the_next_one(self):
        held = self.start('held', 0, 200)
        held.await_tokens(5)
        self.server.verb('Preempt', 'held')
        self.start('next', 0, 5).finish()
        self.server.await_state('held', 'PAUSED')
        self.server.verb('Continue', 'held')
        self.assertEqual(held.finish().usage.recomputed_token_count, 0)

    def test_past_its_timeout_a_waiting_one_ends_with_deadline(self):
        running = self.start('busy', -1, 1500)
        running.await_tokens(1)
        waiting = self.server.generate('waiting', spec(STORY, 5, timeout=dict(nanos=300_000_000)))
        self.assertEqual(waiting.finish().finish_reason, 4)  # DEADLINE
        self.server.verb('Abort', 'busy')


class ClampTest(unittest.TestCase):
    def test_only_the_data_plane_is_clamped(self):
        with Server('--data_min_priority=3', '--context_tokens=64') as server:
            stream = server.generate('untrusted', spec('Once', 1, priority=-7))
            stream.finish()
            self.assertEqual(stream.messages[0].accepted.priority, 3)
            trusted = server.control.control('Enqueue', spec=spec('Once', 1, priority=-7))
            self.assertEqual(trusted.priority, -7)


if __name__ == '__main__':
    unittest.main()
