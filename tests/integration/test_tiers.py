"""KV on other tiers: in the host's memory and on disk, over a restart, and after being killed at any moment."""

import os
import pathlib
import random
import signal
import tempfile
import time
import unittest

import grpc
from harness import BACKEND, PATIENCE_S, Server, spec

STORY = 'Once upon a time, in a small village by the sea,'
TOKENS = 100
DEVICE, HOST, DISK = 1, 2, 3  # KvTier.Tier
CONTINUE = 2  # OnDisconnect.Action
KILLS = int(os.environ.get('FERMATA_KILLS', '6'))


def await_tier(server, generation_id, tier):
    deadline = time.monotonic() + PATIENCE_S
    while server.get(generation_id).kv_tier != tier:
        assert time.monotonic() < deadline, f'{generation_id} stays on {server.get(generation_id).kv_tier}'
        time.sleep(0.01)
    return server.get(generation_id)


class TiersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Server('--context_tokens=512') as server:
            whole = server.generate('whole', spec(STORY, TOKENS))
            whole.finish()
            cls.tokens, cls.text = whole.tokens(), whole.text()

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def server(self, *flags):
        return Server('--context_tokens=512', f'--kv_disk_dir={self.folder.name}', '--kv_disk_bytes=1000000000', *flags)

    def files(self):
        return sorted(p.name for p in pathlib.Path(self.folder.name).glob('*.kv*'))

    def check_whole(self, stream):
        usage = stream.finish().usage
        self.assertEqual(stream.tokens(), self.tokens)
        self.assertEqual(stream.text(), self.text)
        self.assertEqual(usage.prefilled_token_count, usage.prompt_token_count - usage.cached_token_count)
        self.assertEqual(usage.recomputed_token_count, 0)

    def test_parked_in_the_host_and_on_disk_it_goes_on_where_it_was(self):
        with self.server('--kv_host_bytes=200000000') as server:
            for tier, pool in ((HOST, 1), (DISK, 2)):
                name = f'to-{tier}'
                stream = server.generate(name, spec(STORY, TOKENS))
                stream.await_tokens(20)
                server.verb('Preempt', name, tier=tier)
                held = await_tier(server, name, tier)
                self.assertEqual(held.kv_block_count, held.kv_blocks.host_count + held.kv_blocks.disk_count)
                pools = server.engine().kv_pools
                self.assertEqual(pools[0].paused_count, 0)
                self.assertEqual(pools[pool].paused_count, held.kv_block_count)
                server.verb('Continue', name)
                self.check_whole(stream)
            self.assertEqual(self.files(), [], 'its file is gone with it')

    def test_a_tier_that_is_not_configured_is_refused_and_nothing_changes(self):
        with Server('--context_tokens=512') as server:
            stream = server.generate('it', spec(STORY, TOKENS))
            stream.await_tokens(2)
            results = server.control.control('Preempt', generation_ids=['it'], tier=DISK)
            self.assertEqual(results.results[0].code, grpc.StatusCode.FAILED_PRECONDITION.value[0])
            self.assertIn('--kv_disk_dir', results.results[0].message)
            self.check_whole(stream)

    def test_room_is_made_for_a_newcomer_by_what_is_paused(self):
        # Nine blocks (11,520 halves a token, 16 tokens each): one of these whole takes seven, four so far twelve.
        flags = ('--kv_bytes=3500000', '--kv_host_bytes=60000000', '--prefix_cache=off')
        with self.server(*flags) as server:
            streams = []
            for n in range(4):
                stream = server.generate(f'g{n}', spec(STORY, TOKENS))
                stream.await_tokens(30)
                server.verb('Preempt', f'g{n}')
                streams.append(stream)
            self.assertEqual(server.get('g0').kv_tier, HOST, 'the least recently paused has made room')
            self.assertEqual(server.get('g3').kv_tier, DEVICE)
            for n, stream in enumerate(streams):
                server.verb('Continue', f'g{n}')
            for stream in streams:
                self.check_whole(stream)

    def test_what_is_parked_on_disk_outlives_a_restart(self):
        with self.server() as server:
            stream = server.generate('it', spec(STORY, TOKENS, tenant='red', labels={'a': 'b'}))
            stream.await_tokens(30)
            server.verb('Preempt', 'it', tier=DISK, reason='for later')
            held = await_tier(server, 'it', DISK)
            server.stop()
            self.assertEqual(server.process.wait(PATIENCE_S), 0)
            stream.thread.join(PATIENCE_S)
            self.assertEqual(stream.error.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(self.files(), ['g-it.kv'])
        with self.server() as server:
            found = server.await_state('it', 'PAUSED')
            self.assertEqual(found.kv_tier, DISK)
            self.assertEqual(found.usage.output_token_count, held.usage.output_token_count)
            self.assertEqual((found.tenant, dict(found.labels), found.pause.reason), ('red', {'a': 'b'}, 'for later'))
            stream = server.attach('it')
            server.verb('Continue', 'it')
            self.check_whole(stream)
            # And the same request again is the same generation.
            again = server.generate('it', spec(STORY, TOKENS, tenant='red', labels={'a': 'b'}))
            self.check_whole(again)

    @unittest.skipUnless(BACKEND == 'cpu', 'CUDA keeps one type')
    def test_what_was_parked_with_another_type_of_kv_is_left_where_it_is(self):
        with self.server() as server:
            stream = server.generate('it', spec(STORY, TOKENS))
            stream.await_tokens(10)
            server.verb('Preempt', 'it', tier=DISK)
            await_tier(server, 'it', DISK)
            server.stop()
            self.assertEqual(server.process.wait(PATIENCE_S), 0)
        # As wide as f16, so only the name tells them apart.
        with self.server('--kv_type=bf16') as server:
            with self.assertRaises(grpc.RpcError) as raised:
                server.get('it')
            self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
            self.assertEqual(self.files(), ['g-it.kv'])
        with self.server() as server:
            server.await_state('it', 'PAUSED')
            stream = server.attach('it')
            server.verb('Continue', 'it')
            self.check_whole(stream)

    def test_the_end_of_a_drain_parks_what_runs_and_what_is_paused(self):
        with self.server('--drain_timeout=100ms', '--max_running=2') as server:
            streams = [server.generate(f'g{n}', spec(STORY, TOKENS)) for n in range(4)]
            streams[0].await_tokens(10)
            server.verb('Preempt', 'g0')
            server.stop()
            self.assertEqual(server.process.wait(PATIENCE_S), 0)
            for stream in streams:
                stream.thread.join(PATIENCE_S)
            done = [n for n in range(4) if streams[n].error is None]
        with self.server() as server:
            for n in range(4):
                if n in done:
                    continue
                server.await_state(f'g{n}', 'PAUSED')
                stream = server.attach(f'g{n}')
                server.verb('Continue', f'g{n}')
                self.check_whole(stream)
            self.assertLess(len(done), 4)

    def test_torn_files_and_those_of_another_model_are_refused_and_named(self):
        with self.server() as server:
            stream = server.generate('it', spec(STORY, TOKENS, on_disconnect=CONTINUE))
            stream.await_tokens(10)
            server.verb('Preempt', 'it', tier=DISK)
            await_tier(server, 'it', DISK)
        path = pathlib.Path(self.folder.name) / 'g-it.kv'
        whole = path.read_bytes()
        (path.parent / 'g-cut.kv').write_bytes(whole[:-1])
        (path.parent / 'g-other.kv').write_bytes(whole)
        (path.parent / 'g-unfinished.kv.tmp').write_bytes(whole)
        with self.server() as server:
            listed = server.control.control('ListGenerations').generations
            self.assertEqual([g.generation_id for g in listed], ['it'])
            server.stop()
            errors = server.process.communicate(timeout=PATIENCE_S)[1]
        for name in ('g-cut.kv', 'g-other.kv', 'g-unfinished.kv.tmp'):
            self.assertIn(name, errors)
        # A block that was changed is found when it is read.
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with self.server() as server:
            stream = server.attach('it')
            server.verb('Continue', 'it')
            finish = stream.finish()
            self.assertIn('checksum', finish.error_message)

    def test_two_servers_do_not_share_a_folder(self):
        with self.server():
            with self.assertRaisesRegex(AssertionError, 'in use by another process'):
                self.server()

    def test_killed_at_any_moment_nothing_acknowledged_is_lost(self):
        chance = random.Random(7)
        parked = {}  # acknowledged: id -> how many tokens it had
        finished = set()
        count = 0
        for _ in range(KILLS):
            with self.server('--kv_host_bytes=50000000', '--max_running=8') as server:
                for name, tokens in parked.items():
                    found = server.get(name)
                    self.assertEqual(found.usage.output_token_count >= tokens, True, name)
                streams = {}
                for name in sorted(parked):
                    if chance.random() < 0.4:
                        streams[name] = server.attach(name)
                        server.verb('Continue', name)
                for _ in range(3):
                    name = f'g{count}'
                    count += 1
                    streams[name] = server.generate(name, spec(STORY, TOKENS))
                end = time.monotonic() + chance.uniform(0.2, 1.2)
                while time.monotonic() < end:
                    name = chance.choice(sorted(streams))
                    if len(streams[name].tokens()) < 5 or not streams[name].thread.is_alive():
                        time.sleep(0.01)
                        continue
                    results = server.control.control('Preempt', generation_ids=[name], tier=DISK)
                    if chance.random() < 0.5 and results.results[0].code == 0:
                        held = server.get(name)
                        while held.kv_tier != DISK and held.state == 4 and time.monotonic() < end:
                            held = server.get(name)
                        if held.kv_tier == DISK:
                            parked[name] = held.usage.output_token_count
                server.stop(signal.SIGKILL)
                server.process.wait(PATIENCE_S)
                for name, stream in streams.items():
                    stream.thread.join(PATIENCE_S)
                    if stream.error is None:
                        self.assertEqual(stream.tokens(), self.tokens)
                        finished.add(name)
                        parked.pop(name, None)
                    else:
                        self.assertEqual(stream.tokens(), self.tokens[:len(stream.tokens())])
        self.assertTrue(parked, 'some were parked')
        with self.server() as server:
            names = {g.generation_id for g in server.control.control('ListGenerations', page_size=1000).generations}
            self.assertLessEqual(set(parked), names)
            for name in sorted(names):
                stream = server.attach(name)
                server.verb('Continue', name)
                self.check_whole(stream)


if __name__ == '__main__':
    unittest.main()
