"""What is not served yet, not legal or too much is refused with words, and nothing else is hurt by it."""

import unittest

import grpc
from harness import Server, Stream, spec

CONTEXT = 128
QUEUED = 3
ILLEGAL = grpc.StatusCode.INVALID_ARGUMENT


class RefusalsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(f'--context_tokens={CONTEXT}', '--max_running=1', f'--max_queued={QUEUED}')
        cls.model = cls.server.data.data('GetModel')

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def tearDown(self):
        stream = self.server.generate('', spec('Once', 2))
        self.assertEqual(stream.finish().usage.output_token_count, 2, 'the server lives on')

    def expect(self, code, word, client, method, **fields):
        """Expects an RPC, unary or streaming, to end with a code and a message with a word in it."""
        with self.assertRaises(grpc.RpcError, msg=f'{method} {fields}') as refused:
            for _ in client(method, **fields):
                pass
        self.assertEqual(refused.exception.code(), code, f'{method} {fields}: {refused.exception.details()}')
        self.assertIn(word, refused.exception.details())

    def test_prompts_that_are_not_legal(self):
        generate = self.server.data.data
        self.expect(ILLEGAL, 'prompt', generate, 'Generate', spec=dict(sampling=dict(max_tokens=1)))
        self.expect(ILLEGAL, str(CONTEXT - 1), generate, 'Generate', spec=spec('so ' * CONTEXT, 1))
        self.expect(ILLEGAL, str(CONTEXT), generate, 'Generate', spec=spec('Once', CONTEXT))
        for token in (-1, self.model.vocabulary_size, 2**31 - 1):
            self.expect(ILLEGAL, str(token), generate, 'Generate',
                        spec=dict(prompt=dict(token_ids=dict(token_ids=[token]))))
            self.expect(ILLEGAL, str(token), generate, 'Detokenize', token_ids=[token])

    def test_parameters_that_are_not_legal(self):
        nan = float('nan')
        for name, values in (('max_tokens', (0, -1)), ('temperature', (-0.5, 11, nan, float('inf'))),
                             ('top_k', (-1,)), ('top_p', (0, 1.5, nan)), ('min_p', (-0.1, 2, nan)),
                             ('repetition_penalty', (0, nan)), ('frequency_penalty', (-3, nan)),
                             ('presence_penalty', (3, nan)), ('logprobs', (-1, 21)), ('stop', ([''], ['x'] * 17)),
                             ('stop_token_ids', ([-1],)), ('logit_bias', ({0: nan}, {-1: 1}))):
            for value in values:
                self.expect(ILLEGAL, name, self.server.data.data, 'Generate',
                            spec=dict(prompt=dict(text='Once'), sampling={name: value}))

    def test_ids_and_enums_that_are_not_legal(self):
        data, control = self.server.data.data, self.server.control.control
        for bad_id in ('x' * 129, 'a b', 'ä'):
            self.expect(ILLEGAL, 'id', data, 'Generate', generation_id=bad_id, spec=spec('Once', 1))
            self.expect(ILLEGAL, 'id', control, 'Abort', generation_ids=[bad_id])
        self.expect(ILLEGAL, 'generation_ids', control, 'Abort')
        self.expect(ILLEGAL, 'on_disconnect', data, 'Generate', spec=spec('Once', 1, on_disconnect=99))
        self.expect(ILLEGAL, 'tier', control, 'Preempt', generation_ids=['g'], tier='NONE')

    def test_an_id_that_is_taken(self):
        self.server.generate('taken', spec('Once', 2)).finish()
        self.expect(grpc.StatusCode.ALREADY_EXISTS, 'taken', self.server.data.data, 'Generate', generation_id='taken',
                    spec=spec('Twice', 2))

    def test_tokens_that_are_no_text_stream_as_replacement_characters(self):
        byte = self.model.vocabulary_size - 1
        for token in range(self.model.vocabulary_size):
            if self.server.data.data('Detokenize', token_ids=[token]).text == '\ufffd':
                byte = token
                break
        request = dict(prompt=dict(text='Once'), sampling=dict(max_tokens=3, temperature=0, ignore_eos=True,
                                                                logit_bias={byte: 100}))
        stream = Stream(self.server.data.data('Generate', spec=request))
        stream.finish()
        self.assertEqual(stream.tokens(), [byte] * 3)
        self.assertEqual(stream.text(), '\ufffd' * 3)

    def test_one_more_than_may_wait_is_refused_and_the_others_finish(self):
        running = self.server.generate('running', spec('Once', 100))
        running.await_tokens(1)
        self.server.verb('SetPriority', 'running', priority=-1)
        waiting = [self.server.generate(f'waiting-{i}', spec('Once', 2)) for i in range(QUEUED)]
        for i in range(QUEUED):
            self.server.await_state(f'waiting-{i}', 'QUEUED')
        self.expect(grpc.StatusCode.RESOURCE_EXHAUSTED, 'max_queued', self.server.control.control, 'Enqueue',
                    spec=spec('Once', 2))
        for stream in (running, *waiting):
            stream.finish()


if __name__ == '__main__':
    unittest.main()
