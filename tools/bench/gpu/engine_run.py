"""Measures the engine as a whole: in process, then the same streams over gRPC against the server.

  tools/package --cuda /tmp/fermata //tools/bench:serve_load //tools/bench/gpu:engine_bench
  python3 tools/bench/gpu/engine_run.py --folder=/tmp/fermata --workload=sharegpt_lengths.csv

The folder may be carried to another machine, with this file. Prints one JSON object a line, the card's name first. With
--tiny --backend=cpu everything runs small on a CPU, from a folder that was made without --cuda.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

GRPC_AIM = 0.97


def say(**fields):
    print(json.dumps(fields, separators=(',', ':')), flush=True)


def device():
    try:
        done = subprocess.run(['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader'], check=True,
                              stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'none'


def run_engine(arguments, shape):
    """Passes on what engine_bench prints; the tokens a second of its streams, or None."""
    command = [arguments.folder / 'engine_bench', f'--shape={shape}', f'--backend={arguments.backend}',
               f'--step_tokens={arguments.step_tokens}', *arguments.bench]
    if arguments.workload:
        command += [f'--workload={arguments.workload}', f'--requests={arguments.requests}']
    rate = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        for line in bench.stdout:
            print(line, end='', flush=True)
            fields = json.loads(line)
            if fields['figure'] == 'streams':
                rate = fields['tokens_per_s']
    if bench.returncode != 0:
        sys.exit(f'engine_bench ended with {bench.returncode}')
    return rate


def run_server(arguments, shape, streams):
    """The same streams over gRPC: what serve_load says."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([arguments.folder / 'engine_bench', f'--shape={shape}', f'--write_config={folder}/{shape}'],
                       check=True)
        command = [arguments.folder / 'fermata', f'--model={folder}/{shape}', '--load=dummy', '--prefix_cache=off',
                   f'--backend={arguments.backend}', f'--step_tokens={arguments.step_tokens}',
                   f'--max_running={streams}', '--data_address=127.0.0.1:0', '--control_address=127.0.0.1:0',
                   '--log_level=error', *arguments.server]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                found = re.match(r'ready data=(\S+)', server.stdout.readline())
                if not found:
                    sys.exit('the server did not start')
                load = [arguments.folder / 'serve_load', f'--address={found.group(1)}', f'--clients={streams}',
                        '--prompt=128', f'--output={arguments.stream_output}']
                return json.loads(subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout)
            finally:
                server.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=pathlib.Path, required=True, help='what tools/package made')
    parser.add_argument('--backend', default='cuda', choices=['cuda', 'cpu'])
    parser.add_argument('--tiny', action='store_true', help='a small model, and little of everything')
    parser.add_argument('--workload', help='lines of PROMPT,OUTPUT in tokens, after one with names')
    parser.add_argument('--requests', type=int, default=1500, help='of the workload')
    parser.add_argument('--step_tokens', type=int, default=1024)
    parser.add_argument('--bench', action='append', default=[], help='repeated: a further flag of engine_bench')
    parser.add_argument('--server', action='append', default=[], help='repeated: a further flag of the server')
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()
    shape = 'tiny' if arguments.tiny else 'llama-8b'
    streams = 8 if arguments.tiny else 256
    arguments.stream_output = 64 if arguments.tiny else 256
    say(bench='engine', figure='device', device=device())
    rate = run_engine(arguments, shape)
    if rate is None:
        return
    served = run_server(arguments, shape, streams)
    ratio = served['tokens_per_s'] / rate
    say(bench='engine', figure='grpc', streams=streams, tokens_per_s=served['tokens_per_s'], in_process=rate,
        throughput=round(ratio, 4), throughput_at_least=GRPC_AIM, throughput_met=ratio >= GRPC_AIM,
        throughput_ratio=round(ratio / GRPC_AIM, 3), first_token_ms_p50=served['first_token_ms_p50'],
        between_tokens_ms_p50=served['between_tokens_ms_p50'], between_tokens_ms_p99=served['between_tokens_ms_p99'])


if __name__ == '__main__':
    main()
