"""What a page is answered with: status.py URL prints the status, or why there is none."""

import sys
import urllib.error
import urllib.request

try:
    print(urllib.request.urlopen(sys.argv[1], timeout=2).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(error)
