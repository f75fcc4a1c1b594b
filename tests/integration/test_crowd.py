"""A thousand at once: all finish, each with exactly one finish, and all memory is free afterwards."""

import unittest

from harness import Server

COUNT = 1000


class CrowdTest(unittest.TestCase):
    def test_a_thousand_streams_started_at_once_finish_once_each(self):
        with Server('--context_tokens=64', f'--max_queued={COUNT}') as server:
            # Not read until all are there: the server must hold what they have brought.
            calls = [server.data.data('Generate', generation_id=f'g{i}',
                                      spec=dict(prompt=dict(token_ids=dict(token_ids=[1 + i % 100, 7])),
                                                sampling=dict(max_tokens=2, temperature=0, ignore_eos=True)))
                     for i in range(COUNT)]
            for call in calls:
                messages = list(call)
                self.assertEqual([m.HasField('finish') for m in messages], [False] * (len(messages) - 1) + [True])
                self.assertEqual(messages[-1].finish.finish_reason, 2)  # LENGTH
                self.assertEqual(sum(len(m.chunk.token_ids) for m in messages), 2)
            engine = server.engine()
            self.assertEqual(engine.totals.finished_count, COUNT)
            self.assertEqual(engine.totals.output_token_count, 2 * COUNT)
            pool = engine.kv_pools[0]
            self.assertEqual(pool.free_count + pool.cached_count, pool.total_count)
            self.assertEqual(self.list_ids(server), {f'g{i}' for i in range(COUNT)})

    def list_ids(self, server):
        """The ids of all finished generations, page by page."""
        ids, token = [], ''
        while True:
            page = server.control.control('ListGenerations', states=['FINISHED'], page_size=300, page_token=token)
            ids += [generation.generation_id for generation in page.generations]
            token = page.next_page_token
            if not token:
                self.assertEqual(len(ids), len(set(ids)))
                return set(ids)


if __name__ == '__main__':
    unittest.main()
