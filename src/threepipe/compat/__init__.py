"""Stand-ins for other libraries' modules, so that programs written for them change one import.

`compat.pytun` is for python-pytun and `compat.pytun_pmd3` for pytun-pmd3. docs/handing-over.md lists what differs.
"""
