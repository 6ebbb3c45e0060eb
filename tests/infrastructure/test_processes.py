"""What a process may have."""

import subprocess
import sys
from typing import Final

import pytest

ALLOWED: Final = """
import resource
from infrastructure.processes import allow_many_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({now}, {most}))
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("now", "most"), [(256, 4096), (4096, 4096)])
def test_a_process_has_as_many_files_as_it_may(now: int, most: int) -> None:
    program = [sys.executable, "-c", ALLOWED.format(now=now, most=most)]

    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout

    assert told.split() == [str(most), str(most)]
