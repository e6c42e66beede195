#!/usr/local/bin/python3
"""The AWS CLI, as /usr/local/bin/aws."""

import sys

from awscli.clidriver import main

sys.exit(main())
