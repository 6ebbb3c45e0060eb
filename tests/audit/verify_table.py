from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "audit-verify.md"
