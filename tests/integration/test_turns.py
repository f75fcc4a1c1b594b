"""An agent's conversation: after each turn the generation is held, and the next turn costs only its new tokens."""

import unittest

from harness import Server, Stream

QUESTION, AGAIN = 'Name one animal that lives in the sea.', 'Name another one.'


def chat(*turns):
    """A prompt of turns by user and assistant, the user's first."""
    roles = ('user', 'assistant')
    return dict(chat=dict(messages=[dict(role=roles[i % 2], content=text) for i, text in enumerate(turns)]))


def spec(prompt, **more):
    """Greedy, so that turns can be compared."""
    return dict(prompt=prompt, sampling=dict(max_tokens=60, temperature=0), **more)


class TurnsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server('--context_tokens=2048')

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def ask(self, *turns):
        stream = Stream(self.server.data.data('Generate', spec=spec(chat(*turns))))
        return stream.finish(), stream.text()

    def test_the_next_turn_costs_its_new_tokens_alone(self):
        first = Stream(self.server.data.data('Generate', generation_id='talk',
                                             spec=spec(chat(QUESTION), hold_on_stop=True)))
        held = self.server.await_state('talk', 'PAUSED')
        self.assertEqual(held.pause.reason, 'stop')
        self.assertEqual(held.usage.prefilled_token_count, held.usage.prompt_token_count)
        first.await_tokens(held.usage.output_token_count)
        answer = first.text()
        self.assertTrue(answer)
        result = self.server.verb('Continue', 'talk', append=chat(AGAIN), append_id='turn-2', max_tokens=120)
        again = self.server.verb('Continue', 'talk', append=chat(AGAIN), append_id='turn-2', max_tokens=120)
        self.assertEqual(again.usage.appended_token_count, result.usage.appended_token_count)
        usage = self.server.await_state('talk', 'PAUSED').usage
        first.await_tokens(usage.output_token_count)
        self.server.verb('Abort', 'talk')
        first.finish()
        self.assertEqual(usage.prefilled_token_count, usage.prompt_token_count + usage.appended_token_count)
        self.assertEqual(usage.recomputed_token_count, 0)

        whole, text = self.ask(QUESTION, answer, AGAIN)
        self.assertEqual(first.text(), answer + text)
        self.assertLess(usage.prefilled_token_count, held.usage.prompt_token_count + whole.usage.prompt_token_count)


if __name__ == '__main__':
    unittest.main()
