"""``python -m twopm_flower.cli`` is ``twopm``."""

from twopm_flower.cli import main

main()
