"""What a style rule reports."""

import dataclasses
from typing import Optional


@dataclasses.dataclass(frozen=True)
class Finding:
    """One offence. Where `amount` is set, allowed.py may tolerate up to that amount, never above `ceiling`."""

    rule: str
    path: str
    line: int
    message: str
    amount: Optional[int] = None
    ceiling: Optional[int] = None

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


def not_allowed(findings, allowed):
    """The findings that `allowed` (see allowed.py) does not tolerate, and one for each of its entries that is stale."""
    kept, used = [], set()
    for finding in findings:
        key = (finding.rule, finding.path)
        limit = allowed.get(key)
        tolerated = (limit is not None and finding.amount is not None and finding.amount <= limit and
                     (finding.ceiling is None or finding.amount <= finding.ceiling))
        if tolerated:
            used.add(key)
        else:
            kept.append(finding)
    kept += [Finding("allowed", path, 0, f"allowed.py tolerates {rule} here, which is not needed any more")
             for rule, path in sorted(set(allowed) - used)]
    return kept
