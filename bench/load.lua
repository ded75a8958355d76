-- What wrk asks: products from a file, one body a line; how the answers fell is printed as JSON at the end.
local bodies, at, threads = {}, 0, {}
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end

function setup(thread) threads[#threads + 1] = thread end

function init() ok, busy, wrong = 0, 0, 0 end

function request()
  at = at + 1
  return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, bodies[at % #bodies + 1])
end

function response(status)
  if status == 200 then ok = ok + 1 elseif status == 503 then busy = busy + 1 else wrong = wrong + 1 end
end

function done(summary, latency)
  local sums = { ok = 0, busy = 0, wrong = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format('RESULT {"ok": %d, "busy": %d, "wrong": %d, "lost": %d, "seconds": %.3f, "p50_ms": %.2f, "p99_ms": %.2f}',
    sums.ok, sums.busy, sums.wrong, lost, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
