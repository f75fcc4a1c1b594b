"""What Prometheus reads: a paused generation has a gauge of its own and counts in KV use, in no other."""

import unittest
import urllib.request

from harness import Server, run, spec


def scrape(address):
    """{name with labels: value} of all that is served."""
    with urllib.request.urlopen(f'http://{address}/metrics', timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(' ', 1) for line in lines if not line.startswith('#'))}


class MetricsTest(unittest.TestCase):
    def test_a_pause_moves_from_one_gauge_to_another(self):
        with Server('--context_tokens=2048', '--metrics_address=127.0.0.1:0') as server:
            address = server.metrics_address
            self.assertEqual(scrape(address)['fermata_generations{state="running"}'], 0)
            stream = server.generate('g', spec('Once upon a time', 1500))
            stream.await_tokens(10)
            running = scrape(address)
            self.assertEqual(running['fermata_generations{state="running"}'], 1)
            self.assertGreater(running['fermata_kv_blocks{tier="device",use="running"}'], 0)
            server.verb('Preempt', 'g')
            paused = scrape(address)
            self.assertEqual(paused['fermata_generations{state="paused"}'], 1)
            self.assertEqual(paused['fermata_generations{state="running"}'], 0)
            self.assertEqual(paused['fermata_generations{state="queued"}'], 0)
            self.assertGreater(paused['fermata_kv_blocks{tier="device",use="paused"}'], 0)
            server.verb('Abort', 'g')
            stream.finish()
            ended = scrape(address)
            self.assertEqual(ended['fermata_finished_total{reason="ABORTED"}'], 1)
            self.assertEqual(ended['fermata_pauses_total'], 1)
            self.assertEqual(ended['fermata_time_to_first_token_seconds_count'], 1)
            self.assertGreaterEqual(ended['fermata_output_tokens_total'], 10)
            self.assertEqual(ended['fermata_step_seconds_count'], ended['fermata_steps_total'])
            # Taken: another server is told so in one line.
            other = Server.command('--context_tokens=64', f'--metrics_address={address}')
            result = run(*other)
            self.assertEqual(result.returncode, 1)
            self.assertIn(address, result.stderr)


if __name__ == '__main__':
    unittest.main()
