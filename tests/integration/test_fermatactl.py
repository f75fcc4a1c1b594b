"""The command-line client for programs: JSON objects, one a line, and exit codes."""

import json
import os
import subprocess
import unittest

from harness import FERMATACTL, Server, run


def text(messages):
    """The text of a stream."""
    return ''.join(message['chunk']['text'] for message in messages if 'chunk' in message)


class FermatactlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server('--context_tokens=2048')
        cls.environment = dict(os.environ, FERMATA_DATA_ADDRESS=cls.server.data_address,
                               FERMATA_CONTROL_ADDRESS=cls.server.control_address)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def lines(self, *arguments):
        """The JSON objects that a command prints; the addresses come from the environment."""
        result = run(FERMATACTL, *arguments, '--json', env=self.environment)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, '')
        return [json.loads(line) for line in result.stdout.splitlines()]

    def verb(self, *arguments):
        """Does a verb with one id, which must succeed, and returns the generation."""
        result, = self.lines(*arguments)
        self.assertEqual(result['code'], 0, result)
        return result['generation']

    def test_a_generation_is_streamed_held_and_continued(self):
        command = [FERMATACTL, 'generate', '--json', '--id=story', '--temperature=0', '--ignore_eos',
                   '--max_tokens=150', 'The sea was']
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment) as reader:
            self.addCleanup(reader.kill)
            messages = [json.loads(reader.stdout.readline()) for _ in range(5)]
            held = self.verb('pause', 'story', '--reason=dinner')
            self.assertEqual(held['state'], 'PAUSED')
            self.assertEqual(held['pause']['reason'], 'dinner')
            self.assertEqual([g['generation_id'] for g in self.lines('list', '--state=PAUSED')], ['story'])
            self.verb('priority', '-3', 'story')
            continued = self.verb('continue', 'story')
            self.assertEqual(continued['priority'], -3)
            messages += [json.loads(line) for line in reader.stdout]
            self.assertEqual(reader.wait(), 0)
        self.assertEqual(messages[0]['accepted']['generation_id'], 'story')
        self.assertEqual(messages[-1]['finish']['finish_reason'], 'LENGTH')
        self.assertIn('PAUSED', [m['notice']['state'] for m in messages if 'notice' in m])

        again = self.lines('attach', 'story')
        self.assertEqual(again[-1], messages[-1])
        self.assertEqual(text(again), text(messages))
        usage = self.lines('get', 'story')[0]['usage']
        self.assertEqual(usage['prefilled_token_count'], usage['prompt_token_count'])

    def test_a_generation_is_enqueued_and_aborted(self):
        made, = self.lines('enqueue', '--hold', '--id=later', '--label=team=red', 'The sea was')
        self.assertEqual((made['state'], made['labels']), ('PAUSED', {'team': 'red'}))
        ended = self.verb('abort', 'later')
        self.assertEqual((ended['state'], ended['finish_reason']), ('FINISHED', 'ABORTED'))

    def test_a_refusal_is_one_line_and_exit_code_1(self):
        for command in (('get', 'nobody'), ('pause', 'nobody'), ('attach', 'nobody')):
            result = run(FERMATACTL, *command, env=self.environment)
            self.assertEqual(result.returncode, 1)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn('nobody', result.stderr)

    def test_a_server_that_is_not_there_is_one_line_and_exit_code_1(self):
        result = run(FERMATACTL, 'engine', '--control_address=127.0.0.1:1')
        self.assertEqual(result.returncode, 1)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn('127.0.0.1:1', result.stderr)


if __name__ == '__main__':
    unittest.main()
