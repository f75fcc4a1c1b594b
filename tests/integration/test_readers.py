"""Readers come, go and come back as they like; what happens then is what on_disconnect says."""

import unittest

import grpc
from harness import Server, spec

STORY = 'Once upon a time, in a small village by the sea,'
TOKENS = 120


class ReadersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server('--context_tokens=2048')
        cls.undisturbed = cls.server.generate('undisturbed', spec(STORY, TOKENS))
        cls.undisturbed.finish()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def leave(self, generation_id, on_disconnect):
        """Starts a generation, reads ten tokens of it and goes."""
        stream = self.server.generate(generation_id, spec(STORY, TOKENS, on_disconnect=on_disconnect))
        stream.await_tokens(10)
        stream.call.cancel()

    def test_readers_of_a_running_generation_get_the_same_from_any_offset(self):
        stream = self.server.generate('read', spec(STORY, TOKENS))
        stream.await_tokens(30)
        readers = {offset: self.server.attach('read', offset) for offset in (0, 17)}
        usage = stream.finish().usage
        for offset, reader in readers.items():
            self.assertEqual(reader.finish().usage, usage)
            self.assertEqual(reader.tokens(), stream.tokens()[offset:])
        self.assertEqual(readers[0].text(), stream.text())
        self.assertTrue(stream.text().endswith(readers[17].text()))

    def test_chunks_say_which_tokens_they_are(self):
        offset = 0
        for message in self.undisturbed.messages:
            if message.HasField('chunk'):
                self.assertEqual(message.chunk.offset, offset)
                offset += len(message.chunk.token_ids)
        self.assertEqual(offset, TOKENS)

    def test_attach_to_an_unknown_id_is_not_found(self):
        stream = self.server.attach('nobody')
        stream.thread.join()
        self.assertEqual(stream.error.code(), grpc.StatusCode.NOT_FOUND)
        self.assertIn('nobody', stream.error.details())

    def test_one_of_two_readers_may_leave(self):
        stream = self.server.generate('shared', spec(STORY, TOKENS))
        other = self.server.attach('shared')
        other.await_tokens(5)
        stream.call.cancel()
        self.assertEqual(other.finish().usage.output_token_count, TOKENS)

    def test_with_continue_it_goes_on_unread(self):
        self.leave('unread', 'CONTINUE')
        generation = self.server.await_state('unread', 'FINISHED')
        self.assertEqual(generation.usage.output_token_count, TOKENS)
        reader = self.server.attach('unread')
        reader.finish()
        self.assertEqual(reader.tokens(), self.undisturbed.tokens())

    def test_with_pause_it_rests_under_a_lease_until_somebody_reads_again(self):
        self.leave('parked', 'PAUSE')
        held = self.server.await_state('parked', 'PAUSED')
        self.assertEqual(held.pause.reason, 'disconnect')
        self.assertTrue(held.pause.HasField('lease_expire_time'))
        self.assertGreater(held.kv_block_count, 0)
        reader = self.server.attach('parked', 10)
        usage = reader.finish().usage
        self.assertEqual(reader.tokens(), self.undisturbed.tokens()[10:])
        self.assertEqual(usage.prefilled_token_count, usage.prompt_token_count)
        self.assertEqual(usage.recomputed_token_count, 0)

    def test_reading_does_not_end_a_pause_of_the_control_plane(self):
        stream = self.server.generate('kept', spec(STORY, TOKENS, on_disconnect='PAUSE'))
        stream.await_tokens(5)
        self.server.verb('Preempt', 'kept')
        stream.call.cancel()
        reader = self.server.attach('kept')
        reader.await_tokens(5)
        self.server.await_state('kept', 'PAUSED')
        self.server.verb('Continue', 'kept')
        reader.finish()
        self.assertEqual(reader.tokens(), self.undisturbed.tokens())

    def test_a_paused_generation_ends_with_its_reader(self):
        stream = self.server.generate('quiet', spec(STORY, TOKENS))
        stream.await_tokens(5)
        self.server.verb('Preempt', 'quiet')
        stream.call.cancel()
        self.assertEqual(self.server.await_state('quiet', 'FINISHED').finish_reason, 3)  # ABORTED


if __name__ == '__main__':
    unittest.main()
