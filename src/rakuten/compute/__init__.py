"""Where heavy work runs: on this machine's cores, or on the workers of a Dask cluster, with the same results.

executor     what an executor is
local        processes on this machine
dask         a Dask cluster; the only module that imports distributed
parallel     parallel_map, and which executor it uses
fingerprint  of the code and libraries that results depend on: workers must have the same
"""

from rakuten.compute.fingerprint import code_fingerprint
from rakuten.compute.parallel import executor_from, is_remote, parallel_map

__all__ = ["code_fingerprint", "executor_from", "is_remote", "parallel_map"]
