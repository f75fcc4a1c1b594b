"""What tools/bench/cpu makes of measurements: rows, medians, targets, the floors of a model, the table and the picture.

Method: lines as the programs print them, made by hand; a GGUF file of two tensors.
"""

import pathlib
import struct
import tempfile
import unittest
import xml.etree.ElementTree

from tests.style.xml_main import main
from tools.bench import cpu_gguf, cpu_llama, cpu_picture, cpu_report

DEPTH = 4000
FLOORS = {"decode_bytes": 10 ** 8, "decode_ops": 3 * 10 ** 8, "prefill_ops": 2 * 10 ** 8, "file_bytes": 10 ** 8}


def rates(scale):
    return {key: scale * (place + 1) for place, key in enumerate(cpu_report.ROWS)}


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(tensors):
    """A GGUF file's head, with one value of each kind that has a form of its own."""
    values = [("name", 8, text("tiny")), ("layers", 4, struct.pack("<I", 2)),
              ("words", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b"))]
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, kind, value in values:
        data += text(key) + struct.pack("<I", kind) + value
    for name, (sizes, kind) in tensors.items():
        data += text(name) + struct.pack("<I", len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
        data += struct.pack("<IQ", kind, 0)
    return data


class BenchReportTest(unittest.TestCase):

    def test_llama_cpp_lines_are_told_apart(self):
        lines = [{"n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ts": 400.0},
                 {"n_prompt": 0, "n_gen": 64, "n_depth": 128, "avg_ts": 150.0},
                 {"n_prompt": 0, "n_gen": 64, "n_depth": DEPTH, "avg_ts": 90.0},
                 {"pp": 128, "tg": 64, "pl": 8, "speed_tg": 250.0}, {"pp": 128, "tg": 64, "pl": 32, "speed_tg": 260.0}]
        self.assertEqual(cpu_llama.parse(lines), {"prefill_512": 400.0, "decode_1": 150.0, "decode_1_deep": 90.0,
                                                  "decode_8": 250.0, "decode_32": 260.0})

    def test_own_lines_give_the_same_rows(self):
        lines = [{"bench": "load", "load_s": 0.2}, {"bench": "prefill", "context": 512, "tokens_per_s": 1.0}]
        for streams, context in ((1, 128), (8, 128), (32, 128), (1, DEPTH)):
            lines.append({"bench": "decode", "streams": streams, "context": context, "tokens_per_s": 2.0})
        self.assertEqual(set(cpu_report.fermata_rates(lines, DEPTH)), set(cpu_report.ROWS))

    def test_rows_have_medians_ratios_and_what_they_read(self):
        ours = [rates(100), rates(160), rates(900)]  # one round was disturbed
        rows = cpu_report.side_by_side(ours, [rates(100)] * 3, FLOORS, "avx512-vnni")
        by_key = {row["row"]: row for row in rows}
        self.assertEqual(by_key["decode_1"]["ratio"], 1.6)
        self.assertTrue(by_key["decode_1"]["met"])
        self.assertFalse(by_key["decode_8"]["met"])
        self.assertEqual(by_key["decode_1"]["gb_per_s"], 16.0)
        self.assertEqual(by_key["decode_8"]["gb_per_s"], round(320 / 8 * 0.1, 1))  # read once for all eight
        self.assertEqual(by_key["prefill_512"]["gop_per_s"], round(640 * 0.2, 1))
        self.assertEqual({row["row"] for row in rows if row["met"]}, {"decode_1", "decode_1_deep"})

    def test_the_target_is_the_instruction_sets(self):
        rows = cpu_report.side_by_side([rates(200)], [rates(100)], FLOORS, "avx2")
        self.assertTrue(all(row["met"] for row in rows))

    def test_ceilings_are_of_the_instructions_that_ran(self):
        lines = [{"ceiling": "read", "gb_per_s": 44.0},
                 {"ceiling": "int8", "instructions": "avx512-vnni", "gop_per_s": 1800},
                 {"ceiling": "int8", "instructions": "avx2", "gop_per_s": 400}]
        self.assertEqual(cpu_report.ceilings_of(lines, "avx2"), {"read_gb_per_s": 44.0, "int8_gop_per_s": 400})
        self.assertIsNone(cpu_report.ceilings_of(lines[:1], "avx2")["int8_gop_per_s"])

    def test_serving_is_measured_by_the_engines_own_figure(self):
        load = {"clients": 8, "first_token_ms_p50": 1.0, "first_token_ms_max": 2.0, "between_tokens_ms_p50": 3.0,
                "between_tokens_ms_p99": 4.0}
        # The machine was slow in the last round, for both.
        rounds = ((80.0, 100.0), (95.0, 100.0), (43.0, 50.0))
        loads = [{**load, "tokens_per_s": rate, "engine_tokens_per_s": own} for rate, own in rounds]
        row = cpu_report.serve_rows(loads)[0]
        self.assertEqual((row["ratio"], row["met"]), (0.86, False))
        self.assertEqual(row["rounds"], [0.8, 0.95, 0.86])
        self.assertTrue(cpu_report.serve_rows([loads[1]])[0]["met"])

    def test_start_needs_both_time_and_memory(self):
        self.assertTrue(cpu_report.start_row([(0.5, 2 * 10 ** 8)], 10 ** 8)["met"])
        self.assertFalse(cpu_report.start_row([(1.5, 10 ** 8)], 10 ** 8)["met"])
        self.assertFalse(cpu_report.start_row([(0.5, 3 * 10 ** 8)], 10 ** 8)["met"])

    def test_floors_of_a_tied_and_an_untied_head(self):
        tensors = {"token_embd.weight": ([64, 100], 8), "blk.0.w": ([64, 10], 3), "norm": ([64], 0)}
        matrices = 64 * 100 // 32 * 34 + 64 * 10 // 32 * 20
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "tiny.gguf")
            path.write_bytes(gguf(tensors))
            tied = cpu_gguf.read_floors(path)
            self.assertEqual(tied["file_bytes"], path.stat().st_size)
        self.assertEqual(tied["decode_bytes"], matrices + 4 * 64)
        self.assertEqual((tied["decode_ops"], tied["prefill_ops"]), (2 * 64 * 110, 2 * 64 * 10))
        untied = cpu_gguf.floors({**tensors, "output.weight": ([64, 100], 8)})
        self.assertEqual(untied["decode_bytes"], tied["decode_bytes"])
        self.assertEqual(untied["decode_ops"], tied["decode_ops"])

    def test_another_file_is_refused(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"not a model at all")
            file.flush()
            with self.assertRaisesRegex(ValueError, "no GGUF file"):
                cpu_gguf.read_floors(file.name)

    def test_the_table_and_the_picture_show_every_row(self):
        rows = cpu_report.side_by_side([rates(200)], [rates(100)], FLOORS, "avx2")
        result = {"cpu": "A CPU", "threads": 2, "columns": {"avx2": {"rows": rows}, "avx512-vnni": {"rows": rows}}}
        table = cpu_picture.table(result)
        picture = cpu_picture.svg(result, "avx512-vnni")
        xml.etree.ElementTree.fromstring(picture)
        for row in rows:
            self.assertIn(row["name"], table)
            self.assertIn(row["name"], picture)
        self.assertEqual(table.count("**2.0x**"), 2 * len(rows))


if __name__ == "__main__":
    main()
