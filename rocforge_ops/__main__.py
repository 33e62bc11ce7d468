import sys

from rocforge_ops.cli import main

sys.exit(main())
