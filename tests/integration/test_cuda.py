"""The server on a GPU: what it takes of the memory, what it refuses before it takes any, and folders with weights."""

import json
import pathlib
import subprocess
import tempfile
import unittest

from harness import BACKEND, FLAGS, PATIENCE_S, SERVER, Server, run, spec

CONFIG = dict(architectures=['LlamaForCausalLM'], model_type='llama', hidden_act='silu', hidden_size=512,
              intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
              rms_norm_eps=1e-5, max_position_embeddings=4096, vocab_size=1000, tie_word_embeddings=False)


def used_megabytes():
    """Of the first GPU's memory."""
    answer = run('nvidia-smi', '--query-gpu=memory.used', '--format=csv,noheader,nounits')
    return int(answer.stdout.splitlines()[0])


@unittest.skipUnless(BACKEND == 'cuda', 'of the CUDA back end')
class CudaTest(unittest.TestCase):
    def folder(self, **changes):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        path = pathlib.Path(scratch.name) / 'made-up'
        path.mkdir()
        (path / 'config.json').write_text(json.dumps(dict(CONFIG, **changes)), encoding='ascii')
        return path

    def start(self, folder, *flags):
        """A server of made-up weights. The last of two flags counts."""
        return Server(f'--model={folder}', '--load=dummy', *flags)

    def test_the_fraction_bounds_the_pool_and_the_rest_stays_free(self):
        folder = self.folder()
        blocks, megabytes = [], []
        before = used_megabytes()
        for fraction in ('0.2', '0.4'):
            with self.start(folder, f'--gpu_memory_fraction={fraction}', '--step_tokens=256') as server:
                engine = server.engine()
                self.assertEqual(engine.backend, 'cuda')
                stream = server.generate('g', dict(prompt=dict(token_ids=dict(token_ids=[1, 2, 3])),
                                                   sampling=dict(max_tokens=20, temperature=0, ignore_eos=True)))
                stream.finish()
                self.assertEqual(len(stream.tokens()), 20)
                blocks.append(server.engine().kv_pools[0].total_count)
                megabytes.append(used_megabytes() - before)
        # Weights and buffers are small beside the pools.
        self.assertAlmostEqual(blocks[1] / blocks[0], 2, delta=0.2)
        self.assertAlmostEqual(megabytes[1] / megabytes[0], 2, delta=0.3)

    def test_what_does_not_fit_is_refused_with_the_numbers_before_anything_is_taken(self):
        # 2 x 10^12 weights.
        folder = self.folder(hidden_size=65536, intermediate_size=262144, num_hidden_layers=32,
                             num_attention_heads=512, num_key_value_heads=8)
        before = used_megabytes()
        command = [SERVER, '--data_address=127.0.0.1:0', '--control_address=127.0.0.1:0', *FLAGS]
        with subprocess.Popen([*command, f'--model={folder}', '--load=dummy'], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as server:
            most = before
            while server.poll() is None:
                most = max(most, used_megabytes())
            error = server.stderr.read()
        self.assertEqual(server.returncode, 1, error)
        self.assertRegex(error, 
                         r'the weights need \d+ bytes of the device\'s memory, of which \d+ of \d+ are free')
        # The driver's own context takes some hundreds.
        self.assertLess(most - before, 1500)
        refused = run(*command, f'--model={self.folder()}', '--load=dummy', '--gpu_memory_fraction=0.0001',
                      timeout=PATIENCE_S)
        self.assertEqual(refused.returncode, 1, refused.stderr)
        self.assertIn('--gpu_memory_fraction=0.0001 keeps ', refused.stderr)

    def test_a_pool_that_does_not_fit_is_refused_with_the_numbers(self):
        refused = run(SERVER, f'--model={self.folder()}', '--load=dummy', '--data_address=127.0.0.1:0',
                      '--control_address=127.0.0.1:0', *FLAGS, '--kv_bytes=1000000000000', timeout=PATIENCE_S)
        self.assertEqual(refused.returncode, 1, refused.stderr)
        self.assertRegex(refused.stderr, r'--kv_bytes 1000000000000, of which \d+ of \d+ are free')

    def test_the_same_tokens_with_and_without_a_pause(self):
        with self.start(self.folder(), '--step_tokens=256') as server:
            whole = server.generate('whole', spec('Once upon a time', 400))
            whole.finish()
            held = server.generate('held', spec('Once upon a time', 400))
            held.await_tokens(10)
            server.verb('Preempt', 'held')
            server.verb('Continue', 'held')
            usage = held.finish().usage
            self.assertEqual(held.tokens(), whole.tokens())
            self.assertEqual(usage.recomputed_token_count, 0)


if __name__ == '__main__':
    unittest.main()
