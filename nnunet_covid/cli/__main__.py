"""``python -m nnunet_covid.cli`` is ``nnunet-covid``."""

import sys

from nnunet_covid.cli import main

if __name__ == "__main__":
    sys.exit(main())
