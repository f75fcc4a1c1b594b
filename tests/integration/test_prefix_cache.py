"""Who begins like another one computes only what is new; whose tenant is another one's does not find out."""

import unittest

from harness import Server, spec

STORY = 'Once upon a time, in a small village by the sea, there lived an old fisherman and his three daughters. ' * 4


class PrefixCacheTest(unittest.TestCase):
    def finish(self, server, generation_id, **more):
        stream = server.generate(generation_id, spec(STORY, 12, **more))
        usage = stream.finish().usage
        return usage, stream.tokens()

    def test_the_second_one_computes_only_its_last_tokens(self):
        with Server('--context_tokens=1024') as server:
            first, tokens = self.finish(server, 'first', tenant='red')
            self.assertEqual(first.cached_token_count, 0)
            second, again = self.finish(server, 'second', tenant='red')
            self.assertEqual(again, tokens)
            self.assertGreater(second.cached_token_count, 50)
            self.assertEqual(second.cached_token_count + second.prefilled_token_count, second.prompt_token_count)
            other, again = self.finish(server, 'other', tenant='blue')
            self.assertEqual(other.cached_token_count, 0)
            self.assertEqual(again, tokens)

    def test_off_is_off(self):
        with Server('--context_tokens=1024', '--prefix_cache=off') as server:
            self.finish(server, 'first')
            self.assertEqual(self.finish(server, 'second')[0].cached_token_count, 0)


if __name__ == '__main__':
    unittest.main()
