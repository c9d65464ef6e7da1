"""The description on a package index: README.md without what an index cannot show. pyproject.toml has the rest."""

import re
from pathlib import Path

from setuptools import setup

readme = Path("README.md").read_text("utf-8")
# Pictures and pages lie beside README.md in the source archive; an index has neither, and would show broken links.
readme = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*", "", readme)
readme = re.sub(r"\[([^]]*)\]\((?!https?:|#)[^)]*\)", r"\1", readme)
setup(long_description=readme, long_description_content_type="text/markdown")
